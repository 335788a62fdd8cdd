"""A recording's behaviours as its windows come, with a stated delay."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator

from link.array import Array
from link.errors import ArgumentError
from link.hsmm import Hsmm, Messages, floored_emissions, log_marginals
from link.log_space import log_sum_exp, unfloored


def checked_lag(lag: int) -> int:
    """A lag that is one: a whole number, at least 0.

    Raises
    ------
    ArgumentError
    """
    try:
        whole = operator.index(lag)
    except TypeError:
        raise ArgumentError("lag", f"must be a whole number of windows, got {lag!r}") from None
    if whole < 0:
        raise ArgumentError("lag", f"must be at least 0, got {lag}")
    return whole


class FixedLagSmoother:
    """Marginals of windows as they come, each given `lag` windows after it.

    What it says of a window equals `forward_backward` on all windows until then. A push costs O(lag (C D + C^2)).

    Parameters
    ----------
    model : Hsmm
    lag : int
        Windows that an answer waits for; 0 is filtering.
    """

    _alpha: Array | None
    _evidence: Array
    _waiting: deque[tuple[Array, Array]]

    def __init__(self, model: Hsmm, lag: int = 0) -> None:
        self.lag = checked_lag(lag)
        self._model = model
        self._messages = Messages(model)
        self._restart()

    def push(self, emission: Array) -> Array | None:
        """The emission (..., C) of the next window; log marginals (..., C) of that `lag` before it, None if there is none.

        Raises
        ------
        ArgumentError
            If it is not of the model's classes, or NaN or +inf.
        """
        emission = floored_emissions(self._model, emission[..., None, :])[..., 0, :]
        self._alpha, peak = self._messages.forward(self._alpha, emission)
        self._evidence = self._evidence + peak
        self._waiting.append((self._alpha, emission))
        if len(self._waiting) <= self.lag:
            return None
        *_, oldest = self._waiting_with_beta()
        self._waiting.popleft()
        return self._marginals(*oldest)

    def flush(self) -> list[Array]:
        """Log marginals (..., C) of the windows not answered yet, given all; then it is ready for another recording."""
        answers = [self._marginals(alpha, beta) for alpha, beta in self._waiting_with_beta()]
        self._restart()
        return answers[::-1]

    @property
    def log_evidence(self) -> Array:
        """ln p(windows so far), (...); 0 before the first."""
        return unfloored(self._evidence + log_sum_exp(log_sum_exp(self._alpha))) if self._alpha is not None else 0.0

    def _restart(self) -> None:
        self._alpha = None
        self._evidence = 0.0
        self._waiting = deque()

    def _waiting_with_beta(self) -> Iterator[tuple[Array, Array]]:
        """Alpha and beta of the windows that wait, from the last one back."""
        beta, later = None, None
        for alpha, emission in reversed(self._waiting):
            beta = self._messages.end(emission) if later is None else self._messages.backward(beta, later)[0]
            later = emission
            yield alpha, beta

    def _marginals(self, alpha: Array, beta: Array) -> Array:
        return log_marginals(log_sum_exp(alpha + beta), self.log_evidence)
