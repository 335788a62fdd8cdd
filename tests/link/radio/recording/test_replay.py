"""A run that was recorded, and its replay: the same frames, LLRs and decisions, bit for bit."""

import json

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.errors import RecordingError
from link.radio.channel import RadioChannel
from link.radio.frontend import FrontEnd
from link.radio.frontends import frontend_spec
from link.radio.modem.modem import Modem
from link.radio.modem.options import ModemOptions
from link.radio.operation.figures import RunTally
from link.radio.operation.frame_log import FrameLog
from link.radio.operation.run import run
from link.radio.operation.traffic import BundleTraffic, RandomTraffic, TrafficSpec
from link.radio.recording.file import read_recording
from link.radio.recording.marks import Marker, Span, exchanges, read_samples
from link.radio.recording.recorder import Recorder
from link.radio.recording.replay import modem_options, receive_again, replay, sent_in, unmarked_behind
from link.radio.spec import RadioSpec

SYMBOLS = 256
SIX = TrafficSpec(exchange_frames=6)
MODEM = {"frame": {"payload_symbols": SYMBOLS}}
FAULTS = {"snr_db": 15.0, "cfo": 5e-4, "clock_ppm": 30.0, "delay_samples": 2.7}
GAPS = {"gap_every": 9_000, "gap_samples": 40}


class Shredded(FrontEnd):
    """Gives samples in pieces of any size."""

    capabilities = property(lambda self: self._frontend.capabilities)

    def __init__(self, frontend):
        self._frontend, self._random = frontend, np.random.default_rng(1)

    def open(self):
        self._frontend.open()

    def send(self, samples, timeout_s):
        return self._frontend.send(samples, timeout_s)

    def recv(self, most, timeout_s):
        return self._frontend.recv(int(self._random.integers(1, 3000)), timeout_s)

    def close(self):
        self._frontend.close()


class Live:
    """A run, its recording, and what it found."""

    def __init__(self, folder, faults, *, traffic=SIX, link=None, wrap=lambda frontend: frontend):
        self.spec = RadioSpec(frontend={"kind": "impaired", **faults}, modem=MODEM)
        settings = {**self.spec.model_dump(mode="json"), "run": traffic.model_dump()}
        recorder = Recorder(wrap(self.spec.frontend.build()), folder / "run", radio=settings)
        marker = Marker(recorder, 4)
        self.tally, self.drops = RunTally(4, self.spec.tail_samples), []
        self.decisions = []

        def watch(drop):
            marker(drop)
            self.tally(drop)
            self.drops.append(drop)

        self.source = source(traffic, link)
        with RadioChannel(self.spec, recorder, watch) as radio:
            run(radio, self.source, self.tally, frames=20)
        self.file = recorder.meta_file
        self.recording = read_recording(self.file)

    @property
    def frames(self):
        return [frame for drop in self.drops for frame in drop.frames.values()]


def source(traffic, link=None):
    if link is None:
        return RandomTraffic(traffic, SYMBOLS)
    return BundleTraffic(traffic, link, INPUTS["inputs"], INPUTS["labels"], SYMBOLS)


INPUTS = {}


def assert_same_frames(found, frames):
    assert len(found) == len(frames)
    for mine, its in zip(found, frames, strict=True):
        assert mine.header == its.header
        assert np.array_equal(mine.payload, its.payload)
        assert np.array_equal(mine.no, its.no)
        assert np.array_equal(mine.llr, its.llr)
        assert (mine.cfo, mine.clock, mine.evm, mine.crc_ok) == (its.cfo, its.clock, its.evm, its.crc_ok)


@pytest.mark.parametrize("faults", [FAULTS, FAULTS | GAPS, FAULTS | GAPS | {"gap_counted": False}])
def test_a_replay_finds_the_same_frames_bit_for_bit(tmp_path, faults):
    live = Live(tmp_path, faults)
    assert live.frames
    found = list(replay(live.recording, Modem(live.spec.modem)))
    assert_same_frames([frame.received for one in found for frame in one.frames], live.frames)
    assert [one.lost for one in found] == [len(drop.payloads) - len(drop.frames) for drop in live.drops]
    assert [one.headers_lost for one in found] == [drop.headers_lost for drop in live.drops]
    assert (faults is FAULTS) == (sum(one.lost for one in found) == 0)


def test_the_chunks_that_samples_came_in_do_not_matter(tmp_path):
    whole = Live(tmp_path / "a", FAULTS)
    shredded = Live(tmp_path / "b", FAULTS, wrap=Shredded)
    assert_same_frames(shredded.frames, whole.frames)
    found = replay(shredded.recording, Modem(shredded.spec.modem))
    assert_same_frames([frame.received for one in found for frame in one.frames], whole.frames)


def test_received_again_beside_what_was_sent_all_figures_are_those_of_the_live_run(tmp_path):
    live = Live(tmp_path, FAULTS | GAPS | {"snr_db": 9.0})
    tally, log = RunTally(4, live.spec.tail_samples), FrameLog(keeps_symbols=True)
    sent = sent_in(live.recording)
    receive_again(live.recording, modem_options(live.recording, None), source(sent), log, tally)
    clock = {"seconds", "frames_s", "samples_s"}
    assert tally.figures.model_dump(exclude=clock) == live.tally.figures.model_dump(exclude=clock)
    assert live.tally.figures.bit_errors > 100
    assert live.tally.figures.gaps > 0
    arrays = log.arrays()
    assert np.array_equal(arrays["llr"], np.concatenate([frame.llr.ravel() for frame in live.frames]))
    assert arrays["symbol_ends"].tolist() == [SYMBOLS * (i + 1) for i in range(len(live.frames))]
    assert arrays["sequence"].tolist() == [frame.header.sequence for frame in live.frames]


@pytest.mark.parametrize("snr_db", [None, 3.0])
def test_a_bundle_of_several_modes_is_decided_the_same_again_headers_and_all(
    tmp_path, modes_bundle, latents_of, snr_db
):
    link = Link(load_bundle(modes_bundle))
    made = latents_of(np.arange(24) % 3)
    INPUTS.update(inputs=made.inputs, labels=made.labels)
    live = Live(tmp_path, {"snr_db": 3.0, "cfo": 1e-4}, traffic=TrafficSpec(payload="bundle", snr_db=snr_db), link=link)
    tally, log = RunTally(4, live.spec.tail_samples), FrameLog(keeps_symbols=False)
    receive_again(live.recording, live.spec.modem, source(sent_in(live.recording), link), log, tally)
    assert tally.figures.decisions_sha256 == live.tally.figures.decisions_sha256 is not None
    assert tally.figures.llr_sha256 == live.tally.figures.llr_sha256
    assert tally.figures.accuracy == live.tally.figures.accuracy
    assert (tally.figures.correct, tally.figures.decisions) == (
        live.tally.figures.correct,
        live.tally.figures.decisions,
    )


def test_frames_are_annotated_where_they_stand(tmp_path):
    live = Live(tmp_path, FAULTS)
    marked = [one for one in live.recording.annotations if one["core:label"] == "frame"]
    assert len(marked) == len(live.frames)
    for annotation, frame in zip(marked, live.frames, strict=True):
        assert annotation["hardpath:sequence"] == frame.header.sequence
        assert annotation["hardpath:cfo"] == frame.cfo
        assert annotation["hardpath:evm"] == frame.evm
        assert (annotation["hardpath:mode"], annotation["hardpath:length"]) == (frame.header.mode, SYMBOLS)
        span = Span(annotation["core:sample_start"], annotation["core:sample_count"])
        alone = Modem(ModemOptions()).receive(read_samples(live.recording, Span(span.start - 60, span.length + 120)))
        assert [one.header for one in alone.frames] == [frame.header]


def test_a_mark_covers_what_the_receiver_was_given_and_nothing_else(tmp_path):
    live = Live(tmp_path, FAULTS | GAPS)
    marked = exchanges(live.recording)
    assert [one.number for one in marked] == list(range(len(live.drops)))
    for one, drop in zip(marked, live.drops, strict=True):
        assert len(one.runs) == len(drop.capture.runs)
        for run_, samples in zip(one.runs, drop.capture.runs, strict=True):
            assert np.array_equal(read_samples(live.recording, run_), samples)
        assert (one.gaps, one.frames) == (drop.capture.gaps, len(drop.payloads))


def test_without_marks_a_recording_is_taken_by_its_gaps(tmp_path):
    live = Live(tmp_path, FAULTS | GAPS)
    found = exchanges(live.recording, marks=False)
    assert [one.number for one in found] == [None] * len(found)
    assert sum(run_.length for one in found for run_ in one.runs) == live.recording.samples
    assert len(found) == 1 + sum(segment.lost != 0 for segment in live.recording.segments)
    frames = [frame for one in replay(live.recording, Modem(live.spec.modem), marks=False) for frame in one.frames]
    assert len(frames) >= len(live.frames)


def test_a_frame_is_found_where_it_stands_in_a_recording_of_another_program(tmp_path):
    modem = Modem(ModemOptions())
    payloads = [np.tile([1 + 1j, 1 - 1j, -1 - 1j], 40) / np.sqrt(2)] * 3
    burst = modem.send(payloads, 65_534)
    samples = np.concatenate([np.zeros(777, np.complex64), burst.samples, np.zeros(500, np.complex64)])
    (tmp_path / "other.sigmf-data").write_bytes(np.round(samples.view("<f4") * 8192).astype("<i2").tobytes())
    metadata = {"global": {"core:datatype": "ci16_le", "core:version": "1.0.0"}, "captures": [], "annotations": []}
    (tmp_path / "other.sigmf-meta").write_text(json.dumps(metadata))
    recording = read_recording(tmp_path / "other")
    with pytest.raises(RecordingError, match="has no settings of a modem: give a radio's file"):
        modem_options(recording, None)
    (found,) = replay(recording, Modem(modem_options(recording, RadioSpec(frontend={"kind": "loopback"}))))
    assert [frame.received.header.sequence for frame in found.frames] == [65_534, 65_535, 0]
    assert all(frame.received.crc_ok for frame in found.frames)
    # The first symbol of a preamble stands behind the guard, which the pulse reaches into.
    assert found.frames[0].start == pytest.approx(777 + 40 + 16 * 4, abs=2.0)
    assert found.lost is None


def test_what_is_behind_the_last_exchange_is_counted(tmp_path):
    live = Live(tmp_path, FAULTS)
    assert unmarked_behind(live.recording) == 0
    metadata = json.loads(live.file.read_text())
    last = max(one["hardpath:exchange"] for one in metadata["annotations"])
    kept = [one for one in metadata["annotations"] if one["hardpath:exchange"] != last]
    live.file.write_text(json.dumps({**metadata, "annotations": kept}))
    assert unmarked_behind(read_recording(live.file)) == len(live.drops[-1].capture.runs[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hardpath:frames": "two"}, "hardpath:frames of an exchange must be a whole number from 0, got 'two'"),
        ({"hardpath:run": True}, "hardpath:run of an exchange must be a whole number from 0, got True"),
        ({"core:sample_count": 10**9}, "but the data at .*: it was cut"),
    ],
)
def test_a_mark_that_cannot_be_is_refused(tmp_path, change, message):
    live = Live(tmp_path, FAULTS)
    metadata = json.loads(live.file.read_text())
    next(one for one in metadata["annotations"] if one["core:label"] == "exchange").update(change)
    live.file.write_text(json.dumps(metadata))
    with pytest.raises(RecordingError, match=message):
        exchanges(read_recording(live.file))


def test_a_recording_of_other_frames_is_refused(tmp_path):
    live = Live(tmp_path, FAULTS)
    other = RandomTraffic(TrafficSpec(exchange_frames=5), SYMBOLS)
    with pytest.raises(RecordingError, match="exchange 0 has 6 frames, and this data makes 5"):
        receive_again(live.recording, live.spec.modem, other, FrameLog(keeps_symbols=False), RunTally(4, 0))


@pytest.mark.parametrize("radio", [{"modem": {"frame": 3}}, {"modem": {"frame": {"zc_length": 64}}}])
def test_settings_that_are_of_no_modem_are_refused(tmp_path, radio):
    recorder = Recorder(frontend_spec("loopback", {}).build(), tmp_path / "run", radio=radio)
    with recorder:
        recorder.send(np.ones(3, np.complex64), 0.1)
        recorder.recv(3, 0.1)
    with pytest.raises(RecordingError, match="are of no modem here"):
        modem_options(read_recording(recorder.meta_file), None)


def test_the_same_run_is_sent_by_the_same_seed_and_another_by_another():
    def sent(seed):
        drops, tally = [], RunTally(4, 0)

        def watch(drop):
            drops.append(drop)
            tally(drop)

        with RadioChannel(RadioSpec(frontend={"kind": "loopback"}), watch=watch) as radio:
            run(radio, RandomTraffic(TrafficSpec(seed=seed), 64), tally, frames=17)
        assert [len(drop.payloads) for drop in drops] == [16, 1]
        return np.concatenate([payload for drop in drops for payload in drop.payloads])

    assert np.array_equal(sent(1), sent(1))
    assert not np.array_equal(sent(1), sent(2))


def test_a_replay_leaves_out_frames_that_were_not_sent_in_their_exchange_and_second_ones(tmp_path):
    live = Live(tmp_path, FAULTS)
    metadata = json.loads(live.file.read_text())
    first = next(one for one in metadata["annotations"] if one["core:label"] == "exchange")
    first.update({"hardpath:first_sequence": 2, "hardpath:frames": 3})
    twice = {**first, "hardpath:run": 1}  # the same samples, once more
    metadata["annotations"].append(twice)
    live.file.write_text(json.dumps(metadata))
    found = next(replay(read_recording(live.file), Modem(live.spec.modem)))
    assert [frame.received.header.sequence for frame in found.frames] == [2, 3, 4]
