"""Recordings of sensors: channels over time, of a subject, with a label a sample where one is known.

One `.npz` or `.csv` is read, or a folder of them; SisFall and PAMAP2 as they are published (link.motion_sets).

npz   data (T, C) of all recordings one after another, or (n, T, C) of n equally long ones, of which nothing says whether
      one follows on another; label (also (n, T)), subject and recording, each (T,), (n,) or one for all; rate_hz;
      channels (C,)
csv   a row a sample: label, subject, recording and time_s where there are such columns, and every other column a channel

What names a recording's samples stands beside them: a change of subject or of `recording` ends one. A label is a text, or a
whole number in whatever type; a sample without one has an empty text or NaN in its place.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError
from link.table import Table, column_key, read_table, refuse_line

SUFFIXES: Final = (".npz", ".csv")
"""Files that `read_recordings` takes."""

UNLABELLED: Final = ""
"""The label of samples that have none, between others that have."""

RATES_HZ: Final = (2.0, 100_000.0)
"""What a file may say of its samples a second: other rates are times in another unit than seconds."""

_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "data": ("data", "samples", "signal", "signals", "windows", "x"),
    "label": ("label", "labels", "activity", "activity_id", "class", "y"),
    "subject": ("subject", "subjects", "subject_id", "user", "user_id", "participant"),
    "recording": ("recording", "recordings", "trial", "session"),
    "rate_hz": ("rate_hz", "rate", "fs", "sampling_rate", "sample_rate", "hz"),
    "time_s": ("time_s", "time", "timestamp", "t"),
    "channels": ("channels", "channel_names"),
}
_MISSING: Final = ("", "nan", "na", "null", "none")
_NO_CHANNELS: Final = ("time", "date", "index")
"""How names of columns begin that count rows, and so tell where in its recording a sample is."""
_UNEVEN: Final = 0.05
"""How far the intervals of a column of times may be from their mean, as a share of it, for samples to be evenly spaced."""
_TICK_S: Final = 0.001
"""Resolution of times that are written in milliseconds, by which intervals may differ whatever their mean."""


class Recording(NamedTuple):
    """What one subject's sensors said, without a break.

    Attributes
    ----------
    name : str
        Where it comes from, for messages.
    subject : str
    rate_hz : float or None
        Samples a second; None where its file does not say.
    channels : tuple of str
    samples : (T, C) float32
        NaN where one is missing.
    labels : (T,) str, or None
        None where its file has none.
    start_s : float
        When it begins, in seconds from that of what it is a part of.
    """

    name: str
    subject: str
    rate_hz: float | None
    channels: tuple[str, ...]
    samples: NDArray[np.float32]
    labels: NDArray[np.str_] | None
    start_s: float = 0.0

    def part(self, first: int, last: int) -> Recording:
        """Some of its samples, the last excluded; its rate is known."""
        assert self.rate_hz is not None
        return self._replace(
            samples=self.samples[first:last],
            labels=None if self.labels is None else self.labels[first:last],
            start_s=self.start_s + first / self.rate_hz,
        )


def read_recordings(path: Path, left_out: list[str] | None = None) -> list[Recording]:
    """The recordings of a file, or of all such files in a folder, in the order of their names.

    Parameters
    ----------
    left_out : list of str, optional
        Gets what is wrong with each file of a folder that cannot be used, in place of ending with the first.

    Raises
    ------
    ArgumentError
        If there are none, or a file cannot be read or used.
    """
    if path.is_dir():
        names = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        files = [file for file in names if file.suffix.lower() in SUFFIXES]
        if not files:
            raise ArgumentError("data", f"{path} holds no recordings: neither .npz nor .csv, SisFall nor PAMAP2")
        return read_each(files, read_recordings, left_out)
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError("data", f"{path} must be a folder or end in {' or '.join(SUFFIXES)}")
    return _from_arrays(path) if path.suffix.lower() == ".npz" else _from_table(path)


def read_each(
    files: Iterable[Path], read: Callable[[Path], list[Recording]], left_out: list[str] | None
) -> list[Recording]:
    """The recordings of all files; see `read_recordings` for those that cannot be used."""
    made = []
    for file in files:
        try:
            made += read(file)
        except ArgumentError as error:
            if left_out is None:
                raise
            left_out.append(error.message)
    return made


def _from_arrays(file: Path) -> list[Recording]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as loaded:
            found = {column_key(name): loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise ArgumentError("data", f"{file} does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, TypeError):
        raise ArgumentError("data", f"{file} is no .npz, is damaged, or holds Python objects") from None
    arrays = {role: next((found[name] for name in names if name in found), None) for role, names in _NAMES.items()}
    data = arrays["data"]
    if data is None:
        raise ArgumentError("data", f"{file} lacks an array data; it holds {', '.join(found) or 'nothing'}")
    if data.ndim not in (2, 3) or not data.size or not _are_real(data):
        raise ArgumentError("data", f"{file}: data must be numbers (T, C) or (n, T, C), got {data.dtype} {data.shape}")
    length, channels = (data.shape[1], data.shape[2]) if data.ndim == 3 else (1, data.shape[1])

    def by_sample(role: str) -> NDArray[np.str_] | None:
        values = arrays[role]
        if values is None:
            return None
        if data.ndim == 3 and values.shape == data.shape[:2]:
            return _texts(values.ravel())
        if values.size not in (1, len(data)):
            raise ArgumentError(
                "data", f"{file}: {role} must be one, or one for each of {len(data)}, got {values.size}"
            )
        return np.repeat(_texts(np.broadcast_to(values.ravel(), (len(data),))), length)

    rate = arrays["rate_hz"]
    if rate is not None and (rate.size != 1 or not _are_real(rate) or not rate.item() > 0.0):
        raise ArgumentError("data", f"{file}: rate_hz must be one number above 0")
    if rate is not None:
        _check_rate(str(file), float(rate.item()))
    names = arrays["channels"]
    if names is not None and names.shape != (channels,):
        raise ArgumentError("data", f"{file}: channels names {names.size}, and data has {channels}")
    if names is not None and (twice := [name for name, count in Counter(map(str, names)).items() if count > 1]):
        raise ArgumentError("data", f"{file}: channels names {twice[0]} twice")
    with np.errstate(over="ignore"):
        samples = data.reshape(-1, channels).astype(np.float32)
    own = np.repeat(np.arange(len(data)).astype(np.str_), length) if data.ndim == 3 else by_sample("recording")
    return _cut(
        file,
        samples,
        tuple(f"channel_{place}" for place in range(channels)) if names is None else tuple(map(str, names)),
        None if rate is None else float(rate.item()),
        subjects=by_sample("subject"),
        recordings=own,
        labels=by_sample("label"),
    )


def _from_table(file: Path) -> list[Recording]:
    known = {name for names in _NAMES.values() for name in names}
    table = read_table(file, known, of_numbers=True)
    if table.names is None:
        raise ArgumentError("data", f"{file} needs a header: label, subject, recording, and the names of the channels")
    keys = [column_key(name) for name in table.names]
    _check_columns(table, keys)
    places = {
        role: next((keys.index(name) for name in _NAMES[role] if name in keys), None)
        for role in ("label", "subject", "recording", "time_s")
    }
    channels = [place for place in range(len(keys)) if place not in places.values()]
    if not channels:
        raise ArgumentError("data", f"{file} has no column of a channel: it has {', '.join(table.names)}")
    with np.errstate(over="ignore"):
        samples = np.stack([_numbers(table, place).astype(np.float32) for place in channels], axis=1)

    def cells(role: str) -> NDArray[np.str_] | None:
        place = places[role]
        return None if place is None else _texts(np.array(table.column(place)))

    made = _cut(
        file,
        samples,
        tuple(table.names[place] for place in channels),
        None,
        subjects=cells("subject"),
        recordings=cells("recording"),
        labels=cells("label"),
    )
    if places["time_s"] is None:
        return made
    times = _numbers(table, places["time_s"])
    starts = np.cumsum([0, *(len(recording.samples) for recording in made)])
    return [
        recording._replace(rate_hz=_rate(recording.name, times[first:last]))
        for recording, first, last in zip(made, starts[:-1], starts[1:], strict=True)
    ]


def _numbers(table: Table, place: int) -> NDArray[np.float64]:
    """A column of numbers, NaN where one is missing."""
    try:
        return np.array([row[place] for _, row in table.rows]).astype(np.float64)
    except ValueError:  # an empty cell, or one that is no number
        return np.array([_number(table, line, row[place], place) for line, row in table.rows])


def _number(table: Table, line: int, value: str, place: int) -> float:
    cell = value.strip()
    if cell.casefold() in _MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        name = (table.names or ())[place]
        what = "seconds" if column_key(name) in _NAMES["time_s"] else "a number, or empty where it is missing"
        hint = " (a comma is no decimal point)" if re.fullmatch(r"[+-]?[0-9]*,[0-9]+", cell) else ""
        refuse_line(table.file, line, f"{name} must be {what}, got {cell[:40]!r}{hint}")


def _rate(name: str, times: NDArray[np.float64]) -> float:
    """Samples a second of times in seconds."""
    steps = np.diff(times)
    later = np.asarray(np.isfinite(steps) & (steps > 0))
    if not later.all() or not len(steps):
        which = f", which sample {int(np.argmin(later)) + 1} is not" if len(steps) else ""
        raise ArgumentError("data", f"{name}: the times must be two or more, each later than the one before{which}")
    step = float(times[-1] - times[0]) / len(steps)
    if np.abs(steps - step).max() > min(max(_UNEVEN * step, _TICK_S), step / 2):
        step = float(np.median(steps))
        at = int(np.abs(steps - step).argmax())
        raise ArgumentError(
            "data",
            f"{name}: samples must be evenly spaced, and sample {at + 1} comes {steps[at]:.3g} s after another, where "
            f"others come after {step:.3g} s: leave empty cells where one is missing",
        )
    return _check_rate(name, float(f"{1.0 / step:.6g}"))


def _check_rate(name: str, rate_hz: float) -> float:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        low, high = RATES_HZ
        raise ArgumentError(
            "data", f"{name}: must be {low:g} to {high:g} samples a second, got {rate_hz:.3g}: are times in seconds?"
        )
    return rate_hz


def _check_columns(table: Table, keys: Sequence[str]) -> None:
    """Refuse columns that are taken for channels by mistake, which may tell the label."""
    names = table.names or ()
    if "" in keys:
        raise ArgumentError("data", f"{table.file}: column {keys.index('') + 1} has no name: name it, or leave it out")
    for role, known in _NAMES.items():
        alike = [name for name, key in zip(names, keys, strict=True) if key in known]
        if len(alike) > 1:
            raise ArgumentError("data", f"{table.file}: {' and '.join(alike)} both say the {role}: leave one out")
    for name, key in zip(names, keys, strict=True):
        if key.startswith(_NO_CHANNELS) and key not in _NAMES["time_s"]:
            raise ArgumentError("data", f"{table.file}: {name} is no channel: leave it out, or give time_s in seconds")


def _texts(values: NDArray[Any]) -> NDArray[np.str_]:
    """Names as texts: whole numbers without a point, none for NaN, and no space around any."""
    if not np.issubdtype(values.dtype, np.floating):
        texts = np.strings.strip(values.astype(np.str_))
        return np.where(np.strings.lower(texts) == "nan", UNLABELLED, texts)
    distinct, which = np.unique(values, return_inverse=True)
    whole = [
        "" if np.isnan(value) else str(int(value)) if value == np.floor(value) else str(value) for value in distinct
    ]
    return np.array(whole)[which]


def _are_real(values: NDArray[Any]) -> bool:
    return np.issubdtype(values.dtype, np.number) and not np.issubdtype(values.dtype, np.complexfloating)


def _cut(
    file: Path,
    samples: NDArray[np.float32],
    channels: tuple[str, ...],
    rate_hz: float | None,
    *,
    subjects: NDArray[np.str_] | None,
    recordings: NDArray[np.str_] | None,
    labels: NDArray[np.str_] | None,
) -> list[Recording]:
    """One recording after another, where samples of all of them stand in a row."""
    samples[~np.isfinite(samples)] = np.nan
    if subjects is not None and (nobody := np.flatnonzero(subjects == "")).size:
        raise ArgumentError("data", f"{file}: sample {nobody[0]} has no subject")
    changes = [np.flatnonzero(names[1:] != names[:-1]) + 1 for names in (subjects, recordings) if names is not None]
    starts = np.unique(np.concatenate([[0], *changes])).astype(np.int64)
    return [
        Recording(
            f"{file.name}, recording {number} (from sample {first})",
            file.stem if subjects is None else str(subjects[first]),
            rate_hz,
            channels,
            samples[first:last],
            None if labels is None else labels[first:last],
        )
        for number, (first, last) in enumerate(_spans(starts, len(samples)))
    ]


def _spans(starts: NDArray[np.int64], end: int) -> Iterator[tuple[int, int]]:
    yield from zip(starts.tolist(), [*starts[1:].tolist(), end], strict=True)
