"""The explicit-duration hidden semi-Markov model that smooths a recording's windows, in log space.

A behaviour c lasts d windows with probability p_c(d), then another one follows with probability A_cc', never itself: how
long a behaviour lasts is the durations' to say. What a window says of itself is its emission e_t(c) = p(window t | c), up to
a factor of the window. As a Markov chain over (behaviour, windows left of it, this one counted), the residual time model of
Yu and Kobayashi 2003 (Signal Processing Letters 10, "An efficient forward-backward algorithm for an explicit-duration hidden
Markov model"; reviewed in Yu 2010, Artificial Intelligence 174), a step costs O(C D + C^2):

    alpha_t(c, r) = e_t(c) [alpha_{t-1}(c, r+1) + p_c(r) sum_{c'} alpha_{t-1}(c', 1) A_c'c]
    beta_t(c, r)  = e_{t+1}(c) beta_{t+1}(c, r-1)                                            r > 1
    beta_t(c, 1)  = sum_{c'} A_cc' e_{t+1}(c') sum_r p_c'(r) beta_{t+1}(c', r)

The last row, r = D, returns to itself with probability s, which is the geometric tail of `link.durations`. The last
behaviour may go on after the recording: beta_T = 1 for whatever is left of it, so it is right-censored and needs no care.

**How a recording begins** is the law of what is left of its first behaviour:

    boundary   p_c(r)                              it begins with its behaviour
    middle     P(d >= r) / mean of d, d ~ p_c      it begins anywhere in a stationary process, in which a window's behaviour
                                                   has probability pi_c mean_c / sum pi mean, pi = pi A

Messages are divided by their largest entry in each window, so that float32 holds for long recordings too. Emissions and
tables of different precision meet in the wider one.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import array_api_compat

from link.array import Array, namespace
from link.durations import Durations, residual
from link.errors import ArgumentError
from link.log_space import FLOOR, constant, floored, log1m_exp, log_sum_exp, unfloored

Start: TypeAlias = Literal["boundary", "middle"]

_ROUNDING = 1e-5
"""What a sum of probabilities may differ from 1: those of a file in float32 do by less."""


class Hsmm(NamedTuple):
    """Log tables of C behaviours and D rows of durations; `Hsmm.of` builds and checks them.

    Attributes
    ----------
    initial : (C,) float
        ln P(behaviour of the first window).
    transition : (C, C) float
        ln A, from row to column; the diagonal is -inf.
    duration : (C, D) float
        ln p_c(1), ..., ln p_c(D - 1), ln P(d >= D).
    tail : (C,) float
        ln s, with which what lasts D windows goes on; -inf if nothing does.
    first : (C, D) float
        As `duration`, of what is left of the first behaviour.
    """

    initial: Array
    transition: Array
    duration: Array
    tail: Array
    first: Array

    @classmethod
    def of(cls, initial: Array, transition: Array, durations: Durations, start: Start = "boundary") -> Hsmm:
        """A model whose recordings begin at a `boundary` of a behaviour, or in the `middle` of one.

        Raises
        ------
        ArgumentError
            As `check`.
        """
        if start not in ("boundary", "middle"):
            raise ArgumentError("start", f"must be boundary or middle, got {start}")
        model = cls(initial, transition, durations.table, durations.tail, durations.table)
        model.check()
        return model if start == "boundary" else model._replace(first=residual(durations).table)

    @property
    def durations(self) -> Durations:
        """Laws of all behaviours of a recording but the first."""
        return Durations(self.duration, self.tail)

    @property
    def classes(self) -> int:
        """C."""
        return int(self.initial.shape[0])

    @property
    def longest(self) -> int:
        """D."""
        return int(self.duration.shape[1])

    def check(self) -> None:
        """Refuse tables that are no model.

        Raises
        ------
        ArgumentError
            If shapes do not fit, a row does not sum to 1, or a behaviour may follow itself.
        """
        xp = namespace(*self)
        if self.initial.ndim != 1 or self.classes < 2:
            raise ArgumentError("initial", f"must hold at least 2 classes, got shape {tuple(self.initial.shape)}")
        rows = self.duration.shape[-1] if self.duration.ndim == 2 else 1
        shapes = [(self.classes,), (self.classes,) * 2, (self.classes, rows), (self.classes,), (self.classes, rows)]
        for name, table, shape in zip(self._fields, self, shapes, strict=True):
            if tuple(table.shape) != shape or 0 in shape:
                raise ArgumentError(name, f"must have shape {shape}, got {tuple(table.shape)}")
        for name in ("initial", "transition", "duration", "first"):
            sums = xp.sum(xp.exp(getattr(self, name)), axis=-1)
            if not bool(xp.all(xp.abs(sums - 1.0) <= _ROUNDING)):
                raise ArgumentError(name, "must be logs of probabilities that sum to 1 in each row")
        if not bool(xp.all(self.tail < 0.0)):
            raise ArgumentError("tail", "must be logs of probabilities below 1")
        same = xp.eye(self.classes, device=array_api_compat.device(self.transition)) > 0.0
        if not bool(xp.all(xp.where(same, self.transition, -xp.inf) == -xp.inf)):
            raise ArgumentError("transition", "must have a diagonal of -inf: durations say how long a behaviour lasts")


class Smoothed(NamedTuple):
    """What a recording's windows are, given all of them.

    Attributes
    ----------
    log_marginals : (..., T, C) float
        ln P(behaviour of window t | all windows); -inf throughout if they are impossible. An absent window repeats the last
        present one.
    log_evidence : (...) float
        ln p(all windows).
    """

    log_marginals: Array
    log_evidence: Array


class Messages:
    """One step of the recursions in either direction, over floored tables.

    Parameters
    ----------
    model : Hsmm
    """

    def __init__(self, model: Hsmm) -> None:
        initial, self.transition, self.duration, self.stay, first = map(floored, model)
        self.first = initial[:, None] + first
        self.leave = log1m_exp(model.tail)
        self.xp: Any = namespace(initial)

    def forward(self, alpha: Array | None, emission: Array) -> tuple[Array, Array]:
        """The next alpha (..., C, D), its peak taken out, and that peak (...); the first where there is none yet."""
        xp = self.xp
        if alpha is None:
            ahead = self.first
        else:
            last = alpha[..., -1:]
            left = xp.concat([alpha[..., :-1], last + self.leave[:, None]], axis=-1)
            entered = log_sum_exp(left[..., :1] + self.transition, axis=-2)
            gone_on = xp.concat([left[..., 1:], last + self.stay[:, None]], axis=-1)
            ahead = xp.logaddexp(gone_on, self.duration + entered[..., None])
        return self._without_peak(ahead + emission[..., None])

    def backward(self, beta: Array, emission: Array) -> tuple[Array, Array]:
        """The beta (..., C, D) of the window before one of this emission and beta, its peak taken out, and that peak."""
        xp = self.xp
        ahead = beta + emission[..., None]
        begun = log_sum_exp(self.duration + ahead)
        left = log_sum_exp(self.transition + begun[..., None, :])[..., None]
        left = xp.concat([left, ahead[..., :-1]], axis=-1)
        last = xp.logaddexp(left[..., -1:] + self.leave[:, None], ahead[..., -1:] + self.stay[:, None])
        return self._without_peak(xp.concat([left[..., :-1], last], axis=-1))

    def end(self, emission: Array) -> Array:
        """The beta of a recording's last window."""
        shape = (*emission.shape[:-1], *self.duration.shape)
        return self.xp.broadcast_to(self.xp.zeros_like(self.duration), shape)

    def _without_peak(self, message: Array) -> tuple[Array, Array]:
        peak = constant(self.xp.max(message, axis=(-2, -1)))
        return message - peak[..., None, None], peak


def forward_backward(model: Hsmm, emissions: Array, present: Array | None = None) -> Smoothed:
    """Marginals of all windows, given all of them.

    Parameters
    ----------
    model : Hsmm
    emissions : (..., T, C) float
        ln e_t(c), up to a constant of the window, as a classifier's ln P(c | window) - ln P(c) is; -inf where a window
        excludes a behaviour. A window that was lost while time went on is all 0.
    present : (..., T) bool, optional
        Which windows there are, in a batch of recordings of different lengths: the first ones of each, at least one.

    Raises
    ------
    ArgumentError
        If shapes do not fit, emissions are NaN or +inf, or windows are absent before others.
    """
    emissions = floored_emissions(model, emissions, present)
    xp, messages = namespace(emissions), Messages(model)
    alphas: list[Array] = []
    evidence: Array = 0.0
    for t in range(emissions.shape[-2]):
        alpha, peak = messages.forward(alphas[-1] if alphas else None, emissions[..., t, :])
        alpha, peak = _where_present(xp, present, t, (alpha, peak), alphas[-1] if alphas else alpha)
        alphas.append(alpha)
        evidence = evidence + peak
    evidence = unfloored(evidence + log_sum_exp(log_sum_exp(alphas[-1])))
    beta = messages.end(emissions[..., -1, :])
    joint = [log_sum_exp(alphas.pop() + beta)]
    for t in range(emissions.shape[-2] - 1, 0, -1):
        before = messages.backward(beta, emissions[..., t, :])
        beta, _ = _where_present(xp, present, t, before, beta)
        joint.append(log_sum_exp(alphas.pop() + beta))
    return Smoothed(log_marginals(xp.stack(joint[::-1], axis=-2), evidence[..., None]), evidence)


def log_evidence(model: Hsmm, emissions: Array, present: Array | None = None) -> Array:
    """ln p(all windows), (...): that of `forward_backward` from its cheaper half, the backward one."""
    emissions = floored_emissions(model, emissions, present)
    xp, messages = namespace(emissions), Messages(model)
    beta, evidence = messages.end(emissions[..., -1, :]), 0.0
    for t in range(emissions.shape[-2] - 1, 0, -1):
        beta, peak = _where_present(xp, present, t, messages.backward(beta, emissions[..., t, :]), beta)
        evidence = evidence + peak
    begun = messages.first + beta + emissions[..., 0, :, None]
    return unfloored(evidence + log_sum_exp(log_sum_exp(begun)))


def log_joint(model: Hsmm, emissions: Array, labels: Array, present: Array | None = None) -> Array:
    """ln p(behaviours = labels, all windows), (...): -log_joint is the loss of generative training.

    Equal labels next to each other are one stay in a behaviour, the last of which may go on after the recording. Those of
    windows longer than D are in the tail.

    Parameters
    ----------
    model, emissions, present
        As for `forward_backward`.
    labels : (..., T) int64
        Behaviours; below 0 where not known, which is summed over.

    Raises
    ------
    ArgumentError
        As `forward_backward`, or if there are other labels than the model's.
    """
    return log_evidence(model, _clamped(model, emissions, labels), present)


def log_conditional(model: Hsmm, emissions: Array, labels: Array, present: Array | None = None) -> Array:
    """ln P(behaviours = labels | all windows) = log_joint - log_evidence, (...), by one pass for both.

    Parameters and Raises as for `log_joint`. Its negative is the loss of discriminative training. It is -inf where the
    windows are impossible whatever the labels.
    """
    xp = namespace(emissions, labels)
    both = xp.stack([_clamped(model, emissions, labels), floored(emissions)])
    log_both = log_evidence(model, both, None if present is None else xp.stack([present, present]))
    return log_both[0] - floored(log_both[1])


def log_marginals(joint: Array, evidence: Array) -> Array:
    """Joint logs (..., C) normalised; -inf throughout where the evidence (...) is."""
    xp = namespace(joint)
    found = unfloored(joint - log_sum_exp(joint)[..., None])
    return xp.where((evidence == -xp.inf)[..., None], -xp.inf, found)


def floored_emissions(model: Hsmm, emissions: Array, present: Array | None = None) -> Array:
    """Emissions (..., T, C) with FLOOR for -inf; what does not fit the model is refused."""
    xp = namespace(emissions)
    if emissions.ndim < 2 or emissions.shape[-1] != model.classes or 0 in emissions.shape:
        expected = f"(..., windows, {model.classes})"
        raise ArgumentError("emissions", f"must have shape {expected}, got {tuple(emissions.shape)}")
    if not bool(xp.all(emissions < xp.inf)):
        raise ArgumentError("emissions", "must be finite or -inf, got NaN or +inf")
    if present is not None:
        if tuple(present.shape) != tuple(emissions.shape[:-1]):
            raise ArgumentError("present", f"must have shape {tuple(emissions.shape[:-1])}, got {tuple(present.shape)}")
        if not bool(xp.all(present[..., 0])) or bool(xp.any(present[..., 1:] & ~present[..., :-1])):
            raise ArgumentError("present", "must be the first windows of each recording, at least one")
    return floored(emissions)


def _where_present(
    xp: Any, present: Array | None, t: int, moved: tuple[Array, Array], before: Array
) -> tuple[Array, Array]:
    """The message and the peak of a step where window t is present; as before and 0 elsewhere."""
    if present is None:
        return moved
    message, peak = moved
    there = present[..., t]
    return xp.where(there[..., None, None], message, before), xp.where(there, peak, 0.0)


def _clamped(model: Hsmm, emissions: Array, labels: Array) -> Array:
    """Emissions that exclude all behaviours but the label of a window, where it has one."""
    xp = namespace(emissions, labels)
    if tuple(labels.shape) != tuple(emissions.shape[:-1]):
        raise ArgumentError("labels", f"must have shape {tuple(emissions.shape[:-1])}, got {tuple(labels.shape)}")
    if not bool(xp.all(labels < model.classes)):
        raise ArgumentError("labels", f"must be below {model.classes}, got {int(xp.max(labels))}")
    classes = xp.arange(model.classes, device=array_api_compat.device(emissions))
    allowed = (labels[..., None] == classes) | (labels[..., None] < 0)
    return xp.where(allowed, floored(emissions), FLOOR)
