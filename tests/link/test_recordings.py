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


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_header_of_channels_alone_is_one(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text("ax,ay\n1,2\n,nan\n".replace(",", mark), encoding="utf-8")
    (found,) = read_recordings(file)
    assert found.channels == ("ax", "ay")
    assert found.labels is None
    np.testing.assert_array_equal(found.samples, np.array([[1, 2], [np.nan, np.nan]], dtype=np.float32))


@pytest.mark.parametrize("text", ["nan,inf\n1,2\n", "0.5,walk\n1,walk\n"])
def test_a_row_of_numbers_is_no_header(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match="needs a header"):
        read_recordings(file)


def test_space_around_a_name_makes_no_other_subject_nor_label(tmp_path: Path) -> None:
    file = save(tmp_path / "a.npz", data=np.zeros((3, 1)), subject=["s", " s", "s "], label=["walk ", "walk", " "])
    (found,) = read_recordings(file)
    assert found.subject == "s"
    assert found.labels is not None
    assert found.labels.tolist() == ["walk", "walk", ""]


def test_a_folder_without_recordings_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="holds no recordings"):
        read_recordings(tmp_path)
    (tmp_path / "a.txt").write_text("1", encoding="utf-8")
    with pytest.raises(ArgumentError, match="must be a folder or end in"):
        read_recordings(tmp_path / "a.txt")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ArgumentError, match=r"is no \.npz, is damaged"):
        read_recordings(tmp_path / "b.npz")


def csv(*rows: str, head: str = "subject,label,ax") -> str:
    return "\n".join([head, *rows]) + "\n"


def test_whole_numbers_are_the_same_label_in_whatever_type_and_nan_is_none(tmp_path: Path) -> None:
    data = np.zeros((3, 1))
    for name, labels in (
        ("a", np.array([1.0, np.nan, 2.0])),
        ("b", np.array([1, 0, 2])),
        ("c", [["1"], ["nan"], ["2"]]),
    ):
        save(tmp_path / f"{name}.npz", data=data, label=labels, subject=np.array([7.0, 7.0, 7.0]))
    found = read_recordings(tmp_path)
    assert [list(each.labels) for each in found if each.labels is not None] == [
        ["1", "", "2"],
        list("102"),
        ["1", "", "2"],
    ]
    assert {each.subject for each in found} == {"7"}


def test_windows_may_have_a_label_a_sample(tmp_path: Path) -> None:
    labels = np.array([[0, 0, 1], [1, 1, 0]])
    found = read_recordings(save(tmp_path / "a.npz", data=np.zeros((2, 3, 1)), label=labels))
    assert [list(each.labels) for each in found if each.labels is not None] == [list("001"), list("110")]


def test_a_rate_in_an_array_of_one_is_a_rate(tmp_path: Path) -> None:
    (found,) = read_recordings(save(tmp_path / "a.npz", data=np.zeros((2, 1)), rate_hz=np.array([31.25])))
    assert found.rate_hz == 31.25


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"data": np.zeros((2, 1), dtype=np.complex64)}, "data must be numbers"),
        (
            {"data": np.zeros((2, 1)), "rate_hz": 1e9},
            "must be 2 to 100000 samples a second, got 1e.09: are times in seconds",
        ),
        ({"data": np.zeros((2, 1)), "rate_hz": 0.05}, "must be 2 to 100000 samples a second, got 0.05"),
        ({"data": np.zeros((2, 2)), "channels": ["x", "x"]}, "channels names x twice"),
        ({"data": np.zeros((2, 1)), "subject": ["a", ""]}, "sample 1 has no subject"),
    ],
)
def test_arrays_that_would_be_misread_are_refused(tmp_path: Path, arrays: dict[str, object], says: str) -> None:
    with pytest.raises(ArgumentError, match=rf"a\.npz.*{says}"):
        read_recordings(save(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (csv("a,walk,1;5", "a,walk,1"), "line 2: ax must be a number"),
        (csv('a;walk;"1,5"', head="subject;label;ax"), r"line 2: ax must be .*\(a comma is no decimal point\)"),
        (csv("0,a,walk,1", "20,a,walk,1", head="time,subject,label,ax"), "got 0.05: are times in seconds"),
        (csv("2020-01-01T00:00:00,a,walk,1", head="time,subject,label,ax"), "line 2: time must be seconds"),
        (csv("20,a,walk,1", head="time_ms,subject,label,ax"), "time_ms is no channel"),
        (csv("0,a,walk,1", head=",subject,label,ax"), "column 1 has no name"),
        (csv("a,walk,4,1", head="subject,activity,activity_id,ax"), "activity and activity_id both say the label"),
        (csv("a,walk,1", ",walk,1"), "sample 1 has no subject"),
    ],
)
def test_columns_that_would_be_taken_for_channels_and_other_units_are_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match=rf"a\.csv.*{says}"):
        read_recordings(file)


@pytest.mark.parametrize("rate", [30, 50, 60, 99.7, 128])
def test_times_in_whole_milliseconds_tell_the_rate_of_their_mean(tmp_path: Path, rate: float) -> None:
    file = tmp_path / "a.csv"
    file.write_text(csv(*(f"{1.7e9 + t / rate:.3f},1" for t in range(2000)), head="time,ax"), encoding="utf-8")
    (found,) = read_recordings(file)
    # Both ends are rounded by at most half a millisecond.
    assert found.rate_hz == pytest.approx(rate, rel=1.1 * 0.001 * rate / 1999)


def test_files_that_cannot_be_used_may_be_told_and_left_out_and_hidden_ones_are_no_files(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", data=np.zeros((2, 1)))
    (tmp_path / "b.npz").write_text("no archive", encoding="utf-8")
    (tmp_path / "._a.npz").write_text("left by another system", encoding="utf-8")
    left_out: list[str] = []
    assert len(read_recordings(tmp_path, left_out)) == 1
    assert len(left_out) == 1
    assert "b.npz" in left_out[0]
    with pytest.raises(ArgumentError, match=r"b\.npz"):
        read_recordings(tmp_path)
