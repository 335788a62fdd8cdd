"""Behaviours from data: where learning starts, and coordinate ascent to the end.

Gradients cannot part behaviours that are alike, and one that has lost all of its windows is not found again; so learning
starts from responsibilities, by k-means over the windows or by labels, and has all behaviours there are from the first step.

Coordinate ascent takes each factor of the mean field to its optimum in turn, and no update lowers the ELBO:

    q(z), q(pi)   link.hdp.ascend, from where the last sweep left it
    q(phi)        in closed form
    q(v)          by L-BFGS: beta stands in the concentrations of q(pi), so that no Beta is conjugate; q(pi) goes along

K-means of K clusters splits what is one behaviour into many, and coordinate ascent alone does not join them again. So where
it has come to rest, the two behaviours whose union gains most are joined (merges of Bryant & Sudderth 2012; for given
responsibilities the gain is known in closed form, pair by pair), until none gains; then a behaviour that the others explain
as well is dropped, and the most common are put first.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from link.errors import ArgumentError
from link.hdp import Behaviours, ascend, blank, expected_log
from link.truth import UNJUDGED
from train.hdp import BehaviourModel, log_beta

_EMPTY: Final = 1e-3  # windows, below which a behaviour has none
_STICK_STEPS: Final = 10  # of L-BFGS in an update; the next sweep goes on
_TRIAL_SWEEPS: Final = 5  # before it is judged whether a behaviour can be done without


class Fit(NamedTuple):
    """How a fit went.

    Attributes
    ----------
    elbo : (sweeps, 3) float64
        ELBO after each update of recordings, emissions and sticks, nats; behaviours are joined and dropped between sweeps.
    behaviours : Behaviours
        Of the recordings, at the end; responsibilities are 0 where a window is missing.
    """

    elbo: NDArray[np.float64]
    behaviours: Behaviours


def clustered(windows: Tensor, behaviours: int, *, present: Tensor | None = None, seed: int = 0) -> Tensor:
    """Responsibilities by k-means over windows, (J, T, K) of 0 and 1.

    A window's point is its codes plus the mean of its recording's: windows of few codes say little alone, and what a
    recording has often belongs together.

    Parameters
    ----------
    windows : (J, T, N, V) or (J, T, F) float, or (J, T, N) int64
        Indices are told apart, not compared: any two codes are as far from each other as any other two.
    behaviours : int
        K.
    present : (J, T) bool, optional
    seed : int

    Raises
    ------
    ArgumentError
        If there are fewer windows than behaviours.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    there = torch.ones(windows.shape[:2], dtype=torch.bool) if present is None else present.cpu()
    values = windows.detach().cpu()
    if not values.is_floating_point():
        values = functional.one_hot(blank(values, there), int(values.max()) + 1).float()
    values = blank(values.flatten(2), there)
    means = values.sum(dim=1, keepdim=True) / there.sum(dim=1).clamp_min(1)[:, None, None]
    points = (values + means)[there].numpy()
    if len(points) < behaviours:
        raise ArgumentError("behaviours", f"must be at most the {len(points)} windows to start from, got {behaviours}")
    # From three threads on, they add their sums in the order in which they finish.
    with threadpool_limits(1):
        clusters = KMeans(behaviours, n_init=4, random_state=seed % 2**32).fit(points)
    labels = torch.full(there.shape, UNJUDGED)
    labels[there] = torch.from_numpy(clusters.labels_).long()
    return labelled(labels.to(windows.device), behaviours)


def labelled(labels: Tensor, behaviours: int) -> Tensor:
    """Responsibilities by labels: class c is behaviour c, and a window without label (UNJUDGED) is shared by all.

    Parameters
    ----------
    labels : (J, T) int64
    behaviours : int
        K.

    Raises
    ------
    ArgumentError
        If there are more classes than behaviours.
    """
    if int(labels.max()) >= behaviours:
        raise ArgumentError("behaviours", f"must be at least the {int(labels.max()) + 1} classes, got {behaviours}")
    known = functional.one_hot(labels.clamp_min(0), behaviours).double()
    return torch.where((labels == UNJUDGED)[..., None], 1.0 / behaviours, known)


@torch.no_grad()
def start(model: BehaviourModel, windows: Tensor, responsibilities: Tensor, *, present: Tensor | None = None) -> None:
    """Set emissions and sticks to their optimum under (J, T, K) responsibilities, the most common behaviours first."""
    _Corpus(model, windows, responsibilities, present)


@torch.no_grad()
def fit(
    model: BehaviourModel,
    windows: Tensor,
    responsibilities: Tensor,
    *,
    present: Tensor | None = None,
    sweeps: int = 200,
    tolerance: float = 1e-7,
    merge: bool = True,
) -> Fit:
    """Coordinate ascent on the ELBO of a whole corpus; the model is left at its end.

    Parameters
    ----------
    model : BehaviourModel
        Best in float64: in float32 an ELBO of a million nats moves by less than its rounding.
    windows : (J, T, N, V) or (J, T, F) float, or (J, T, N) int64
        J recordings, padded to T windows.
    responsibilities : (J, T, K) float
        Where to start: `clustered` or `labelled`.
    present : (J, T) bool, optional
    sweeps : int
        At most, from 1.
    tolerance : float
        Gain of a sweep below which it has come to rest, as a share of the ELBO.
    merge : bool
        Whether behaviours are joined and dropped.

    Raises
    ------
    ArgumentError
        If shapes do not fit, or `sweeps` is below 1.
    """
    if sweeps < 1:
        raise ArgumentError("sweeps", f"must be at least 1, got {sweeps}")
    corpus = _Corpus(model, windows, responsibilities, present)
    elbo: list[tuple[float, float, float]] = []
    for _ in range(sweeps):
        elbo.append((corpus.update_recordings(), corpus.update_emissions(), corpus.update_sticks()))
        at_rest = len(elbo) > 1 and elbo[-1][-1] - elbo[-2][-1] < tolerance * abs(elbo[-1][-1])
        moved = at_rest and merge and (corpus.join(tolerance) or corpus.drop(tolerance))
        if at_rest and not (moved or corpus.order(tolerance)):
            break
    return Fit(np.array(elbo), corpus.found)


class _Corpus:
    """A model, the recordings that it is fitted to, and what their windows are held to be."""

    def __init__(
        self, model: BehaviourModel, windows: Tensor, responsibilities: Tensor, present: Tensor | None
    ) -> None:
        expected = (*windows.shape[:2], model.behaviours)
        if tuple(responsibilities.shape) != expected:
            raise ArgumentError("responsibilities", f"must have shape {expected}, got {tuple(responsibilities.shape)}")
        self.model = model
        self.present = present
        self.windows = blank(windows, present)
        dtype = model.log_sticks.dtype
        counted: Tensor = blank(responsibilities.to(dtype), present)
        self.counted = _by_size(counted)
        self._settle()

    def update_recordings(self) -> float:
        found = ascend(self.log_likelihood, self.prior, self.present, start=self.concentrations, iterations=1)
        self.counted = blank(found.responsibilities, self.present)
        return self._elbo()

    def update_emissions(self) -> float:
        self.model.absorb(self.model.statistics(self.windows, self.counted))
        self.log_likelihood: Tensor = self.model.tables().log_likelihood(self.windows)
        return self._elbo()

    def update_sticks(self) -> float:
        """L-BFGS over the logs of both parameters of each q(v), q(pi) at its optimum throughout."""
        sticks, totals = self.model.log_sticks, self.counted.sum(dim=-2)

        def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            sticks.data.copy_(torch.from_numpy(values).reshape(sticks.shape))
            with torch.enable_grad():
                concentrations = self.model.alpha * self.model.weights() + totals
                bound = (log_beta(concentrations) + self.model.log_normaliser()).sum() - self.model.kl_sticks()
                (gradient,) = torch.autograd.grad(-bound, sticks)
            return -float(bound), gradient.double().cpu().numpy().ravel()

        before = sticks.detach().double().cpu().numpy().ravel()
        best = minimize(loss, before, jac=True, method="L-BFGS-B", options={"maxiter": _STICK_STEPS})
        loss(best.x if best.fun <= loss(before)[0] else before)
        return self._elbo()

    def join(self, tolerance: float) -> bool:
        """Join the pair of behaviours whose union gains most, while any gains."""
        joined = False
        while float((gains := merge_gains(self.model, self.windows, self.counted)).max()) > tolerance * abs(
            self._elbo()
        ):
            kept, emptied = divmod(int(gains.argmax()), self.model.behaviours)
            counted = self.counted.clone()
            counted[..., kept] += counted[..., emptied]
            counted[..., emptied] = 0.0
            if not self._attempt(counted, tolerance):
                break
            joined = True
        return joined

    def drop(self, tolerance: float) -> bool:
        """Give the windows of a behaviour to the others, the smallest that gains by it."""
        sizes = self.counted.sum(dim=(0, 1))
        used = [k for k in torch.argsort(sizes).tolist() if float(sizes[k]) > _EMPTY]
        for emptied in used if len(used) > 1 else []:
            out = torch.ones_like(sizes, dtype=torch.bool).index_fill(0, torch.tensor(used, device=sizes.device), False)
            out[emptied] = True
            evidence = self.log_likelihood + expected_log(self.concentrations)[..., None, :]
            counted = evidence.masked_fill(out, -torch.inf).softmax(dim=-1)
            if self._attempt(blank(counted, self.present), tolerance, _TRIAL_SWEEPS):
                return True
        return False

    def order(self, tolerance: float) -> bool:
        """Put the most common behaviours first, where sticks expect them."""
        return self._attempt(_by_size(self.counted), tolerance)

    @property
    def prior(self) -> Tensor:
        return self.model.alpha * self.model.weights()

    @property
    def concentrations(self) -> Tensor:
        return self.prior + self.counted.sum(dim=-2)

    @property
    def found(self) -> Behaviours:
        return Behaviours(self.counted, self.concentrations)

    def _settle(self) -> float:
        self.update_emissions()
        return self.update_sticks()

    def _attempt(self, counted: Tensor, tolerance: float, sweeps: int = 0) -> bool:
        """Go on from other responsibilities if the ELBO is higher there, by more than a share `tolerance`; or else stay."""
        before = self._elbo()
        kept, parameters = self.counted, {name: value.clone() for name, value in self.model.state_dict().items()}
        self.counted = counted
        elbo = self._settle()
        for _ in range(sweeps):
            self.update_recordings()
            elbo = self._settle()
        if elbo > before + tolerance * abs(before):
            return True
        self.counted = kept
        self.model.load_state_dict(parameters)
        self.log_likelihood = self.model.tables().log_likelihood(self.windows)
        return False

    def _elbo(self) -> float:
        return float(self.model.terms(self.log_likelihood, self.counted, self.found).elbo)


def merge_gains(model: BehaviourModel, windows: Tensor, counted: Tensor) -> Tensor:
    """What the ELBO gains where behaviour k takes over the windows of l, each emission at its optimum, sticks as they are.

    Exact for hard codes and embeddings; of soft codes that are summed out, as if q(c | z) were to stay.

    Parameters
    ----------
    model : BehaviourModel
    windows : (J, T, ...) Tensor
    counted : (J, T, K) Tensor
        Responsibilities, 0 where a window is missing.

    Returns
    -------
    (K, K) Tensor
        Row k, column l; -inf for k = l and for behaviours without windows.
    """
    r, totals, prior = counted.flatten(0, 1), counted.sum(dim=-2), model.alpha * model.weights()
    statistics = model.statistics(windows, counted)
    negative_entropy = torch.xlogy(r, r).sum(dim=0)
    alone = model.evidence(statistics) - negative_entropy + (prior + totals).lgamma().sum(dim=0)
    emptied = model.evidence(torch.zeros_like(statistics[:1])) + len(totals) * prior.lgamma()
    unions = []
    for k in range(model.behaviours):
        together = r + r[:, k, None]
        weight = (prior[k] + totals[:, k, None] + totals).lgamma().sum(dim=0)
        unions.append(
            model.evidence(statistics + statistics[k]) - torch.xlogy(together, together).sum(dim=0) + weight + emptied
        )
    unused = totals.sum(dim=0) <= _EMPTY
    same = torch.eye(model.behaviours, dtype=torch.bool, device=r.device)
    return (torch.stack(unions) - alone - alone[:, None]).masked_fill(unused | unused[:, None] | same, -torch.inf)


def _by_size(counted: Tensor) -> Tensor:
    """(J, T, K) responsibilities, the largest behaviour first, where sticks expect it."""
    return counted[..., torch.argsort(counted.sum(dim=(0, 1)), descending=True, stable=True)]
