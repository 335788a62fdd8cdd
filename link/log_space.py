"""Sums of probabilities that are given by their logs, log 0 = -inf included, in NumPy and in torch.

Inside a recursion -inf stands as FLOOR: its exponential is 0 all the same, and no difference of two infinities turns a value
or a gradient into NaN. What comes out below half of it was impossible, and is -inf again.
"""

from __future__ import annotations

from typing import Final

from link.array import Array, namespace

FLOOR: Final = -1e30
"""Log of an impossible thing, in float32 too: far below any log probability, and millions of them do not overflow."""


def floored(x: Array) -> Array:
    """Logs with FLOOR for -inf; an entry that was below it has gradient 0."""
    return namespace(x).clip(x, FLOOR, None)


def unfloored(x: Array) -> Array:
    """Logs with -inf for all that is impossible."""
    xp = namespace(x)
    return xp.where(x < 0.5 * FLOOR, -xp.inf, x)


def log_sum_exp(x: Array, axis: int = -1) -> Array:
    """ln sum exp over an axis of finite (`floored`) logs."""
    xp = namespace(x)
    peak = constant(xp.max(x, axis=axis, keepdims=True))
    return xp.log(xp.sum(xp.exp(x - peak), axis=axis)) + xp.squeeze(peak, axis=axis)


def constant(x: Array) -> Array:
    """What is taken out in one place and put back in another, so that its gradient is 0 and need not be computed."""
    return x.detach() if hasattr(x, "detach") else x


def log_softmax(x: Array) -> Array:
    """Logs normalised over the last axis; -inf stays.

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(log_softmax(np.array([0.0, 0.0, -np.inf])))
    array([0.5, 0.5, 0. ])
    """
    return x - log_sum_exp(floored(x))[..., None]


def log1m_exp(x: Array) -> Array:
    """ln (1 - exp x) of x < 0, exact near both ends."""
    xp = namespace(x)
    return xp.log(-xp.expm1(x))
