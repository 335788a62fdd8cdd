"""Recordings of sensors: channels over time, of a subject, with a label a sample where one is known.

One `.npz` or `.csv` is read, or a folder of them; SisFall and PAMAP2 as they are published (link.motion_sets).

npz   data (T, C) of all recordings one after another, or (n, T, C) of n equally long ones; label, subject and recording,
      each (T,), (n,) or one for all; rate_hz; channels (C,)
csv   a row a sample: label, subject, recording and time_s where there are such columns, and every other column a channel

What names a recording's samples stands beside them: a change of subject or of `recording` ends one.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError
from link.table import ABSENT, Table, column_key, read_table, refuse_line

SUFFIXES: Final = (".npz", ".csv")
"""Files that `read_recordings` takes."""

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
_UNEVEN: Final = 0.05
"""How far the intervals of a column of times may be from their median, as a share of it, for samples to be evenly spaced."""


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
    """

    name: str
    subject: str
    rate_hz: float | None
    channels: tuple[str, ...]
    samples: NDArray[np.float32]
    labels: NDArray[np.str_] | None

    def part(self, where: slice) -> Recording:
        """Some of its samples."""
        return self._replace(samples=self.samples[where], labels=None if self.labels is None else self.labels[where])


def read_recordings(path: Path) -> list[Recording]:
    """The recordings of a file, or of all such files in a folder, in the order of their names.

    Raises
    ------
    ArgumentError
        If there are none, or a file cannot be read or used.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ArgumentError("data", f"{path} holds no recordings: neither .npz nor .csv, SisFall nor PAMAP2")
        return [recording for file in files for recording in read_recordings(file)]
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError("data", f"{path} must be a folder or end in {' or '.join(SUFFIXES)}")
    return _from_arrays(path) if path.suffix.lower() == ".npz" else _from_table(path)


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
    if data.ndim not in (2, 3) or not data.size or not np.issubdtype(data.dtype, np.number):
        raise ArgumentError("data", f"{file}: data must be numbers (T, C) or (n, T, C), got {data.dtype} {data.shape}")
    length, channels = (data.shape[1], data.shape[2]) if data.ndim == 3 else (1, data.shape[1])

    def by_sample(role: str) -> NDArray[np.str_] | None:
        values = arrays[role]
        if values is None:
            return None
        if values.size not in (1, len(data)):
            raise ArgumentError(
                "data", f"{file}: {role} must be one, or one for each of {len(data)}, got {values.size}"
            )
        return np.repeat(np.broadcast_to(values.ravel(), (len(data),)).astype(np.str_), length)

    rate = arrays["rate_hz"]
    if rate is not None and (
        rate.size != 1 or not np.issubdtype(rate.dtype, np.number) or not 0 < float(rate) < np.inf
    ):
        raise ArgumentError("data", f"{file}: rate_hz must be one number above 0")
    names = arrays["channels"]
    if names is not None and names.shape != (channels,):
        raise ArgumentError("data", f"{file}: channels names {names.size}, and data has {channels}")
    own = np.repeat(np.arange(len(data)).astype(np.str_), length) if data.ndim == 3 else by_sample("recording")
    return _cut(
        file,
        data.reshape(-1, channels).astype(np.float32),
        tuple(f"channel_{place}" for place in range(channels)) if names is None else tuple(map(str, names)),
        None if rate is None else float(rate.item()),
        subjects=by_sample("subject"),
        recordings=own,
        labels=by_sample("label"),
    )


def _from_table(file: Path) -> list[Recording]:
    known = {name for names in _NAMES.values() for name in names}
    table = read_table(file, known)
    if table.names is None:
        raise ArgumentError("data", f"{file} needs a header: label, subject, recording, and the names of the channels")
    keys = [column_key(name) for name in table.names]
    places = {
        role: next((keys.index(name) for name in _NAMES[role] if name in keys), None)
        for role in ("label", "subject", "recording", "time_s")
    }
    channels = [place for place in range(len(keys)) if place not in places.values()]
    if not channels:
        raise ArgumentError("data", f"{file} has no column of a channel: it has {', '.join(table.names)}")
    samples = np.array([_numbers(table, line, row, channels) for line, row in table.rows], dtype=np.float32)

    def cells(role: str) -> NDArray[np.str_] | None:
        place = places[role]
        return None if place is None else np.array(table.column(place))

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
    times = np.array([_numbers(table, line, row, [places["time_s"]])[0] for line, row in table.rows])
    starts = np.cumsum([0, *(len(recording.samples) for recording in made)])
    return [
        recording._replace(rate_hz=_rate(recording.name, times[first:last]))
        for recording, first, last in zip(made, starts[:-1], starts[1:], strict=True)
    ]


def _numbers(table: Table, line: int, row: Sequence[Any], places: Sequence[int]) -> list[float]:
    values = []
    for place in places:
        cell = "" if row[place] is ABSENT or row[place] is None else str(row[place]).strip()
        if cell.casefold() in _MISSING:
            values.append(np.nan)
            continue
        try:
            values.append(float(cell))
        except ValueError:
            name = (table.names or ())[place]
            refuse_line(table.file, line, f"{name} must be a number, or empty where it is missing, got {cell[:40]!r}")
    return values


def _rate(name: str, times: NDArray[np.float64]) -> float:
    """Samples a second of times in seconds."""
    steps = np.diff(times)
    if not len(steps) or not np.isfinite(steps).all() or not (steps > 0).all():
        raise ArgumentError("data", f"{name}: the times must be two or more, and each later than the one before")
    step = float(np.median(steps))
    if np.abs(steps - step).max() > _UNEVEN * step:
        at = int(np.abs(steps - step).argmax())
        raise ArgumentError(
            "data",
            f"{name}: samples must be evenly spaced, and sample {at + 1} comes {steps[at]:.3g} s after another, where "
            f"others come after {step:.3g} s: leave empty cells where one is missing",
        )
    return 1.0 / step


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
