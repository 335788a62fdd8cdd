"""Recordings of sensors from .npz and .csv: what is read, and each mistake in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from link.errors import ArgumentError
from link.recordings import read_recordings


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_recordings_end_where_the_subject_or_the_recording_changes(tmp_path: Path) -> None:
    data = np.arange(14.0).reshape(7, 2)
    file = save(
        tmp_path / "a.npz",
        data=data,
        label=np.array(["walk"] * 4 + ["sit"] * 3),
        subject=[1, 1, 1, 1, 1, 2, 2],
        recording=[0, 0, 0, 1, 1, 1, 1],
        rate_hz=32.0,
        channels=np.array(["x", "y"]),
    )
    found = read_recordings(file)
    assert [recording.subject for recording in found] == ["1", "1", "2"]
    assert [len(recording.samples) for recording in found] == [3, 2, 2]
    np.testing.assert_array_equal(np.concatenate([recording.samples for recording in found]), data)
    assert found[1].labels is not None
    assert found[1].labels.tolist() == ["walk", "sit"]
    assert {recording.rate_hz for recording in found} == {32.0}
    assert found[0].channels == ("x", "y")


def test_windows_of_an_array_are_recordings_of_their_own(tmp_path: Path) -> None:
    windows = np.arange(24.0).reshape(3, 4, 2)
    file = save(tmp_path / "a.npz", X=windows, y=[0, 1, 1], subject_id=["a", "a", "b"])
    found = read_recordings(file)
    assert [recording.samples.tolist() for recording in found] == windows.tolist()
    assert [set(recording.labels.tolist()) for recording in found if recording.labels is not None] == [
        {"0"},
        {"1"},
        {"1"},
    ]
    assert [recording.subject for recording in found] == ["a", "a", "b"]
    assert found[0].rate_hz is None


def test_a_table_has_a_row_a_sample_and_tells_its_rate_by_its_times(tmp_path: Path) -> None:
    file = tmp_path / "walks.csv"
    rows = [f"{t / 40},{t},,{'walk' if t < 3 else 'sit'},s{t // 3}" for t in range(6)]
    file.write_text("time,ax,ay,activity,subject\n" + "\n".join(rows) + "\n", encoding="utf-8")
    first, second = read_recordings(file)
    assert first.rate_hz == pytest.approx(40.0)
    assert first.channels == ("ax", "ay")
    assert first.samples[:, 0].tolist() == [0, 1, 2]
    assert np.isnan(first.samples[:, 1]).all()
    assert second.subject == "s1"
    assert second.labels is not None
    assert second.labels.tolist() == ["sit"] * 3


def test_the_files_of_a_folder_are_read_by_name_and_each_is_a_subject_where_none_is_named(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(tmp_path / f"{name}.npz", data=np.ones((3, 1)), label="sit")
    assert [recording.subject for recording in read_recordings(tmp_path)] == ["a", "b"]


def test_infinite_samples_are_missing_ones(tmp_path: Path) -> None:
    found = read_recordings(save(tmp_path / "a.npz", data=[[1.0], [np.inf], [-np.inf]]))
    assert np.isnan(found[0].samples[1:]).all()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": [1]}, "lacks an array data; it holds labels"),
        ({"data": np.ones(3)}, "data must be numbers"),
        ({"data": np.array([["a"]])}, "data must be numbers"),
        ({"data": np.ones((0, 2))}, "data must be numbers"),
        ({"data": np.ones((3, 2)), "label": [1, 2]}, "label must be one, or one for each of 3, got 2"),
        ({"data": np.ones((3, 2)), "rate_hz": -1.0}, "rate_hz must be one number above 0"),
        ({"data": np.ones((3, 2)), "rate_hz": [50.0, 50.0]}, "rate_hz must be one number above 0"),
        ({"data": np.ones((3, 2)), "channels": ["x"]}, "channels names 1, and data has 2"),
        ({"data": np.array([object()])}, "holds Python objects"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path, arrays: dict[str, object], says: str) -> None:
    file = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(ArgumentError, match=says) as caught:
        read_recordings(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2\n3,4\n", "needs a header"),
        ("label,subject\nsit,1\n", "has no column of a channel"),
        ("label,ax\nsit,1\nsit,one\n", "line 3: ax must be a number"),
        ("label,ax\nsit\n", "line 2: has 1 column where line 1 has 2"),
        ("label,t,ax\na,0,1\na,0.1,1\na,0.1,1\n", "each later than the one before"),
        ("label,t,ax\na,0,1\na,0.1,1\na,0.4,1\na,0.5,2\n", "sample 2 comes 0.3 s after another"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match=says):
        read_recordings(file)


def test_a_folder_without_recordings_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="holds no recordings"):
        read_recordings(tmp_path)
    (tmp_path / "a.txt").write_text("1", encoding="utf-8")
    with pytest.raises(ArgumentError, match="must be a folder or end in"):
        read_recordings(tmp_path / "a.txt")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ArgumentError, match=r"is no \.npz, is damaged"):
        read_recordings(tmp_path / "b.npz")
