"""Windows of recordings: resampled, gaps filled or cut out, so many samples long.

    recording ─> its channels ─> gaps: short ones filled, cut at long ones ─> resampled ─> windows, each of one label

A filter of a resampler spreads whatever stands in a gap, so gaps go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from link.errors import ArgumentError
from link.recordings import UNLABELLED, Recording

_FINEST = 1000
"""Largest denominator of a ratio of sampling rates."""


class Windows(NamedTuple):
    """Windows of one stretch of a recording, in order.

    Attributes
    ----------
    samples : (n, T, C) float32
    labels : (n,) str, or None
    """

    samples: NDArray[np.float32]
    labels: NDArray[np.str_] | None


def channels_of(recording: Recording, channels: Sequence[str]) -> Recording:
    """A recording with these channels alone, in this order.

    Raises
    ------
    ArgumentError
        If it lacks one.
    """
    if tuple(channels) == recording.channels:
        return recording
    missing = [name for name in channels if name not in recording.channels]
    if missing:
        raise ArgumentError(
            "data",
            f"{recording.name}: there are {len(channels)} channels, and it lacks {', '.join(missing)}; it has "
            f"{', '.join(recording.channels)}",
        )
    places = [recording.channels.index(name) for name in channels]
    return recording._replace(channels=tuple(channels), samples=recording.samples[:, places])


def without_gaps(recording: Recording, longest: int) -> tuple[list[Recording], int]:
    """Stretches in which no sample is missing, and how many samples were filled in.

    Parameters
    ----------
    longest : int
        Samples of the longest gap that is filled, by the line between its ends; at longer ones, and at those that are at
        an end, the recording is cut.
    """
    missing: NDArray[np.bool_] = np.asarray(np.isnan(recording.samples).any(axis=1))
    if not missing.any():
        return [recording], 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]])))
    filled, gone = 0, np.zeros(len(missing), dtype=np.bool_)
    samples = recording.samples.copy()
    times = np.arange(len(missing))
    for first, last in edges.reshape(-1, 2):
        if first == 0 or last == len(missing) or last - first > longest:
            gone[first:last] = True
            continue
        filled += int(last - first)
        for channel in samples.T:
            here = np.isnan(channel[first:last])
            channel[first:last][here] = np.interp(
                times[first:last][here], [first - 1, last], channel[[first - 1, last]]
            )
    whole = recording._replace(samples=samples)
    kept = np.flatnonzero(np.diff(np.concatenate([[False], ~gone, [False]])))
    return [whole.part(int(first), int(last)) for first, last in kept.reshape(-1, 2)], filled


def ratio_of_rates(from_hz: float, to_hz: float) -> Fraction:
    """Samples after resampling for each before, of terms that a filter can have.

    Raises
    ------
    ArgumentError
        If rates are further apart than 1000 to 1.

    Examples
    --------
    >>> ratio_of_rates(31.25, 50.0), ratio_of_rates(50.001, 50.0)
    (Fraction(8, 5), Fraction(1, 1))
    """
    if not 1 / _FINEST <= to_hz / from_hz <= _FINEST:
        raise ArgumentError(
            "rate_hz", f"must be within 1:{_FINEST} of the recording's {from_hz:g} Hz, got {to_hz:g} Hz"
        )
    return Fraction(to_hz / from_hz).limit_denominator(_FINEST)


def resampled(recording: Recording, rate_hz: float) -> Recording:
    """A recording at another rate: a polyphase filter against aliases, a label that of the sample nearest in time.

    Parameters
    ----------
    recording : Recording
        Without gaps; its rate known.
    rate_hz : float
    """
    if recording.rate_hz is None or not len(recording.samples):
        return recording
    ratio = ratio_of_rates(recording.rate_hz, rate_hz)
    if ratio == 1:
        return recording._replace(rate_hz=rate_hz)
    samples = resample_poly(recording.samples, ratio.numerator, ratio.denominator, axis=0, padtype="line").astype(
        np.float32
    )
    nearest = np.minimum(
        np.round(np.arange(len(samples)) * (ratio.denominator / ratio.numerator)).astype(np.int64),
        len(recording.samples) - 1,
    )
    labels = None if recording.labels is None else recording.labels[nearest]
    return recording._replace(rate_hz=rate_hz, samples=samples, labels=labels)


def all_windows_of(recording: Recording, length: int) -> Windows:
    """Its windows, one after another, also those across a change of label, which have an empty one.

    Parameters
    ----------
    length : int
        Samples of a window; the recording has so many.
    """
    every = windows_of(recording._replace(labels=None), length, length)[0]
    if recording.labels is None:
        return every
    starts = length * np.arange(len(every.samples))
    whole = _of_one_label(recording.labels, starts, length)
    return every._replace(labels=np.where(whole, recording.labels[starts], UNLABELLED))


def windows_of(recording: Recording, length: int, step: int, first: int = 0) -> list[Windows]:
    """Its windows, those across a change of label left out: a list of stretches that follow on one another without one.

    Parameters
    ----------
    length, step : int
        Samples of a window, and from the start of one to that of the next.
    first : int
        Sample at which the first begins.
    """
    starts = np.arange(first, len(recording.samples) - length + 1, step)
    if not len(starts):
        return []
    cut = np.lib.stride_tricks.sliding_window_view(recording.samples, length, axis=0)[starts].swapaxes(1, 2)
    if recording.labels is None:
        return [Windows(np.ascontiguousarray(cut), None)]
    whole = _of_one_label(recording.labels, starts, length)
    stretches = np.split(np.arange(len(starts)), np.flatnonzero(~whole))
    made = []
    for stretch in stretches:
        kept = stretch[whole[stretch]]
        if len(kept):
            made.append(Windows(np.ascontiguousarray(cut[kept]), recording.labels[starts[kept]]))
    return made


def _of_one_label(labels: NDArray[np.str_], starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    changes = np.concatenate([[0], np.cumsum(labels[1:] != labels[:-1])])
    return np.asarray(changes[starts] == changes[starts + length - 1])
