import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import warnings

import numpy as np
import pytest
import sigmf

from link.errors import ArgumentError, DriverUnavailable, RadioError, RecordingError
from link.radio.frontend import Block
from link.radio.frontends import frontend_spec
from link.radio.recording.file import read_recording

SAMPLES = (np.arange(24) * (0.5 - 0.25j) - 3).astype(np.complex64)
MANDATORY = {"global": {"core:datatype": "cf32_le", "core:version": "1.0.0"}, "captures": [], "annotations": []}


def write(folder, data=SAMPLES, captures=(), annotations=(), name="run", **fields):
    """A recording by hand; fields of the global object with _ for the colon."""
    said = {f"core:{field}": value for field, value in fields.items()}
    metadata = {
        "global": MANDATORY["global"] | said,
        "captures": [{f"core:{key}": value for key, value in capture.items()} for capture in captures],
        "annotations": list(annotations),
    }
    (folder / f"{name}.sigmf-meta").write_text(json.dumps(metadata))
    (folder / f"{name}.sigmf-data").write_bytes(data if isinstance(data, bytes) else data.tobytes())
    return folder / f"{name}.sigmf-meta"


def write_with_the_package(folder, array, name="theirs"):
    """As the package itself writes it: data, metadata, annotations, a capture of a gap, a checksum."""
    array.tofile(folder / f"{name}.sigmf-data")
    written = sigmf.SigMFFile(
        data_file=folder / f"{name}.sigmf-data",
        global_info={
            sigmf.DATATYPE_KEY: sigmf.utils.get_data_type_str(array),
            sigmf.SAMPLE_RATE_KEY: 48000,
            sigmf.AUTHOR_KEY: "someone",
            sigmf.HW_KEY: "a receiver",
        },
    )
    written.add_capture(0, metadata={sigmf.FREQUENCY_KEY: 915e6, sigmf.DATETIME_KEY: "2024-01-02T03:04:05.25Z"})
    written.add_capture(10, metadata={sigmf.GLOBAL_INDEX_KEY: 110})
    written.add_annotation(
        3,
        5,
        metadata={sigmf.FREQ_LOWER_EDGE_KEY: 914.9e6, sigmf.FREQ_UPPER_EDGE_KEY: 915.1e6, sigmf.LABEL_KEY: "burst"},
    )
    return written


def play(file, most=1 << 16, **options):
    with frontend_spec("sigmf", {"file": file, **options}).build() as replay:
        blocks = []
        while not replay.exhausted:
            blocks.append(replay.recv(most, 0.1))
    return blocks


def played(file, **options):
    return np.concatenate([block.samples for block in play(file, **options)])


def refused(file, why):
    with pytest.raises(RecordingError, match=why) as caught:
        frontend_spec("sigmf", {"file": file}).build().open()
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_recording_with_the_mandatory_fields_alone_is_played(tmp_path):
    file = write(tmp_path)
    assert played(file).tobytes() == SAMPLES.tobytes()
    with frontend_spec("sigmf", {"file": file}).build() as replay:
        assert replay.capabilities.sample_rate_hz is None
        assert not replay.capabilities.sends
        assert not replay.capabilities.timestamps
        assert replay.recv(4, 0.1).time_ns is None


def test_captures_and_annotations_may_be_left_out(tmp_path, caplog):
    file = write(tmp_path)
    file.write_text(json.dumps({"global": MANDATORY["global"]}))
    assert played(file).tobytes() == SAMPLES.tobytes()
    assert "departs from SigMF, and is used all the same: $: 'captures' is a required property" in caplog.text


@pytest.mark.parametrize("name", ["theirs", "theirs.sigmf-meta", "theirs.sigmf-data"])
def test_what_the_package_wrote_is_played(tmp_path, caplog, name):
    write_with_the_package(tmp_path, SAMPLES).tofile(tmp_path / "theirs.sigmf-meta")
    blocks = play(tmp_path / name, 6)
    assert np.concatenate([b.samples for b in blocks]).tobytes() == SAMPLES.tobytes()
    assert [(len(b.samples), b.lost) for b in blocks] == [(6, 0), (4, 0), (6, 100), (6, 0), (2, 0)]
    start = 1_704_164_645_250_000_000
    assert [b.time_ns for b in blocks] == [start, start + 125_000, None, None, None]  # 6 samples of 48 kHz
    recording = read_recording(tmp_path / name)
    assert (recording.sample_rate_hz, recording.frequency_hz, recording.hardware) == (48000, 915e6, "a receiver")
    assert recording.annotations[0]["core:label"] == "burst"
    assert recording.radio is None
    assert not caplog.records


def test_what_gnu_radio_recorded_is_played(tmp_path, gnuradio, caplog):
    flowgraph = """if True:
        import sys
        from gnuradio import blocks, gr

        top = gr.top_block()
        source = blocks.vector_source_c([complex(n, -n) for n in range(5000)])
        words = "someone", "a tone", "a receiver"
        sink = blocks.sigmf_sink_minimal(gr.sizeof_gr_complex, sys.argv[1], 2e6, 433.92e6, *words, True)
        top.connect(source, sink)
        top.run()
    """
    file = tmp_path / "theirs.sigmf-data"
    subprocess.run([gnuradio, "-c", flowgraph, str(file)], check=True, capture_output=True, timeout=120)
    assert np.array_equal(played(file), np.arange(5000) * np.complex64(1 - 1j))
    recording = read_recording(file)
    assert (recording.sample_rate_hz, recording.frequency_hz, recording.hardware) == (2e6, 433.92e6, "a receiver")
    assert not caplog.records


@pytest.mark.parametrize("name", ["theirs", "theirs.sigmf"])
def test_an_archive_is_played_where_it_lies(tmp_path, name):
    folder = tmp_path / "source"
    folder.mkdir()
    write_with_the_package(folder, SAMPLES).archive(tmp_path / "theirs.sigmf")
    blocks = play(tmp_path / name)
    assert np.concatenate([b.samples for b in blocks]).tobytes() == SAMPLES.tobytes()
    assert [b.lost for b in blocks] == [0, 100]


def test_an_archive_that_was_changed_or_cut_is_refused(tmp_path):
    write_with_the_package(tmp_path, SAMPLES).archive(tmp_path / "theirs.sigmf")
    archive = tmp_path / "theirs.sigmf"
    whole = archive.read_bytes()
    archive.write_bytes(whole.replace(SAMPLES.tobytes(), SAMPLES[::-1].tobytes()))
    refused(archive, r"theirs\.sigmf: its checksum is not that of the metadata")
    assert np.array_equal(played(archive, checksum=False), SAMPLES[::-1])
    archive.write_bytes(whole[: whole.index(SAMPLES.tobytes()) + 50])
    refused(archive, r"theirs\.sigmf: it is no archive of SigMF: unexpected end of data")
    archive.write_bytes(b"no tar")
    refused(archive, r"theirs\.sigmf: it is no archive of SigMF")
    archive.write_bytes(b"")
    refused(archive, r"theirs\.sigmf: it is no archive of SigMF")


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "it holds no metadata"),
        (["a/a.sigmf-meta"], r"its data a\.sigmf-data is missing"),
        (["a/a.sigmf-meta", "b/a.sigmf-data"], r"its data a\.sigmf-data is missing"),
        (
            ["a.sigmf-meta", "a.sigmf-data", "b.sigmf-meta", "b.sigmf-data"],
            "it holds 2 recordings; unpack it and name one",
        ),
    ],
)
def test_an_archive_without_one_recording_is_refused(tmp_path, members, why):
    with tarfile.open(tmp_path / "some.sigmf", "w") as tar:
        for name in ["note.txt", *members]:
            content = json.dumps(MANDATORY).encode() if name.endswith("meta") else bytes(80)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    refused(tmp_path / "some.sigmf", rf"some\.sigmf: {why}")


INTEGERS = {"ci8": ("i1", 0, 128), "cu8": ("u1", 128, 128)} | {
    f"c{kind}{bits}_{order}": (
        f"{'<' if order == 'le' else '>'}{kind}{bits // 8}",
        2 ** (bits - 1) * (kind == "u"),
        2.0 ** (bits - 1),
    )
    for kind in "iu"
    for bits in (16, 32)
    for order in ("le", "be")
}


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_become_fractions_of_full_scale(tmp_path, datatype):
    dtype, middle, half = INTEGERS[datatype]
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    numbers = rng.integers(limits.min, limits.max, 40, endpoint=True, dtype=np.int64)
    numbers[:3] = limits.min, limits.max, middle
    expected = [complex((int(i) - middle) / half, (int(q) - middle) / half) for i, q in numbers.reshape(-1, 2)]
    file = write(tmp_path, numbers.astype(dtype), datatype=datatype)
    assert np.array_equal(played(file), np.array(expected, np.complex128).astype(np.complex64))
    if dtype[-1] != "4":  # the package rounds 32 bits twice
        assert np.array_equal(played(file), sigmf.fromfile(file).read_samples())


@pytest.mark.parametrize(("datatype", "dtype"), [("cf32_be", ">c8"), ("cf64_le", "<c16"), ("cf64_be", ">c16")])
def test_floats_of_other_order_and_width_are_converted(tmp_path, datatype, dtype):
    wide = SAMPLES.astype(np.complex128) / 3
    file = write(tmp_path, wide.astype(dtype), datatype=datatype)
    assert np.array_equal(
        played(
            file,
        ),
        wide.astype(np.complex64),
    )


def test_samples_of_cf32_le_are_not_copied(tmp_path):
    with frontend_spec("sigmf", {"file": write(tmp_path)}).build() as replay:
        samples = replay.recv(8, 0.1).samples
        assert np.shares_memory(samples, replay.recording.octets)
        assert samples.dtype == np.complex64
        assert not samples.flags.writeable
    assert np.array_equal(samples, SAMPLES[:8])  # and hold beyond the replay


def test_a_type_without_byte_order_is_taken_as_little_endian_and_told(tmp_path, caplog):
    assert played(write(tmp_path, datatype="cf32")).tobytes() == SAMPLES.tobytes()
    assert "cf32 does not say its byte order; taken as little-endian" in caplog.text


def test_headers_and_trailers_of_foreign_files_are_passed_over(tmp_path, caplog):
    data = b"HEAD" * 11 + SAMPLES[:10].tobytes() + b"and" + SAMPLES[10:].tobytes() + b"trailer"
    captures = [{"sample_start": 0, "header_bytes": 44}, {"sample_start": 10, "header_bytes": 3}]
    file = write(tmp_path, b"", captures, dataset="take 1.wav", trailing_bytes=7)
    (tmp_path / "run.sigmf-data").unlink()
    (tmp_path / "take 1.wav").write_bytes(data)
    blocks = play(file)
    assert np.concatenate([b.samples for b in blocks]).tobytes() == SAMPLES.tobytes()
    assert [b.lost for b in blocks] == [0, 0]
    assert not caplog.records


def test_indices_are_counted_from_the_offset_of_a_recording_in_parts(tmp_path):
    captures = [{"sample_start": 1000, "global_index": 5000}, {"sample_start": 1010, "global_index": 5013}]
    blocks = play(write(tmp_path, captures=captures, offset=1000))
    assert [(len(b.samples), b.lost) for b in blocks] == [(10, 0), (14, 3)]


@pytest.mark.parametrize(
    ("captures", "lost"),
    [
        ([{"sample_start": 0}, {"sample_start": 8}], [0, 0]),  # retuned, say
        ([{"sample_start": 0}, {"sample_start": 8, "global_index": 20}], [0, 12]),
        ([{"sample_start": 0, "global_index": 70}, {"sample_start": 8, "global_index": 78}], [0, 0]),
        ([{"sample_start": 0, "global_index": 70}, {"sample_start": 8, "global_index": 5}], [0, None]),
        ([{"sample_start": 8, "global_index": 20}], [0, 0]),
        (
            [{"sample_start": 0}, {"sample_start": 8, "global_index": 9}, {"sample_start": 8, "global_index": 11}],
            [0, 3],
        ),
        ([{"sample_start": 0}, {"sample_start": 24, "global_index": 90}], [0]),
    ],
)
def test_jumps_of_the_index_are_gaps(tmp_path, captures, lost):
    blocks = play(write(tmp_path, captures=captures))
    assert [b.lost for b in blocks] == lost
    assert np.concatenate([b.samples for b in blocks]).tobytes() == SAMPLES.tobytes()


def test_the_end_is_said_at_once_and_for_ever_until_it_is_opened_again(tmp_path):
    replay = frontend_spec("sigmf", {"file": write(tmp_path)}).build()
    assert not replay.exhausted
    for _ in range(2):
        with replay:
            replay.open()
            assert not replay.exhausted
            assert np.array_equal(replay.recv(24, 0.1).samples, SAMPLES)
            assert replay.exhausted
            assert replay.recv(24, 60.0) == replay.recv(1, 60.0) == Block()


def test_it_only_receives_and_only_when_open(tmp_path):
    replay = frontend_spec("sigmf", {"file": write(tmp_path)}).build()
    with pytest.raises(RadioError, match="the recording is not open"):
        replay.recv(4, 0.1)
    with replay, pytest.raises(RadioError, match="nothing can be sent to a recording"):
        replay.send(SAMPLES, 0.1)
    assert replay.facts() == {}


def test_what_is_known_of_it_is_told(tmp_path):
    with frontend_spec("sigmf", {"file": write(tmp_path, recorder="a tool", hw=7)}).build() as replay:
        assert replay.facts() == {
            "file": str(tmp_path / "run.sigmf-meta"),
            "datatype": "cf32_le",
            "samples": 24,
            "gaps": 0,
            "recorder": "a tool",
            "hardware": "7",
        }


def test_what_does_not_hinder_is_told_and_played(tmp_path, caplog):
    extensions = {"antenna": "v0.9.0"}  # as before version 1.0
    annotation = {"core:sample_start": 20, "core:sample_count": 9}
    capture = {"sample_start": 0, "datetime": "yesterday"}
    file = write(tmp_path, captures=[capture], annotations=[annotation], extensions=extensions)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert played(file).tobytes() == SAMPLES.tobytes()
    assert "departs from SigMF, and is used all the same: $.global['core:extensions']" in caplog.text
    assert "an annotation ends at sample 29, but the data at 24" in caplog.text


def test_fields_of_an_extension_that_is_not_declared_are_told(tmp_path, caplog):
    file = write(tmp_path, annotations=[{"core:sample_start": 0, "inspectrum:note": 1}])
    with warnings.catch_warnings(record=True) as python_warnings:
        assert played(file).tobytes() == SAMPLES.tobytes()
    assert "Found undeclared extensions in use: inspectrum" in caplog.text
    assert not python_warnings


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"datatype": "rf32_le"}, r"it holds real samples \(rf32_le\), and a radio needs complex ones"),
        ({"datatype": "cf16_le"}, "its datatype 'cf16_le' is unknown"),
        ({"datatype": "complex float"}, "its datatype 'complex float' is unknown"),
        ({"datatype": 3}, r"its metadata cannot be used: global\.core:datatype: Input should be a valid string"),
        ({"num_channels": 2}, "it has 2 channels interleaved; a radio needs one alone"),
        ({"sample_rate": -1}, r"its metadata cannot be used: global\.core:sample_rate: Input should be greater than 0"),
        ({"trailing_bytes": 200}, "its data has 192 bytes, of which 200 are no samples by its metadata"),
        ({"trailing_bytes": 1}, "its data is no whole number of samples: 191 bytes, 8 a sample"),
        ({"dataset": "../run.sigmf-data"}, "core:dataset must be a name of a file beside it"),
        ({"dataset": ".."}, "core:dataset must be a name of a file beside it"),
        ({"dataset": "gone.wav"}, r"its data gone\.wav is missing"),
        ({"offset": 5, "captures": [{"sample_start": 0}]}, "its captures are not in order"),
        ({"captures": [{"sample_start": 4}, {"sample_start": 1}]}, "its captures are not in order"),
        ({"captures": [{"sample_start": 25}]}, "a capture starts at sample 25, but its data ends at 24"),
        (
            {"captures": [{"sample_start": -1}]},
            r"captures\.0\.core:sample_start: Input should be greater than or equal to 0",
        ),
        ({"captures": [{}]}, r"captures\.0\.core:sample_start: Field required"),
        ({"sha512": hashlib.sha512(b"other").hexdigest()}, "its checksum is not that of the metadata"),
        ({"data": SAMPLES.tobytes()[:-3]}, "its data is no whole number of samples: 189 bytes, 8 a sample"),
        ({"data": b""}, "it holds no samples"),
        ({"data": b"", "metadata_only": True}, "it holds no samples"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused_with_its_file_and_the_reason(tmp_path, fields, why):
    refused(write(tmp_path, **fields), rf"^{tmp_path}/run\.sigmf-(meta|data): .*{why}")


def test_a_checksum_that_holds_is_taken_in_either_case(tmp_path):
    digest = hashlib.sha512(SAMPLES.tobytes()).hexdigest()
    assert len(played(write(tmp_path, sha512=digest))) == 24
    assert len(played(write(tmp_path, sha512=digest.upper()))) == 24


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "its metadata is no JSON: Expecting value"),
        (b'{"global": ', "its metadata is no JSON"),
        (b"\xff\xfe\x00", "its metadata is no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "its metadata is no JSON: maximum recursion depth exceeded"),
        (b"[]", "its metadata is not of SigMF: it has no object named global"),
        (b'{"global": 3}', "its metadata is not of SigMF: it has no object named global"),
        (b'{"global": {}}', r"its metadata cannot be used: global\.core:datatype: Field required"),
    ],
)
def test_metadata_that_is_none_is_refused(tmp_path, text, why):
    file = write(tmp_path)
    file.write_bytes(text)
    refused(file, rf"run\.sigmf-meta: {why}")


def test_half_a_recording_is_refused(tmp_path):
    file = write(tmp_path)
    (tmp_path / "run.sigmf-data").rename(tmp_path / "other.sigmf-data")
    refused(file, r"run\.sigmf-meta: its data run\.sigmf-data is missing")
    refused(tmp_path / "other.sigmf-data", r"other\.sigmf-meta: there is no such metadata")
    refused(tmp_path / "nothing", r"nothing\.sigmf-meta: there is no such metadata")
    refused(tmp_path / "nothing.sigmf", r"nothing\.sigmf: No such file or directory")
    file.write_text(json.dumps({"global": MANDATORY["global"] | {"core:metadata_only": True}}))
    refused(file, r"run\.sigmf-meta: it is metadata only")
    (tmp_path / "folder.sigmf-meta").mkdir()
    refused(tmp_path / "folder", r"folder\.sigmf-meta: Is a directory")
    os.mkfifo(tmp_path / "pipe.sigmf-meta")
    refused(tmp_path / "pipe", r"pipe\.sigmf-meta: it is a pipe, and no file")


def test_numbers_that_complex64_does_not_hold_are_infinite(tmp_path):
    (block,) = play(write(tmp_path, np.array([1e300 - 1e300j, 2.0]), datatype="cf64_le"))
    assert block.samples.tolist() == [complex(np.inf, -np.inf), 2.0]


@pytest.mark.parametrize(
    ("name", "why"),
    [("many.sigmf-collection", "it is a collection; name one of its recordings"), ("a.sigmf.xz", "it is compressed")],
)
def test_what_is_of_sigmf_and_no_recording_is_told_apart(tmp_path, name, why):
    (tmp_path / name).write_text("{}")
    refused(tmp_path / name, f"{name}: {why}")


def test_a_missing_option_is_named():
    with pytest.raises(ArgumentError, match=r"sigmf\.file must be given"):
        frontend_spec("sigmf", {})


def test_without_sigmf_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigmf", None)
    with pytest.raises(DriverUnavailable, match=r"front end sigmf needs sigmf, .*: pip install 'hardpath\[sigmf\]'"):
        frontend_spec("sigmf", {"file": write(tmp_path)}).build()
