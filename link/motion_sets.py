"""Sets of motion recordings as they are published: SisFall and PAMAP2.

SisFall   FOLDER/[SA01/]D01_SA01_R01.txt: nine columns of counts at 200 Hz (Sucerquia et al. 2017, Sensors 17(1):198); or the
          same thinned to 50 Hz and packed, adl_int16.npy[.xz] beside adl_index.csv
PAMAP2    FOLDER/[Protocol/]subject101.dat: 54 columns at 100 Hz (Reiss and Stricker 2012, ISWC)

Counts become g and degrees a second. Of PAMAP2's three sensors, each with two accelerometers, the one of +-16 g is read, as
its makers advise, with gyroscope and magnetometer; activity 0, between others, has no label.
"""

from __future__ import annotations

import csv
import io
import lzma
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError
from link.recordings import UNLABELLED as UNLABELLED
from link.recordings import Recording, read_each, read_recordings
from link.table import decode, read_bytes

SISFALL_CHANNELS: Final = tuple(f"{sensor}_{axis}" for sensor in ("acc", "gyro", "acc2") for axis in "xyz")
_SISFALL_UNITS: Final = np.repeat([32 / 2**13, 4000 / 2**16, 16 / 2**14], 3)
"""g, degrees a second and g a count: +-16 g in 13 bits, +-2000 degrees a second in 16, +-8 g in 14."""
_SISFALL_HZ: Final = 200.0
_PACKED_HZ: Final = 50.0

_PAMAP2_HZ: Final = 100.0
_PAMAP2_COLUMNS: Final = 54
_PAMAP2_FIRST: Final = {"hand": 3, "chest": 20, "ankle": 37}
_PAMAP2_KINDS: Final = {"acc": 1, "gyro": 7, "mag": 10}
PAMAP2_CHANNELS: Final = tuple(
    f"{place}_{kind}_{axis}" for place in _PAMAP2_FIRST for kind in _PAMAP2_KINDS for axis in "xyz"
)
_PAMAP2_PLACES: Final = [
    first + kind + axis for first in _PAMAP2_FIRST.values() for kind in _PAMAP2_KINDS.values() for axis in range(3)
]
_PAMAP2_ACTIVITIES: Final = {
    0: UNLABELLED,
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic-walking",
    9: "watching-tv",
    10: "computer-work",
    11: "car-driving",
    12: "ascending-stairs",
    13: "descending-stairs",
    16: "vacuum-cleaning",
    17: "ironing",
    18: "folding-laundry",
    19: "house-cleaning",
    20: "playing-soccer",
    24: "rope-jumping",
}


def read_motion(path: Path, left_out: list[str] | None = None) -> list[Recording]:
    """The recordings below a path, in whichever layout they are.

    Parameters
    ----------
    left_out : list of str, optional
        Gets what is wrong with each file that cannot be used, in place of ending with the first.

    Raises
    ------
    ArgumentError
        If there are none, or a file cannot be read or used.
    """
    if not path.exists():
        raise ArgumentError("data", f"{path} does not exist")
    if (path / "adl_index.csv").is_file():
        return _packed_sisfall(path)
    for pattern, read in _PUBLISHED.items():
        files = sorted(path.rglob(pattern)) if path.is_dir() else [path] if path.match(pattern) else []
        if files:
            return read_each(files, read, left_out)
    return read_recordings(path, left_out)


def _packed_sisfall(folder: Path) -> list[Recording]:
    index = folder / "adl_index.csv"
    file = next((folder / name for name in ("adl_int16.npy", "adl_int16.npy.xz") if (folder / name).is_file()), None)
    if file is None:
        raise ArgumentError("data", f"{folder} lacks adl_int16.npy and adl_int16.npy.xz, of {index.name}")
    content = read_bytes(file)
    try:
        counts = np.load(io.BytesIO(lzma.decompress(content) if file.suffix == ".xz" else content), allow_pickle=False)
    except (lzma.LZMAError, ValueError, EOFError) as error:
        raise ArgumentError("data", f"{file} is no array that can be read: {error}") from None
    if counts.ndim != 2 or counts.shape[1] != len(SISFALL_CHANNELS):
        raise ArgumentError("data", f"{file} must have {len(SISFALL_CHANNELS)} columns, got shape {counts.shape}")
    rows = list(csv.DictReader(io.StringIO(decode(str(index), read_bytes(index)))))
    if not rows:
        raise ArgumentError("data", f"{index} holds no rows")
    made = []
    for line, row in enumerate(rows, start=2):
        try:
            first, length = int(row["offset"]), int(row["length"])
            name = f"{row['activity']}_{row['subject']}_R{int(row['trial']):02d}"
        except (KeyError, TypeError, ValueError):
            raise ArgumentError(
                "data", f"{index}: line {line}: needs activity, subject, trial, offset and length"
            ) from None
        if not 0 <= first < first + length <= len(counts):
            raise ArgumentError(
                "data", f"{index}: line {line}: samples {first} to {first + length - 1} are not in {file.name}"
            )
        made.append(_of_counts(name, row["subject"], row["activity"], counts[first : first + length], _PACKED_HZ))
    return made


def _sisfall(file: Path) -> list[Recording]:
    activity, subject, _ = file.stem.split("_")
    counts = _columns(file, len(SISFALL_CHANNELS), ",", decode(str(file), read_bytes(file)).replace(";", ""))
    return [_of_counts(file.stem, subject, activity, counts, _SISFALL_HZ)]


def _of_counts(name: str, subject: str, activity: str, counts: NDArray[np.generic], rate_hz: float) -> Recording:
    samples = (counts * _SISFALL_UNITS).astype(np.float32)
    labels = np.broadcast_to(np.array(activity), len(samples))
    return Recording(name, subject, rate_hz, SISFALL_CHANNELS, samples, labels)


def _pamap2(file: Path) -> list[Recording]:
    columns = _columns(file, _PAMAP2_COLUMNS, None, decode(str(file), read_bytes(file)))
    numbers, which = np.unique(np.nan_to_num(columns[:, 1]).astype(np.int64), return_inverse=True)
    labels = np.array([_PAMAP2_ACTIVITIES.get(number, str(number)) for number in numbers.tolist()])[which]
    samples = columns[:, _PAMAP2_PLACES].astype(np.float32)
    samples[~np.isfinite(samples)] = np.nan
    return [Recording(file.name, file.stem.removeprefix("subject"), _PAMAP2_HZ, PAMAP2_CHANNELS, samples, labels)]


def _columns(file: Path, width: int, delimiter: str | None, content: str) -> NDArray[np.float64]:
    """Numbers of a text file, (T, width); NaN where it says so."""
    if not content.strip():
        raise ArgumentError("data", f"{file} holds no rows")
    try:
        columns = np.loadtxt(io.StringIO(content), delimiter=delimiter, ndmin=2)
    except ValueError as error:
        raise ArgumentError(
            "data", f"{file} must hold rows of {width} numbers: {str(error).partition(';')[0]}"
        ) from None
    if columns.shape[1:] != (width,):
        raise ArgumentError("data", f"{file} must have {width} columns, got {columns.shape[1]}")
    return columns


_PUBLISHED: Final = {"D[0-9][0-9]_S[AE][0-9][0-9]_R[0-9][0-9].txt": _sisfall, "subject[0-9]*.dat": _pamap2}
"""How files of each set are called, and what reads one."""
