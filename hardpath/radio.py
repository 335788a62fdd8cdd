"""Sub-commands of a radio: radio probe, run, replay, calibrate, serve-pluto."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hardpath.call_options import is_given
from hardpath.options import OUTPUT_PANEL, STOP_PANEL, Data, Json, ReceiverName, ResultsJson, SkipBad, path_of
from hardpath.terminal import exit_with_line, in_one_line, note, say, say_json, say_table

if TYPE_CHECKING:
    from hardpath.radio_jobs import Attached, Outcome, Replayed
    from link.chain import Link
    from link.radio.operation.calibration import Calibration, Estimate
    from link.radio.spec import RadioSpec

commands = typer.Typer(no_args_is_help=True)

_ROWS: Final = 40
"""Frames of a recording that a table shows."""

RadioFile = Annotated[Path, typer.Argument(metavar="RADIO.toml", help="File that describes a radio.", parser=path_of)]
SentBundle = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="BUNDLE", help="Send a data set through this bundle.", parser=path_of),
]


@commands.command()
def probe(
    radio: Annotated[
        Path | None,
        typer.Argument(metavar="[RADIO.toml]", help="Open this radio and say what it is.", parser=path_of),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Look for one kind of front end alone.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which front ends can be used here, what the others lack, and what is attached; or open one radio."""
    from hardpath.radio_jobs import attached
    from link.errors import ArgumentError
    from link.radio.frontends import KINDS

    if radio is not None:
        if kind is not None:
            raise ArgumentError("--kind", "must be absent beside a radio's file")
        _show_radio(radio, as_json=as_json)
        return
    found = [attached(name) for name in (KINDS if kind is None else (kind,))]
    if as_json:
        say_json([one._asdict() for one in found])
        return
    say_table("", ("front end", "driver", "attached", "to do"), map(_cells, found))
    for one in found:
        for device in one.devices:
            say(f"{one.kind}: {in_one_line(', '.join(f'{key} {value}' for key, value in device.items()), 200)}")


def _cells(found: Attached) -> tuple[str, ...]:
    devices = f"{len(found.devices)}" if found.devices else "-"
    return found.kind, "there" if found.usable else "missing", devices, in_one_line(found.remedy or found.trouble, 120)


def _show_radio(file: Path, *, as_json: bool) -> None:
    from link.radio.spec import load_radio

    spec = load_radio(file)
    with spec.frontend.build() as frontend:
        facts, able = frontend.facts(), asdict(frontend.capabilities)
    if as_json:
        say_json({"kind": spec.frontend.kind, "facts": facts, "capabilities": able})
        return
    rows = [(name, str(value)) for part in (facts, able) for name, value in part.items() if value is not None]
    say_table(f"radio ({spec.frontend.kind})", ("what", "value"), rows)


@commands.command()
def run(
    context: typer.Context,
    radio: RadioFile,
    bundle: SentBundle = None,
    receiver: ReceiverName = None,
    data: Data = None,
    skip_bad: SkipBad = False,
    payload: Annotated[
        str, typer.Option("--payload", metavar="KIND", help="What to send without a bundle: random.")
    ] = "random",
    order: Annotated[int, typer.Option("--order", help="Order of the square QAM of random payloads.")] = 16,
    snr_db: Annotated[
        float | None,
        typer.Option("--snr-db", help="Es/N0 in dB, of a simulated front end or a calibrated radio; else as it is."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of payloads and simulated noise.")] = 0,
    exchange_frames: Annotated[
        int, typer.Option("--exchange-frames", min=1, max=1024, help="Frames that are sent together.")
    ] = 16,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="End behind so many frames.", rich_help_panel=STOP_PANEL)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.001, help="End after so many seconds.", rich_help_panel=STOP_PANEL),
    ] = None,
    reconnect_s: Annotated[
        float,
        typer.Option(
            "--reconnect-s",
            min=0.0,
            max=86400.0,
            help="Seconds that a device that was lost has to come back; 0: none.",
            rich_help_panel=STOP_PANEL,
        ),
    ] = 10.0,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            metavar="BASE",
            help="Keep what is received as BASE.sigmf-data and BASE.sigmf-meta.",
            parser=path_of,
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for plots and figures.", parser=path_of, rich_help_panel=OUTPUT_PANEL),
    ] = None,
    as_json: ResultsJson = False,
) -> None:
    """Send frames over a radio again and again, and watch; without --frames and --seconds until Ctrl-C."""
    from hardpath.radio_jobs import Run, run_radio
    from link.constellation import bits_per_symbol
    from link.errors import ArgumentError
    from link.radio.operation.traffic import TrafficSpec
    from link.radio.spec import load_radio

    if payload != "random":
        raise ArgumentError("--payload", f"must be random, got {payload!r}")
    if bundle is not None:
        for name in ("payload", "order"):
            if is_given(context, name):
                raise ArgumentError(f"--{name}", "must be absent beside --bundle")
    _refuse_without(bundle, data, receiver, skip_bad=skip_bad)
    bits_per_symbol(order)
    spec, link = load_radio(radio), _link(bundle, receiver)
    _require_settable(spec, link, snr_db)
    sent = TrafficSpec(
        payload="random" if link is None else "bundle",
        order=order,
        seed=seed,
        snr_db=snr_db,
        exchange_frames=exchange_frames,
    )
    outcome = run_radio(spec, sent, link, data, Run(frames, seconds, record, reconnect_s), skip_bad=skip_bad)
    _show_run(outcome, spec, out, as_json=as_json)
    if isinstance(outcome.ended_by, SystemExit):
        sys.exit(outcome.ended_by.code)
    if outcome.ended_by is not None:
        exit_with_line(outcome.ended_by)


def _refuse_without(bundle: Path | None, data: Path | None, receiver: str | None, *, skip_bad: bool) -> None:
    """Refuse what is of a bundle where there is none."""
    from link.errors import ArgumentError

    given = {"--data": data is not None, "--receiver": receiver is not None, "--skip-bad": skip_bad}
    for name, present in given.items():
        if bundle is None and present:
            raise ArgumentError(name, "must be absent without --bundle")


def _link(bundle: Path | None, receiver: str | None) -> Link | None:
    from link.bundle import load_bundle
    from link.chain import Link

    return None if bundle is None else Link(load_bundle(bundle, receiver))


def _require_settable(spec: RadioSpec, link: Link | None, snr_db: float | None) -> None:
    """Refuse an SNR that nothing would go by, and none where something must."""
    from link.errors import ArgumentError, require_range
    from link.snr import SNR_DB_MAX, SNR_DB_MIN

    routed = link is not None and link.manifest.routed
    if snr_db is None:
        if routed:
            raise ArgumentError("--snr-db", "must be given for a bundle whose router goes by it")
        return
    require_range("--snr-db", snr_db, SNR_DB_MIN, SNR_DB_MAX)
    if not (spec.sets_snr or routed):
        raise ArgumentError(
            "--snr-db", f"must be absent for a {spec.frontend.kind} radio that is not calibrated: its SNR is what it is"
        )


def _show_run(outcome: Outcome, spec: RadioSpec, out: Path | None, *, as_json: bool) -> None:
    from hardpath.radio_view import rows
    from hardpath.sweep_tables import plots_are_extra
    from hardpath.terminal import write_text

    figures = outcome.figures
    if as_json:
        say_json(figures.model_dump(mode="json"))
    else:
        say_table(f"radio ({spec.frontend.kind})", ("what", "found"), rows(figures))
    if out is not None:
        write_text(out / "figures.json", figures.model_dump_json(indent=2) + "\n")
        with plots_are_extra():
            _plot(outcome, out)


def _plot(outcome: Outcome, out: Path) -> None:
    from link.plot import constellation
    from link.radio.operation.plots import over_time

    tally, snr_db = outcome.tally, outcome.figures.snr_db
    over_time(tally.moments, out / "over_time")
    if tally.order is not None and snr_db is not None:
        constellation(tally.constellation, tally.order, out / "constellation", round(snr_db, 2))


@commands.command()
def replay(
    recording: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDING", help="SigMF recording: BASE, BASE.sigmf-meta or an archive.", parser=path_of
        ),
    ],
    radio: Annotated[
        Path | None,
        typer.Option(
            "--radio",
            metavar="FILE",
            help="Radio's file with the settings of the modem, in place of those that the recording keeps.",
            parser=path_of,
        ),
    ] = None,
    bundle: SentBundle = None,
    receiver: ReceiverName = None,
    data: Data = None,
    skip_bad: SkipBad = False,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Pass over the marks of exchanges: receive all that is between two gaps at once."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.npz", help="Keep frames, symbols, LLRs and decisions.", parser=path_of),
    ] = None,
    as_json: Json = False,
) -> None:
    """Receive a recording again: the same frames, LLRs and decisions, bit for bit."""
    from hardpath.radio_jobs import replay_recording
    from link.radio.spec import load_radio

    _refuse_without(bundle, data, receiver, skip_bad=skip_bad)
    spec = None if radio is None else load_radio(radio)
    found = replay_recording(recording, spec, _link(bundle, receiver), data, out, marks=not whole, skip_bad=skip_bad)
    if found.unmarked:
        note(
            f"{found.unmarked} samples behind the last exchange are of one that was broken off: --whole receives them too"
        )
    if as_json:
        say_json(_replayed_json(found))
    else:
        _show_replayed(recording, found)


def _replayed_json(found: Replayed) -> dict[str, Any]:
    rows = found.log.rows
    return {
        "frames_sent": found.frames_sent,
        "frames_received": len(rows),
        "crc_failed": sum(row.crc_ok is False for row in rows),
        "headers_lost": found.headers_lost,
        "other_versions": found.other_versions,
        "llr_sha256": found.log.digest.hex,
        "figures": None if found.figures is None else found.figures.model_dump(mode="json", exclude=_OF_THE_CLOCK),
        "frames": [row._asdict() for row in rows],
    }


_OF_THE_CLOCK: Final = {"seconds", "frames_s", "samples_s", "samples", "reconnects", "air_bits_s"}
"""Of the live run, and not of its replay."""


def _show_replayed(recording: Path, found: Replayed) -> None:
    from hardpath.radio_view import rows as figure_rows

    rows = found.log.rows
    say_table(
        f"{recording.name}",
        ("exchange", "sequence", "mode", "symbols", "start", "CFO", "clock ppm", "Es/N0 dB", "EVM %", "CRC"),
        [
            (
                "-" if row.exchange is None else str(row.exchange),
                str(row.sequence),
                str(row.mode),
                str(row.length),
                f"{row.start:.0f}",
                f"{row.cfo:+.4e}",
                f"{row.clock_ppm:+.2f}",
                f"{row.snr_db:.2f}",
                f"{100.0 * row.evm:.2f}",
                "-" if row.crc_ok is None else "right" if row.crc_ok else "wrong",
            )
            for row in rows[:_ROWS]
        ],
    )
    if len(rows) > _ROWS:
        say(f"and {len(rows) - _ROWS} more, which --json shows")
    sent = f"{len(rows)} frames" if found.frames_sent is None else f"{len(rows)} of {found.frames_sent} frames"
    wrong = sum(row.crc_ok is False for row in rows)
    astray = f"{found.headers_lost} preambles without header"
    say(f"{sent}, {wrong} with a wrong CRC, {astray}; LLRs sha256 {found.log.digest.hex}")
    if found.figures is not None:
        known = ("BER", "accuracy")
        for name, value in figure_rows(found.figures):
            if name in known:
                say(f"{name} {value}")


@commands.command()
def calibrate(
    radio: RadioFile,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the radio's file with what was measured.", parser=path_of),
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=4, max=1024, help="Frames of the burst.")] = 32,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of their payloads.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure delay, carrier, clock, gain, noise and SNR of a radio by a burst that is known, and silence behind it.

    By what --out writes, a sweep can set the SNR: it sends with less power.
    """
    from hardpath.radio_jobs import calibrate_radio, save_calibrated
    from link.radio.spec import load_radio

    spec = load_radio(radio)
    found = calibrate_radio(spec, frames, seed)
    if out is not None:
        save_calibrated(spec, found, out)
    if as_json:
        say_json(found.model_dump(mode="json"))
    else:
        say_table(f"radio ({spec.frontend.kind})", ("what", "found", "95 % interval"), _calibration_rows(found))


def _calibration_rows(found: Calibration) -> list[tuple[str, str, str]]:
    def row(name: str, estimate: Estimate, form: str) -> tuple[str, str, str]:
        value, low, high = (form.format(number) for number in (estimate.value, estimate.low, estimate.high))
        return name, value, f"{low} .. {high}"

    floor = "none" if found.noise_floor_db is None else f"{found.noise_floor_db:.2f}"
    return [
        ("frames", f"{found.frames} of {found.frames_sent}", ""),
        row("delay, samples", found.delay_samples, "{:.4f}"),
        row("CFO, cycles/sample", found.cfo, "{:+.4e}"),
        row("clock, ppm", found.clock_ppm, "{:+.3f}"),
        row("gain, dB", found.gain_db, "{:+.3f}"),
        row("Es/N0 at full power, dB", found.snr_db, "{:.2f}"),
        ("noise floor, dB of 1", floor, ""),
        ("DC, amplitude", f"{found.dc:.2e}", ""),
    ]


@commands.command(name="serve-pluto")
def serve_pluto(
    radio: RadioFile,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 30431,
) -> None:
    """Let programs that drive a PlutoSDR over the network use a radio, until Ctrl-C or SIGTERM. There is no password."""
    from hardpath.radio_jobs import serve_as_pluto
    from link.radio.spec import load_radio

    spec = load_radio(radio)
    serve_as_pluto(spec, host, port, lambda uri: say(f"serving a radio ({spec.frontend.kind}) as a PlutoSDR on {uri}"))
