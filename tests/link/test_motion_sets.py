"""SisFall and PAMAP2 in the layouts that they are published in."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

from link.errors import ArgumentError
from link.motion_sets import PAMAP2_CHANNELS, SISFALL_CHANNELS, UNLABELLED, read_motion


def test_sisfall_counts_become_g_and_degrees_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "SA01"
    folder.mkdir()
    (folder / "D07_SA01_R02.txt").write_text(
        " 256,  0, -256, 16384, 0, 0, 1024, 0, -1024;\n   0,0,0,0,0,0,0,0,0;\n", encoding="utf-8"
    )
    (recording,) = read_motion(tmp_path)
    assert (recording.subject, recording.rate_hz, recording.channels) == ("SA01", 200.0, SISFALL_CHANNELS)
    np.testing.assert_allclose(recording.samples[0], [1, 0, -1, 1000, 0, 0, 1, 0, -1])
    assert recording.labels is not None
    assert recording.labels.tolist() == ["D07", "D07"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_packed_sisfall_is_cut_by_its_index(tmp_path: Path, packed: bool) -> None:
    counts = np.arange(45, dtype=np.int16).reshape(5, 9) * 256
    np.save(tmp_path / "adl_int16.npy", counts)
    if packed:
        plain = tmp_path / "adl_int16.npy"
        (tmp_path / "adl_int16.npy.xz").write_bytes(lzma.compress(plain.read_bytes()))
        plain.unlink()
    (tmp_path / "adl_index.csv").write_text(
        "activity,subject,trial,offset,length\nD01,SA01,1,0,2\nD02,SE03,4,2,3\n", encoding="utf-8"
    )
    first, second = read_motion(tmp_path)
    assert (first.name, first.rate_hz, len(first.samples)) == ("D01_SA01_R01", 50.0, 2)
    assert (second.subject, len(second.samples), second.samples[0, 0]) == ("SE03", 3, 18.0)


def test_pamap2_is_read_by_its_54_columns(tmp_path: Path) -> None:
    folder = tmp_path / "Protocol"
    folder.mkdir()
    row = np.arange(54.0)
    rows = np.stack([row, row, row])
    rows[:, 1] = [0, 4, 99]
    rows[1, 21] = np.nan
    np.savetxt(folder / "subject103.dat", rows)
    (recording,) = read_motion(tmp_path)
    assert (recording.subject, recording.rate_hz) == ("103", 100.0)
    assert recording.labels is not None
    assert recording.labels.tolist() == [UNLABELLED, "walking", "99"]
    chest = dict(zip(PAMAP2_CHANNELS, recording.samples[1], strict=True))
    assert np.isnan(chest["chest_acc_x"])
    assert chest["chest_acc_y"] == 22
    assert chest["chest_gyro_x"] == 27
    assert chest["hand_acc_x"] == 4
    assert chest["hand_mag_z"] == 15
    assert chest["ankle_mag_z"] == 49


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("D01_SA01_R01.txt", "1,2;\n", "must have 9 columns, got 2"),
        ("D01_SA01_R01.txt", "one,2,3,4,5,6,7,8,9;\n", "must hold rows of 9 numbers"),
        ("subject1.dat", "1 2 3\n", "must have 54 columns, got 3"),
        ("adl_index.csv", "activity\nD01\n", "lacks adl_int16.npy"),
    ],
)
def test_files_of_another_shape_are_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match=says):
        read_motion(tmp_path)


@pytest.mark.parametrize(
    "row", ["D01,SA01,1,0,9", "D01,SA01,1,-1,2", "D01,SA01,1,0,0", "D01,SA01,one,0,2", "D01,SA01,1"]
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, row: str) -> None:
    np.save(tmp_path / "adl_int16.npy", np.zeros((5, 9), dtype=np.int16))
    (tmp_path / "adl_index.csv").write_text(f"activity,subject,trial,offset,length\n{row}\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="line 2"):
        read_motion(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="does not exist"):
        read_motion(tmp_path / "nowhere")


def test_a_row_of_pamap2_without_an_activity_has_no_label_and_an_empty_file_no_rows(tmp_path: Path) -> None:
    row = " ".join(["0.01", "4", *["1"] * 52])
    (tmp_path / "subject101.dat").write_text(f"{row}\n{row.replace(' 4 ', ' NaN ', 1)}\n", encoding="utf-8")
    (found,) = read_motion(tmp_path)
    assert found.labels is not None
    assert found.labels.tolist() == ["walking", ""]
    (tmp_path / "subject102.dat").write_text("", encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"subject102\.dat holds no rows"):
        read_motion(tmp_path)
    left_out: list[str] = []
    assert len(read_motion(tmp_path, left_out)) == len(left_out) == 1


def test_one_file_of_a_set_is_read_as_its_folder_is(tmp_path: Path) -> None:
    row = "1,2,3,4,5,6,7,8,9;\n"
    (tmp_path / "D02_SE03_R01.txt").write_text(3 * row)
    (tmp_path / "subject108.dat").write_text(2 * (" ".join(["1.0", "4", *["0.5"] * 52]) + "\n"))
    for name, subject in (("D02_SE03_R01.txt", "SE03"), ("subject108.dat", "108")):
        (alone,) = read_motion(tmp_path / name)
        assert alone.subject == subject
    (whole,) = read_motion(tmp_path)  # a folder is of one set
    assert whole.subject == "SE03"
    np.testing.assert_array_equal(whole.samples, read_motion(tmp_path / "D02_SE03_R01.txt")[0].samples)
