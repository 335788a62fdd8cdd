"""The learned tables of the hidden semi-Markov model: where they start, and what moves them afterwards.

They start at the behaviours of labelled recordings, whose most likely tables need no emissions: P(behaviours) is a product
of three parts that share nothing.

    initial, transition   counts, and `smoothing` more in each row, spread evenly
    durations             maximum of the likelihood of all stays, under the law as the receiver uses it

A stay that the end of a recording cuts off after n windows counts as P(d >= n), and with a start in the `middle` the first
one of a recording by what is left of a duration. A class whose stays are all cut off has infinity for its likeliest mean,
so durations have a prior worth `smoothing` stays. Of a negative binomial: log (mean - 1) and log shape are normal with
deviation 1, about the mean of all stays and about 1, which is geometric. Of a categorical: the negative binomial so fitted.

Afterwards -log_conditional or -log_joint of `link.hsmm` may move tables, and emissions with them, by gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from link.durations import Durations, categorical, negative_binomial, residual
from link.errors import ArgumentError
from link.hsmm import Hsmm, Start
from link.viterbi import segments

Law: TypeAlias = Literal["negative-binomial", "categorical"]

_ITERATIONS = 200


class Stays(NamedTuple):
    """How often a class lasted 1, ..., N windows, (C, N) float64 each, by what is known of the stay.

    Attributes
    ----------
    inner : Tensor
        Begun and ended within a recording.
    last : Tensor
        Begun within it, cut off by its end.
    first : Tensor
        The first of a recording, ended within it.
    whole : Tensor
        First and last: a recording of one behaviour.
    """

    inner: Tensor
    last: Tensor
    first: Tensor
    whole: Tensor

    def log_likelihood(self, durations: Durations, start: Start) -> Tensor:
        """ln P(all stays), a scalar."""
        longest = self.inner.shape[1]
        begun = residual(durations) if start == "middle" else durations
        total: Tensor = (
            (self.inner * durations.log_exactly(longest)).sum()
            + (self.last * durations.log_at_least(longest)).sum()
            + (self.first * begun.log_exactly(longest)).sum()
            + (self.whole * begun.log_at_least(longest)).sum()
        )
        return total


class HsmmTables(nn.Module):
    """Parameters of the tables.

    Parameters
    ----------
    classes : int
        C.
    longest : int
        D, windows that a table of durations tells apart; what lasts longer is in its tail.
    durations : str
        `negative-binomial`, of two parameters a class, or `categorical`, of D + 1.
    start : str
        Whether recordings begin at a `boundary` of a behaviour or in the `middle` of one.

    Raises
    ------
    ArgumentError
        If there are fewer than 2 classes or no durations, or law or start are none of these.
    """

    def __init__(
        self, classes: int, longest: int, durations: Law = "negative-binomial", start: Start = "boundary"
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ArgumentError("classes", f"must be at least 2, got {classes}")
        if longest < 1:
            raise ArgumentError("longest", f"must be at least 1, got {longest}")
        if durations not in ("negative-binomial", "categorical"):
            raise ArgumentError("durations", f"must be negative-binomial or categorical, got {durations}")
        if start not in ("boundary", "middle"):
            raise ArgumentError("start", f"must be boundary or middle, got {start}")
        self.classes, self.longest, self.start = classes, longest, start
        self.initial = nn.Parameter(torch.zeros(classes))
        self.transition = nn.Parameter(torch.zeros(classes, classes))
        self.laws = (
            NegativeBinomial(classes, longest) if durations == "negative-binomial" else Categorical(classes, longest)
        )

    def tables(self) -> Hsmm:
        """The tables, normalised, through which gradients pass."""
        same = torch.eye(self.classes, dtype=torch.bool, device=self.transition.device)
        transition = self.transition.masked_fill(same, -torch.inf).log_softmax(dim=-1)
        return Hsmm.of(self.initial.log_softmax(dim=-1), transition, self.laws(), self.start)

    @torch.no_grad()
    def arrays(self) -> Hsmm:
        """The tables as NumPy arrays in float64: those of a bundle."""
        return Hsmm(*(table.double().cpu().numpy() for table in self.tables()))

    def fit(self, recordings: Sequence[ArrayLike], smoothing: float = 1.0) -> HsmmTables:
        """Set all parameters to those of labelled recordings.

        Parameters
        ----------
        recordings : sequence of (T_j,) int
            Labels of each recording's windows.
        smoothing : float
            Worth of the prior in stays, > 0.

        Raises
        ------
        ArgumentError
            If there is no recording, one is empty or has other labels than the classes', or smoothing is not above 0.
        """
        if not 0.0 < smoothing < np.inf:
            raise ArgumentError("smoothing", f"must be finite and above 0, got {smoothing:g}")
        paths = [_labels(recording, self.classes) for recording in recordings]
        if not paths:
            raise ArgumentError("recordings", "must hold at least one recording")
        initial, transition = _counts(paths, self.classes)
        with torch.no_grad():
            self.initial.copy_(torch.log(initial + smoothing / self.classes))
            self.transition.copy_(torch.log(transition + smoothing / (self.classes - 1)))
        self.laws.fit(_stays(paths, self.classes), self.start, smoothing)
        return self


class NegativeBinomial(nn.Module):
    """Logs of mean - 1 and of shape, a class; geometric laws of mean 1 + D / 2 to begin with."""

    def __init__(self, classes: int, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.log_excess = nn.Parameter(torch.full((classes,), longest / 2.0).log())
        self.log_shape = nn.Parameter(torch.zeros(classes))

    def forward(self) -> Durations:
        return negative_binomial(1.0 + self.log_excess.exp(), self.log_shape.exp(), self.longest)

    def fit(self, stays: Stays, start: Start, smoothing: float) -> None:
        """Move to the most likely parameters, given the prior."""
        fitted = _fitted_negative_binomial(stays, start, smoothing, self.longest)
        with torch.no_grad():
            self.log_excess.copy_(fitted[0])
            self.log_shape.copy_(fitted[1])


class Categorical(nn.Module):
    """Logits of D durations and of the tail, a class; uniform and 1/2 to begin with."""

    def __init__(self, classes: int, longest: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes, longest))
        self.tail = nn.Parameter(torch.zeros(classes))

    def forward(self) -> Durations:
        return categorical(self.logits, functional.logsigmoid(self.tail))

    def fit(self, stays: Stays, start: Start, smoothing: float) -> None:
        """Move to the most likely parameters, given the prior."""
        excess, shape = _fitted_negative_binomial(stays, start, smoothing, self.logits.shape[1])
        prior = negative_binomial(1.0 + excess.exp(), shape.exp(), self.logits.shape[1])
        logits, tail = prior.table.clone(), torch.logit(prior.tail.exp())
        weights, beyond = prior.table.exp(), tail.exp()

        def loss() -> Tensor:
            law = categorical(logits, functional.logsigmoid(tail))
            # Mean ln P of a stay of the prior. One in the tail is D + k windows, k = s / (1 - s) on average.
            going_on = beyond * functional.logsigmoid(tail) + functional.logsigmoid(-tail)
            expected = (weights * law.table).sum() + (weights[:, -1] * going_on).sum()
            value: Tensor = -stays.log_likelihood(law, start) - smoothing * expected
            return value

        _minimise(loss, logits, tail)
        with torch.no_grad():
            self.logits.copy_(logits)
            self.tail.copy_(tail)


def _fitted_negative_binomial(stays: Stays, start: Start, smoothing: float, longest: int) -> tuple[Tensor, Tensor]:
    """Logs of mean - 1 and of shape, (C,) float64, of the greatest posterior."""
    windows = float((sum(stays) * torch.arange(1, stays.inner.shape[1] + 1)).sum())
    ended = float((stays.inner + stays.first).sum())
    # Ends a window are 1 / mean; one more end, so that recordings of one behaviour have a mean too.
    centre = np.log(max(windows / (ended + 1.0) - 1.0, 0.5))
    log_excess = torch.full((len(stays.inner),), centre, dtype=torch.float64)
    log_shape = torch.zeros_like(log_excess)

    def loss() -> Tensor:
        law = negative_binomial(1.0 + log_excess.exp(), log_shape.exp(), longest)
        prior = 0.5 * ((log_excess - centre).square() + log_shape.square()).sum()
        value: Tensor = smoothing * prior - stays.log_likelihood(law, start)
        return value

    _minimise(loss, log_excess, log_shape)
    return log_excess.detach(), log_shape.detach()


def _minimise(loss: Callable[[], Tensor], *parameters: Tensor) -> None:
    """Minimise by L-BFGS, in place."""
    optimiser = torch.optim.LBFGS(
        [parameter.requires_grad_() for parameter in parameters],
        max_iter=_ITERATIONS,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def _labels(recording: ArrayLike, classes: int) -> NDArray[np.int64]:
    labels = np.asarray(recording)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise ArgumentError("recordings", f"must be integers, one a window, got {labels.dtype} of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ArgumentError("recordings", f"must hold labels below {classes}, got {labels.min()} to {labels.max()}")
    return labels.astype(np.int64)


def _counts(paths: list[NDArray[np.int64]], classes: int) -> tuple[Tensor, Tensor]:
    """How often recordings begin with a class, (C,), and one follows another, (C, C); itself too, which tables mask."""
    initial, transition = np.zeros(classes), np.zeros((classes, classes))
    for path in paths:
        initial[path[0]] += 1.0
        np.add.at(transition, (path[:-1], path[1:]), 1.0)
    return torch.from_numpy(initial), torch.from_numpy(transition)


def _stays(paths: list[NDArray[np.int64]], classes: int) -> Stays:
    counts = np.zeros((4, classes, max(len(path) for path in paths)))
    for path in paths:
        stays = segments(path)
        for number, stay in enumerate(stays):
            kind = 2 * (number == 0) + (number == len(stays) - 1)
            counts[kind, stay.label, stay.duration - 1] += 1.0
    return Stays(*torch.from_numpy(counts))
