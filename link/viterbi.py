"""The most likely behaviours of a recording, and its segments.

What is maximised is P(behaviours, windows), as `link.hsmm.log_joint` has it, and not the probability of behaviours and
durations together: how long the last behaviour would have gone on is summed over. With u_t(c, r) the best that windows
t, ..., T can be if behaviour c is over in r of them, and v_t(c) if it begins in window t,

    u_t(c, r) = e_t(c) u_{t+1}(c, r-1)            r > 1
    u_t(c, 1) = e_t(c) max_{c'} A_cc' v_{t+1}(c')
    v_t(c)    = max(max_r p_c(r) u_t(c, r),  P_c(d >= T - t + 1) e_t(c) ... e_T(c))

in logs, in float64, since nothing is divided out. For the first window p and P are those of what is left of a behaviour.
The path is read off from there on.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from link.array import Array, namespace
from link.durations import Durations
from link.errors import ArgumentError
from link.hsmm import Hsmm, floored_emissions
from link.log_space import FLOOR, floored, log1m_exp, unfloored


class Path(NamedTuple):
    """The most likely behaviours.

    Attributes
    ----------
    labels : (..., T) int64
        All 0 where the windows are impossible.
    log_probability : (...) float64
        ln P(behaviours, windows).
    """

    labels: Array
    log_probability: Array


class Segment(NamedTuple):
    """A stay in a behaviour.

    Attributes
    ----------
    label : int
    start : int
        Its first window.
    duration : int
        Its windows.
    """

    label: int
    start: int
    duration: int


def viterbi(model: Hsmm, emissions: Array) -> Path:
    """The most likely behaviours of a recording.

    Among equally likely ones it has the lowest first behaviour, its shortest stay, the lowest second one, and so on.

    Parameters
    ----------
    model : Hsmm
    emissions : (..., T, C) float
        As for `link.hsmm.forward_backward`.

    Raises
    ------
    ArgumentError
        If shapes do not fit, or emissions are NaN or +inf.
    """
    xp = namespace(emissions, *model)
    emissions = xp.asarray(floored_emissions(model, emissions), dtype=xp.float64)
    windows, longest = emissions.shape[-2], model.longest
    initial, transition, duration, stay, first = map(floored, model)
    leave = log1m_exp(model.tail)
    whole = model.durations.log_at_least(windows)
    rest = Durations(model.first, model.tail).log_at_least(windows)

    value = to_the_end = xp.zeros_like(emissions[..., 0, :])
    completed = value[..., None] + xp.zeros_like(duration) + FLOOR
    follows = value[..., None] + xp.zeros_like(transition) + FLOOR
    tail_length = xp.argmax(follows, axis=-1)
    stays, successors = [], []
    for t in range(windows - 1, -1, -1):
        emission = emissions[..., t, :]
        successors.append(xp.argmax(follows, axis=-1))
        left = xp.concat([xp.max(follows, axis=-1)[..., None], completed[..., :-1]], axis=-1)
        over, on = left[..., -1] + leave, completed[..., -1] + stay
        tail_length = xp.where(over >= on, longest, tail_length + 1)
        completed = xp.concat([left[..., :-1], xp.maximum(over, on)[..., None]], axis=-1) + emission[..., None]
        to_the_end = to_the_end + emission

        scores = completed + (duration if t else first)
        row = xp.argmax(scores, axis=-1)
        ends, lasts = xp.max(scores, axis=-1), to_the_end + (whole if t else rest)[:, windows - t - 1]
        length = xp.where(row == longest - 1, tail_length, row + 1)
        stays.append(xp.where(ends >= lasts, length, windows - t))
        value = xp.maximum(ends, lasts)
        follows = transition + value[..., None, :]

    value = value + initial
    log_probability = unfloored(xp.max(value, axis=-1))
    labels = _read_off(xp.argmax(value, axis=-1), stays, successors)
    return Path(xp.where((log_probability == -xp.inf)[..., None], 0, labels), log_probability)


def segments(labels: ArrayLike) -> tuple[Segment, ...]:
    """The stays of one recording, in order.

    Parameters
    ----------
    labels : (T,) int

    Examples
    --------
    >>> segments([3, 3, 0])
    (Segment(label=3, start=0, duration=2), Segment(label=0, start=2, duration=1))
    """
    path = np.asarray(labels)
    if path.ndim != 1 or path.dtype.kind not in "iu":
        raise ArgumentError("labels", f"must be integers of one recording, got {path.dtype} of shape {path.shape}")
    bounds = np.concatenate([[0], 1 + np.flatnonzero(path[1:] != path[:-1]), [len(path)]])
    return tuple(
        Segment(int(path[start]), int(start), int(end - start))
        for start, end in itertools.pairwise(bounds)
        if end > start
    )


def _read_off(label: Array, stays: list[Array], successors: list[Array]) -> Array:
    """The path (..., T) from its first label, how long a label lasts from each window on, and what follows it."""
    xp = namespace(label)
    left, path = _entry(stays[-1], label), [label]
    for following, lasting in zip(successors[:0:-1], stays[-2::-1], strict=True):
        left = left - 1
        over = left == 0
        label = xp.where(over, _entry(following, label), label)
        left = xp.where(over, _entry(lasting, label), left)
        path.append(label)
    return xp.stack(path, axis=-1)


def _entry(table: Array, label: Array) -> Array:
    """The entry (...) of a label in each row of a table (..., C)."""
    return namespace(table).take_along_axis(table, label[..., None], axis=-1)[..., 0]
