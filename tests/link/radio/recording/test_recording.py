import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import sigmf
from hypothesis import given, settings
from hypothesis import strategies as st

from link.errors import ArgumentError, DriverUnavailable, RadioError, RecordingError
from link.radio.frontend import Block, Capabilities, FrontEnd, SimulatedFrontEnd
from link.radio.frontends import frontend_spec
from link.radio.frontends.loopback import Loopback
from link.radio.recording.file import read_recording
from link.radio.recording.recorder import Recorder
from link.randomness import Draws

PROGRAM = """
    import sys
    import numpy as np
    from link.radio.frontends.loopback import Loopback
    from link.radio.recording.recorder import Recorder

    recorder = Recorder(Loopback(), sys.argv[1], seed=7)
    with recorder:
        for step in range(100_000):
            recorder.send(np.full(1000, step, np.complex64), 0.1)
            assert len(recorder.recv(1000, 0.1).samples) == 1000
            recorder.annotate(1000 * step, 1000, label="frame", fields={"sequence": step})
            print(recorder.samples, flush=True)
"""


class Scripted(FrontEnd):
    """Gives blocks that were laid down, and raises where one of them is an exception."""

    capabilities = Capabilities(sample_rate_hz=2e6, timestamps=True)

    def __init__(self, *script):
        self.script = list(script)
        self.closed = 0

    def open(self):
        pass

    def send(self, samples, timeout_s):
        return len(samples)

    def recv(self, most, timeout_s):
        block = self.script.pop(0) if self.script else Block()
        if isinstance(block, BaseException):
            raise block
        return block

    def close(self):
        self.closed += 1

    def facts(self):
        return {"serial": "B00", "gain_db": 30.0, "locked": True}


class Simulated(Loopback, SimulatedFrontEnd):
    asked = None

    def at(self, snr_db, draws):
        self.asked = snr_db, draws


def ramp(count, start=0):
    return (np.arange(start, start + count) * (1 + 2j)).astype(np.complex64)


def record(folder, *script, **options):
    with Recorder(Scripted(*script), folder / "run", **options) as recorder:
        for _ in script:
            recorder.recv(1 << 16, 0.1)
    return recorder


def metadata(recorder):
    return json.loads(recorder.meta_file.read_text())


def replayed(path, most=1 << 20):
    """Blocks of a recording until its end."""
    blocks = []
    with frontend_spec("sigmf", {"file": path}).build() as replay:
        while not replay.exhausted:
            blocks.append(replay.recv(most, 0.1))
        assert replay.recv(most, 0.1) == Block()
    return blocks


def joined(blocks):
    return np.concatenate([block.samples for block in blocks])


def run_program(folder, limit=None):
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder / "run")]
    limits = {} if limit is None else {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **limits)


def recorded_lines(process, count):
    return int([process.stdout.readline() for _ in range(count)][-1])


@settings(max_examples=40, deadline=None)
@given(
    bits=st.binary(min_size=8, max_size=800).map(lambda octets: octets[: len(octets) // 8 * 8]),
    cuts=st.lists(st.integers(0, 100), max_size=8),
    most=st.integers(1, 40),
)
def test_what_is_replayed_is_what_was_received_bit_for_bit_however_both_are_cut(tmp_path_factory, bits, cuts, most):
    samples = np.frombuffer(bits, np.complex64)  # NaN with payloads, subnormals and signed zeros among them
    parts = [Block(part) for part in np.split(samples, sorted(min(cut, len(samples)) for cut in cuts))]
    recorder = record(tmp_path_factory.mktemp("cut"), *parts)
    assert recorder.data_file.read_bytes() == bits
    assert joined(replayed(recorder.meta_file, most)).tobytes() == bits


def test_the_caller_gets_what_the_front_end_gave(tmp_path):
    given = [Block(ramp(3), 0, 5), Block(), Block(ramp(2), None, 9)]
    with Recorder(Scripted(*given), tmp_path / "run") as recorder:
        assert all(recorder.recv(8, 0.1) is block for block in given)
        assert recorder.send(ramp(4), 0.1) == 4
        assert recorder.capabilities == Scripted.capabilities


def test_integers_hold_samples_to_half_a_step_and_clipped_ones_are_counted(tmp_path):
    rng = np.random.default_rng(1)
    samples = rng.uniform(-4, 4, (500, 2)).astype(np.float32).view(np.complex64)[:, 0]
    recorder = record(tmp_path, Block(samples), datatype="ci16_le", full_scale=4.1)
    assert recorder.data_file.stat().st_size == 4 * 500
    # half a step of 4.1/32768, and the rounding of two float32 products near 4
    assert np.abs((joined(replayed(recorder.meta_file)) - samples).view(np.float32)).max() <= 0.5 * 4.1 / 32768 + 2**-20
    assert recorder.clipped == 0
    loud = np.array([5 + 1j, -9 - 9j, np.nan, 0], np.complex64)
    (tmp_path / "loud").mkdir()
    recorder = record(tmp_path / "loud", Block(loud), datatype="ci16_le", full_scale=4.0)
    got = joined(replayed(recorder.meta_file))
    top = 4 * 32767 / 32768
    assert np.array_equal(got, np.array([top + 1j, -4 - 4j, 0, 0], np.complex64))
    assert recorder.clipped == metadata(recorder)["global"]["hardpath:clipped"] == 4  # 5, -9, -9 and NaN


def test_gaps_become_captures_and_come_back_with_their_exact_lengths(tmp_path):
    recorder = record(tmp_path, Block(ramp(10)), Block(ramp(5), 7), Block(lost=3), Block(ramp(4), 2), Block(ramp(6)))
    captures = metadata(recorder)["captures"]
    assert [c["core:sample_start"] for c in captures] == [0, 10, 15]
    assert [c["core:global_index"] for c in captures] == [0, 17, 27]
    notes = [a for a in metadata(recorder)["annotations"] if a["core:label"] == "gap"]
    assert [(a["core:sample_start"], a["hardpath:lost"]) for a in notes] == [(10, 7), (15, 5)]
    assert notes[0]["core:comment"] == "7 samples are missing in front of this one"
    assert [(len(b.samples), b.lost) for b in replayed(recorder.meta_file)] == [(10, 0), (5, 7), (10, 5)]
    assert [b.lost for b in replayed(recorder.meta_file, 4)] == [0, 0, 0, 7, 0, 5, 0, 0]


def test_a_gap_of_unknown_length_stays_unknown_and_so_does_the_index_after_it(tmp_path):
    recorder = record(tmp_path, Block(ramp(3)), Block(lost=2), Block(ramp(3), None), Block(ramp(3), 4))
    assert [c.get("core:global_index") for c in metadata(recorder)["captures"]] == [0, None, None]
    assert [b.lost for b in replayed(recorder.meta_file)] == [0, None, 4]


def test_a_gap_in_front_of_the_first_sample_is_one(tmp_path):
    recorder = record(tmp_path, Block(lost=2), Block(ramp(3), 4), Block(ramp(3), 1))
    assert [c["core:global_index"] for c in metadata(recorder)["captures"]] == [6, 10]
    assert [b.lost for b in replayed(recorder.meta_file)] == [6, 1]


def test_a_gap_at_the_end_is_said(tmp_path):
    recorder = record(tmp_path, Block(ramp(3)), Block(lost=8))
    (note,) = metadata(recorder)["annotations"]
    assert (note["core:sample_start"], note["hardpath:lost"]) == (3, 8)


def test_the_device_s_time_is_kept_to_the_nanosecond(tmp_path):
    late = 1_700_000_000_123_456_789
    recorder = record(tmp_path, Block(ramp(4), 0, late), Block(ramp(4), 1, 42))
    first, second = metadata(recorder)["captures"]
    assert first["core:datetime"] == "2023-11-14T22:13:20.123456789Z"
    assert not second["core:datetime"].startswith("1970")  # a clock that counts from power-on tells no date
    assert [b.time_ns for b in replayed(recorder.meta_file, 2)] == [late, late + 1000, 42, 1042]  # 2 MS/s


def test_the_metadata_says_what_a_replay_needs(tmp_path):
    settings = {"samples_per_symbol": 4, "rolloff": np.float32(0.5), "modulation": "16qam", "pilots": [1, 2]}
    recorder = record(tmp_path, Block(ramp(4)), radio=settings, seed=3, frequency_hz=433.92e6, description="a test")
    said = metadata(recorder)["global"]
    assert said["core:sample_rate"] == 2e6
    assert said["core:hw"] == "serial: B00, gain_db: 30.0, locked: True"
    assert said["core:description"] == "a test"
    assert said["core:extensions"] == [{"name": "hardpath", "version": "1.0.0", "optional": True}]
    recording = read_recording(recorder.meta_file)
    assert recording.radio == settings
    assert (recording.seed, recording.frequency_hz, recording.sample_rate_hz) == (3, 433.92e6, 2e6)


def test_the_official_validator_and_reader_take_it_with_gaps_and_annotations(tmp_path, caplog):
    with Recorder(Scripted(Block(ramp(20)), Block(ramp(9), 4)), tmp_path / "run", seed=1) as recorder:
        recorder.recv(64, 0.1)
        recorder.recv(64, 0.1)
        frame = {"sequence": np.int64(2), "cfo": np.float32(1e-3), "evm_db": float("-inf"), "header": "ok"}
        recorder.annotate(12, 8, label="frame", comment="found", fields=frame)
        recorder.annotate(2, 8, label="frame")
    sigmf.validate.main((str(recorder.meta_file),))  # exits where it does not hold
    read = sigmf.fromfile(recorder.meta_file)
    assert np.array_equal(read.read_samples(), np.concatenate([ramp(20), ramp(9)]))
    assert np.array_equal(read.read_samples_in_capture(1), ramp(9))
    assert [a["core:sample_start"] for a in read.get_annotations()] == [2, 12, 20]
    assert read.get_annotations()[1] == {
        "core:sample_start": 12,
        "core:sample_count": 8,
        "core:label": "frame",
        "core:comment": "found",
        "hardpath:sequence": 2,
        "hardpath:cfo": float(np.float32(1e-3)),
        "hardpath:evm_db": None,
        "hardpath:header": "ok",
    }
    assert not caplog.records


def test_what_was_not_recorded_cannot_be_annotated(tmp_path):
    with Recorder(Scripted(Block(ramp(5))), tmp_path / "run") as recorder:
        recorder.recv(8, 0.1)
        with pytest.raises(ArgumentError, match=r"sample_start must be in \[0, 5\], got 6"):
            recorder.annotate(6, 0)
        with pytest.raises(ArgumentError, match=r"sample_count must be in \[0, 3\], got 4"):
            recorder.annotate(2, 4)
        with pytest.raises(ArgumentError, match=r"fields\.hardpath:what must be of numbers, .* got object"):
            recorder.annotate(2, 1, fields={"what": object()})
    with pytest.raises(RecordingError, match="the recording is not open"):
        recorder.annotate(0, 1)


def test_at_every_moment_the_pair_on_disk_is_a_recording_of_what_came_so_far(tmp_path):
    blocks = [Block(ramp(4)), Block(ramp(3), 2), Block(ramp(5), None), Block(ramp(1))]
    with Recorder(Scripted(*blocks), tmp_path / "run") as recorder:
        assert metadata(recorder)["captures"] == []
        for index, block in enumerate(blocks):
            recorder.recv(8, 0.1)
            recorder.annotate(recorder.samples - 1, 1, label=f"{index}")
            so_far = replayed(recorder.data_file)
            assert np.array_equal(joined(so_far), joined(blocks[: index + 1]))
            assert [b.lost for b in so_far] == [0, 2, None][: index + 1]
            assert block.samples[-1] == joined(so_far)[-1]
        assert "core:sha512" not in metadata(recorder)["global"]
    assert "core:sha512" in metadata(recorder)["global"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.sigmf-data", "run.sigmf-meta"]


def test_an_annotation_comes_to_disk_while_the_device_is_silent(tmp_path):
    with Recorder(Scripted(Block(ramp(4))), tmp_path / "run") as recorder:
        recorder.recv(8, 0.1)
        recorder.annotate(1, 2, label="frame")
        deadline = time.monotonic() + 20
        while not metadata(recorder)["annotations"] and time.monotonic() < deadline:
            recorder.recv(8, 0.1)
        assert metadata(recorder)["annotations"]


def test_a_killed_process_leaves_all_that_it_received(tmp_path):
    process = run_program(tmp_path)
    seen = recorded_lines(process, 20)
    deadline = time.monotonic() + 30
    while "frame" not in (tmp_path / "run.sigmf-meta").read_text() and time.monotonic() < deadline:
        seen = recorded_lines(process, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    recording = read_recording(tmp_path / "run")
    assert recording.samples >= seen
    assert recording.octets.size == 8 * recording.samples
    assert np.array_equal(joined(replayed(tmp_path / "run"))[:seen:1000], np.arange(seen // 1000))
    sigmf.fromfile(tmp_path / "run").validate()
    assert recording.annotations
    assert recording.seed == 7


def test_ctrl_c_leaves_a_complete_recording(tmp_path):
    process = run_program(tmp_path)
    seen = recorded_lines(process, 20)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    recording = read_recording(tmp_path / "run")
    assert recording.samples >= seen
    # The last block may have come without its annotation.
    assert len(recording.annotations) in (recording.samples // 1000, recording.samples // 1000 - 1)
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_one_clear_error_and_keeps_what_is_there(tmp_path):
    process = run_program(tmp_path, limit=100_003)  # 12,500 samples and 3 bytes
    _, told = process.communicate(timeout=60)
    expected = (
        f"link.errors.RecordingError: {tmp_path}/run.sigmf-data: File too large; the 12500 samples before it are kept"
    )
    assert told.strip().splitlines()[-1] == expected
    assert "During handling" not in told
    recording = read_recording(tmp_path / "run")
    assert recording.samples == 12_500
    assert len(recording.annotations) == 12
    assert np.array_equal(joined(replayed(tmp_path / "run")), np.repeat(np.arange(13), 1000)[:12_500])


def test_a_disk_full_of_samples_still_takes_what_is_said_of_them(tmp_path):
    # A disk of its own, of 1 MiB, that nobody else sees and that ends with the shell.
    steps = (
        f'mount -t tmpfs -o size=1m tmpfs {tmp_path} && {sys.executable} -c "$0" {tmp_path}/run; cat {tmp_path}/*meta'
    )
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*shell, f"mount -t tmpfs tmpfs {tmp_path}"], capture_output=True).returncode != 0:
        pytest.skip("no disk can be mounted here")
    done = subprocess.run([*shell, steps, textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60)
    assert "No space left on device" in done.stderr.strip().splitlines()[-1]
    told = done.stdout[done.stdout.index("{") :]
    written = int(done.stdout.split("{")[0].split()[-1])
    assert len(json.loads(told)["annotations"]) == written // 1000 > 50


def test_after_a_full_disk_the_error_is_said_again_and_nothing_more_is_taken(tmp_path):
    front = Scripted(Block(ramp(4)), Block(ramp(4)), Block(ramp(4)))
    with Recorder(front, tmp_path / "run") as recorder:
        recorder.recv(8, 0.1)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (32, limits[1]))
        try:
            with pytest.raises(RecordingError, match="the 4 samples before it are kept"):
                recorder.recv(8, 0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with pytest.raises(RecordingError, match="the 4 samples before it are kept"):
            recorder.recv(8, 0.1)
        with pytest.raises(RecordingError, match="the 4 samples before it are kept"):
            recorder.annotate(0, 1)
        assert len(front.script) == 1
    assert not list(tmp_path.glob(".*"))
    assert joined(replayed(recorder.meta_file)).tobytes() == ramp(4).tobytes()


def test_a_device_that_dies_leaves_a_complete_recording(tmp_path):
    front = Scripted(Block(ramp(6)), RadioError("the device is gone"))
    recorder = Recorder(front, tmp_path / "run")
    with recorder:
        recorder.recv(8, 0.1)
        with pytest.raises(RadioError, match="the device is gone"):
            recorder.recv(8, 0.1)
    assert front.closed == 1
    assert "core:sha512" in metadata(recorder)["global"]
    assert np.array_equal(joined(replayed(recorder.meta_file)), ramp(6))


def test_an_interrupted_write_does_not_shift_what_follows(tmp_path):
    with Recorder(Scripted(Block(ramp(4)), Block(ramp(4)), Block(ramp(4))), tmp_path / "run") as recorder:
        recorder.recv(8, 0.1)
        stream = recorder._writer._stream

        class Interrupted:
            def __getattr__(self, name):
                return getattr(stream, name)

            def write(self, octets):
                stream.write(octets[:19])
                raise KeyboardInterrupt

        recorder._writer._stream = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            recorder.recv(8, 0.1)
        recorder._writer._stream = stream
        assert recorder.samples == 6
        recorder.recv(8, 0.1)
    assert np.array_equal(joined(replayed(recorder.meta_file)), np.concatenate([ramp(4), ramp(2), ramp(4)]))
    assert "core:sha512" not in metadata(recorder)["global"]


@pytest.mark.parametrize("there", ["run.sigmf-meta", "run.sigmf-data"])
def test_a_recording_is_never_written_over(tmp_path, there):
    (tmp_path / there).write_text("mine")
    front = Scripted(Block(ramp(4)))
    with pytest.raises(RecordingError, match=f"{there}: there is a recording of that name; use another"):
        Recorder(front, tmp_path / "run.sigmf-meta").open()
    assert front.closed == 1
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_a_device_that_is_not_there_leaves_no_recording(tmp_path):
    front = Scripted()
    front.open = lambda: (_ for _ in ()).throw(RadioError("no such device"))
    with pytest.raises(RadioError, match="no such device"):
        Recorder(front, tmp_path / "run").open()
    assert not list(tmp_path.iterdir())


def test_opened_again_it_goes_on_with_a_gap_where_it_was_closed(tmp_path):
    recorder = Recorder(Scripted(Block(ramp(4)), Block(ramp(5, 9))), tmp_path / "run")
    for _ in range(2):
        with recorder:
            recorder.open()  # does nothing where it is open
            recorder.recv(8, 0.1)
            assert "core:sha512" not in metadata(recorder)["global"]
    assert [(len(b.samples), b.lost) for b in replayed(recorder.meta_file)] == [(4, 0), (5, None)]
    assert joined(replayed(recorder.meta_file)).tobytes() == np.concatenate([ramp(4), ramp(5, 9)]).tobytes()


def test_a_recorder_that_is_not_open_says_so(tmp_path):
    with pytest.raises(RadioError, match=r"the recorder is not open: .*run\.sigmf-data"):
        Recorder(Scripted(Block(ramp(4))), tmp_path / "run").recv(8, 0.1)


def test_in_a_folder_it_is_named_by_the_time(tmp_path):
    with Recorder(Scripted(Block(ramp(4))), tmp_path) as recorder:
        recorder.recv(8, 0.1)
    assert recorder.meta_file.parent == tmp_path
    assert recorder.meta_file.name.startswith("hardpath-2")


def test_noise_is_set_through_it_and_begins_a_capture(tmp_path):
    front, draws = Simulated(), Draws(1, np.array([0]))
    with Recorder(front, tmp_path / "run") as recorder:
        for snr_db in (3.0, 6.0):
            recorder.at(snr_db, draws)
            recorder.send(ramp(4), 0.1)
            recorder.recv(8, 0.1)
    assert front.asked == (6.0, draws)
    captures = metadata(recorder)["captures"]
    assert [(c["core:sample_start"], c["hardpath:snr_db"]) for c in captures] == [(0, 3.0), (4, 6.0)]
    assert [b.lost for b in replayed(recorder.meta_file)] == [0, 0]
    with pytest.raises(RadioError, match="the noise of a device cannot be set"):
        Recorder(Scripted(), tmp_path / "other").at(3.0, draws)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datatype": "cf64_le"}, r"datatype must be cf32_le or ci16_le, got 'cf64_le'"),
        ({"full_scale": 0.0}, r"full_scale must be in \[1e-12, 1e\+12\], got 0"),
        (
            {"radio": {"taps": {"of": object()}}},
            r"radio\.taps\.of must be of numbers, texts, lists and tables, got object",
        ),
    ],
)
def test_a_wrong_option_is_named(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        Recorder(Scripted(), tmp_path / "run", **options)


def test_a_rate_that_sigmf_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    front = Scripted()
    front.capabilities = Capabilities(sample_rate_hz=-1.0)
    with pytest.raises(RecordingError, match=r"SigMF has no such metadata: .*core:sample_rate"):
        Recorder(front, tmp_path / "run").open()
    assert not list(tmp_path.iterdir())


def test_without_sigmf_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigmf", None)
    with pytest.raises(DriverUnavailable, match=r"sigmf, which is not installed: pip install 'hardpath\[sigmf\]'"):
        Recorder(Scripted(), tmp_path / "run")
