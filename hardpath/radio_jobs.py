"""The jobs of `hardpath radio`: what is wired together for each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from hardpath.radio_view import live_view
from hardpath.samples import load_samples
from hardpath.terminal import in_place_of, waiting, write_text
from link.errors import ArgumentError, DriverUnavailable, HardpathError, RadioError, RecordingError

if TYPE_CHECKING:
    from link.chain import Link
    from link.radio.channel import Drop
    from link.radio.modem.options import ModemOptions
    from link.radio.operation.calibration import Calibration
    from link.radio.operation.figures import RunFigures, RunTally
    from link.radio.operation.frame_log import FrameLog
    from link.radio.operation.traffic import Traffic, TrafficSpec
    from link.radio.recording.file import Recording
    from link.radio.spec import RadioSpec


_OTHER: Final = {"bundle": "another bundle", "data": "other data"}


class Attached(NamedTuple):
    """What a kind of front end finds on this machine.

    Attributes
    ----------
    kind : str
    usable : bool
        Whether its driver is there.
    trouble : str
        Why it is not, or why it could not look for devices; empty where all is well.
    remedy : str
        What to install; empty where nothing is missing.
    devices : list of dict
    """

    kind: str
    usable: bool
    trouble: str
    remedy: str
    devices: list[dict[str, Any]]


def attached(kind: str) -> Attached:
    """Look for the driver of a kind and for its devices.

    Raises
    ------
    ArgumentError
        If there is no such kind.
    """
    from link.radio.frontends import spec_type

    try:
        with _silence():
            # What is attached depends on no option, and there are none to be had.
            devices = spec_type(kind).model_construct().probe()
        return Attached(kind, True, "", "", devices)
    except DriverUnavailable as error:
        return Attached(kind, False, f"{error.driver} is not installed", error.remedy, [])
    except ImportError as error:
        return Attached(kind, False, str(error), "", [])
    except (RadioError, OSError) as error:
        return Attached(kind, True, str(error), "", [])


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing be seen of what drivers, and the libraries below them, write while they look around."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with Path(os.devnull).open("w") as nowhere:
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


class Run(NamedTuple):
    """What a run is asked for, beside its radio and traffic.

    Attributes
    ----------
    frames : int or None
    seconds : float or None
    record : Path or None
    patience_s : float
    """

    frames: int | None
    seconds: float | None
    record: Path | None
    patience_s: float


class Outcome(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    figures : RunFigures
    tally : RunTally
    ended_by : BaseException or None
        Ctrl-C, a signal, or what became of the device; None where it came to its end.
    """

    figures: RunFigures
    tally: RunTally
    ended_by: BaseException | None


def run_radio(
    spec: RadioSpec,
    traffic_spec: TrafficSpec,
    link: Link | None,
    data: Path | None,
    asked: Run,
    *,
    skip_bad: bool = False,
) -> Outcome:
    """Send over a radio with a live view, until it is enough; `skip_bad` as for hardpath.samples.load_samples.

    Raises
    ------
    HardpathError
        If not even one exchange came through.
    """
    from link.constellation import points
    from link.radio.operation.figures import RunTally
    from link.radio.operation.reconnect import ReconnectingRadio
    from link.radio.operation.run import run
    from link.radio.recording.marks import Marker
    from link.radio.recording.recorder import Recorder

    traffic_spec, traffic = _traffic(traffic_spec, spec.modem.frame.payload_symbols, link, data, skip_bad=skip_bad)
    samples_per_symbol = spec.modem.pulse.samples_per_symbol
    frontend, marker = spec.frontend.build(), None
    if asked.record is not None:
        settings = {**spec.model_dump(mode="json"), "run": traffic_spec.model_dump(mode="json")}
        frontend = recorder = Recorder(frontend, asked.record, radio=settings, seed=traffic_spec.seed)
        marker = Marker(recorder, samples_per_symbol)
    tally = RunTally(samples_per_symbol, spec.tail_samples)

    def watch(drop: Drop) -> None:
        if marker is not None:
            marker(drop)
        tally(drop)

    title = f"{traffic_spec.payload} payloads over a radio ({spec.frontend.kind})"
    ended_by: BaseException | None = None
    with ExitStack() as stack:
        stack.enter_context(ends_on_sigterm())
        view = stack.enter_context(live_view(title, tally, lambda order: float(points(order).max())))
        radio = ReconnectingRadio(spec, frontend, watch, patience_s=asked.patience_s, on_loss=view.lost)
        stack.enter_context(radio)

        def after() -> None:
            tally.reconnects = radio.reconnects
            view.exchanged()

        try:
            run(radio, traffic, tally, frames=asked.frames, seconds=asked.seconds, after=after)
        except (KeyboardInterrupt, SystemExit, HardpathError) as error:
            if not tally.frames:
                raise
            ended_by = error
        figures = tally.figures
    return Outcome(figures, tally, ended_by)


def _traffic(
    traffic_spec: TrafficSpec, symbols: int, link: Link | None, data: Path | None, *, skip_bad: bool
) -> tuple[TrafficSpec, Traffic]:
    """What is sent, and its description with the names of bundle and data in it."""
    from link.radio.operation.traffic import BundleTraffic, RandomTraffic

    if link is None:
        return traffic_spec, RandomTraffic(traffic_spec, symbols)
    samples = load_samples(data, link.manifest, skip_bad=skip_bad)
    traffic = BundleTraffic(traffic_spec, link, samples.inputs, samples.labels, symbols)
    named = {"bundle": link.manifest.transmitter.sha256, "data": traffic.data_sha256}
    return traffic_spec.model_copy(update=named), traffic


class Replayed(NamedTuple):
    """A recording, received again.

    Attributes
    ----------
    log : FrameLog
    frames_sent : int or None
        None where nobody knows.
    headers_lost, other_versions : int
        See link.radio.modem.receiver.Reception.
    figures : RunFigures or None
        Where what was sent is known.
    unmarked : int
        Samples behind the last exchange, which were passed over.
    """

    log: FrameLog
    frames_sent: int | None
    headers_lost: int
    other_versions: int
    figures: RunFigures | None
    unmarked: int = 0


def replay_recording(
    file: Path,
    radio: RadioSpec | None,
    link: Link | None,
    data: Path | None,
    out: Path | None,
    *,
    marks: bool,
    skip_bad: bool = False,
) -> Replayed:
    """Receive a recording again; with `out`, keep frames, LLRs and decisions there. `skip_bad` as for `run_radio`.

    Raises
    ------
    ArgumentError
        If a bundle is given and the recording is not of one.
    RecordingError
        If it cannot be used, or was made with another bundle or other data.
    """
    from link.radio.operation.frame_log import FrameLog
    from link.radio.recording.file import read_recording
    from link.radio.recording.replay import modem_options, sent_in, unmarked_behind

    with waiting(f"reading {file}"):
        recording = read_recording(file)
        options, log = modem_options(recording, radio), FrameLog(keeps_symbols=out is not None)
        sent = sent_in(recording) if marks else None
        if link is not None and (sent is None or sent.payload != "bundle"):
            raise ArgumentError("--bundle", f"must be absent: {recording.file} does not say that a bundle was sent")
        if sent is None or (link is None and sent.payload == "bundle"):
            found = _replay_frames(recording, options, log, marks=marks)
        else:
            found = _replay_run(recording, options, log, sent, link, data, skip_bad=skip_bad)
    if out is not None:
        with in_place_of(out) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **found.log.arrays())  # type: ignore[arg-type]
    return found._replace(unmarked=unmarked_behind(recording) if marks else 0)


def _replay_frames(recording: Recording, options: ModemOptions, log: FrameLog, *, marks: bool) -> Replayed:
    from link.radio.modem.modem import Modem
    from link.radio.recording.replay import replay

    sent: int | None = 0
    headers_lost = others = 0
    for found in replay(recording, Modem(options), marks=marks):
        for frame in found.frames:
            log.add(found.exchange.number, frame.start, frame.received)
        sent = None if sent is None or found.exchange.frames is None else sent + found.exchange.frames
        headers_lost += found.headers_lost
        others += found.other_versions
    return Replayed(log, sent, headers_lost, others, None)


def _replay_run(
    recording: Recording,
    options: ModemOptions,
    log: FrameLog,
    sent: TrafficSpec,
    link: Link | None,
    data: Path | None,
    *,
    skip_bad: bool,
) -> Replayed:
    from link.radio.operation.figures import RunTally
    from link.radio.recording.replay import receive_again

    now, traffic = _traffic(sent, options.frame.payload_symbols, link, data, skip_bad=skip_bad)
    for name in ("bundle", "data"):
        if getattr(now, name) != getattr(sent, name):
            raise RecordingError(f"{recording.file}: it was made with {_OTHER[name]} than this one")
    tally = RunTally(options.pulse.samples_per_symbol, 0)
    receive_again(recording, options, traffic, log, tally)
    figures = tally.figures
    return Replayed(log, figures.frames, figures.headers_lost, figures.other_versions, figures)


def calibrate_radio(spec: RadioSpec, frames: int, seed: int) -> Calibration:
    """Measure a radio."""
    from link.radio.channel import RadioChannel
    from link.radio.operation.sounding import sound

    with (
        ends_on_sigterm(),
        waiting(f"sending {frames} frames over a radio ({spec.frontend.kind})"),
        RadioChannel(spec) as radio,
    ):
        return sound(radio, frames, seed)


def save_calibrated(spec: RadioSpec, found: Calibration, out: Path) -> None:
    """Write a radio with what was measured of it, in one step."""
    from link.radio.operation.sounding import calibrated
    from link.radio.spec import radio_toml

    write_text(out, radio_toml(calibrated(spec, found)))


def serve_as_pluto(spec: RadioSpec, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Let programs that drive a PlutoSDR have a radio, until Ctrl-C or SIGTERM."""
    from link.radio.iiod import PlutoServer

    with PlutoServer(spec.frontend.build(), host, port) as server:
        before = signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
        try:
            ready(server.uri)
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            pass
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does, so that the device is let go of and nothing recorded is lost."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
