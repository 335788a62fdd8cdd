"""The sequence stage of a receiver as torch learns it: how windows of a recording follow on one another.

    training recordings ─> transmitter ─> noise ─> receiver ─> logits, codes ─> stage ─> loss
    └──────────────────── as the run left them ──────────────────────────┘     HDP, HSMM

It is learned behind a codec that is kept as it is, on what the deployed receiver makes of noise as training has it, each
recording at an Es/N0 of its own. It begins at what needs no gradient (behaviours by coordinate ascent, durations and
transitions by counts) and goes on by

    loss = -ln P(classes of a recording's windows | recording) / windows + lambda_hdp (-ELBO) / windows

whose second term holds the KL of weights, behaviours and codes. With neither part what is left is the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.errors import ArgumentError
from link.hdp import GaussianHdp, Hdp
from link.hsmm import log_conditional
from link.randomness import permutation
from link.sequence import SequenceTables, emissions, smoothed
from link.truth import UNJUDGED
from train.hdp import BehaviourModel, GaussianBehaviours, HdpTables
from train.hdp_fit import clustered, fit
from train.hsmm import HsmmTables
from train.sequence_recipe import SequenceRecipe as SequenceRecipe

_FIT_SWEEPS: Final = 30
_FIT_RECORDINGS: Final = 600
"""Recordings that behaviours start from, spread evenly: coordinate ascent looks at all of them at once."""
_SMOOTHING: Final = 0.5


class Recordings(NamedTuple):
    """What a receiver made of some recordings, padded to the longest of them.

    Attributes
    ----------
    logits : (J, T, C) float32
    codes : (J, T, N, V) or (J, T, F) float32, or None
        Probabilities of each token's codes under a flat prior, or what stands in their place without a codebook.
    labels : (J, T) int64
        UNJUDGED behind a recording's end.
    """

    logits: Tensor
    codes: Tensor | None
    labels: Tensor

    @property
    def present(self) -> Tensor:
        """Which windows there are, (J, T)."""
        return self.labels != UNJUDGED

    def rows(self, chosen: NDArray[np.int64]) -> Recordings:
        """Some of them."""
        longest = int(self.present[chosen].sum(dim=1).max())
        codes = None if self.codes is None else self.codes[chosen, :longest]
        return Recordings(self.logits[chosen, :longest], codes, self.labels[chosen, :longest])


class SequenceStage(nn.Module):
    """Parameters of the tables.

    Parameters
    ----------
    recipe : SequenceRecipe
    classes : int
        C.
    codes : (int, int) or int
        N and V of the codes of a window, or F of what stands in their place.
    """

    log_prior: Tensor

    def __init__(self, recipe: SequenceRecipe, classes: int, codes: tuple[int, int] | int) -> None:
        super().__init__()
        self.recipe = recipe
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("log_prior", torch.full((classes,), 1.0 / classes).log())
        self.hdp: BehaviourModel | None = None
        self.hsmm: HsmmTables | None = None
        if "hdp" in recipe.parts:
            gamma, alpha = recipe.gamma, recipe.alpha
            if isinstance(codes, int):
                self.hdp = GaussianBehaviours(recipe.behaviours, codes, gamma=gamma, alpha=alpha)
            else:
                tokens, size = codes
                self.hdp = HdpTables(
                    recipe.behaviours, tokens, size, gamma=gamma, alpha=alpha, eta=recipe.eta, marginal=True
                )
            self.class_logits = nn.Parameter(torch.zeros(recipe.behaviours, classes))
            self.log_share = nn.Parameter(torch.tensor(0.1).log())
        if "hsmm" in recipe.parts:
            self.hsmm = HsmmTables(classes, recipe.longest, recipe.durations, recipe.begins)

    def tables(self) -> SequenceTables:
        """The tables, through which gradients pass."""
        hdp = None if self.hdp is None else self.hdp.tables()
        return SequenceTables(
            self.log_scale.exp(),
            self.log_prior,
            hdp,
            None if hdp is None else self.class_logits.log_softmax(dim=-1),
            None if hdp is None else self.log_share.exp(),
            None if self.hsmm is None else self.hsmm.tables(),
        )

    @torch.no_grad()
    def arrays(self) -> SequenceTables:
        """The tables as NumPy arrays, as a bundle has them."""
        tables = self.tables()
        hdp = None if tables.hdp is None else _as_arrays(tables.hdp)
        return SequenceTables(
            tables.scale.numpy(),
            tables.log_prior.numpy(),
            hdp,
            None if tables.log_classes is None else tables.log_classes.numpy(),
            None if tables.share is None else tables.share.numpy(),
            None if self.hsmm is None else self.hsmm.arrays(),
        )

    def loss(self, recordings: Recordings, share: float = 1.0) -> Tensor:
        """Of some recordings, nats a window.

        Parameters
        ----------
        share : float
            Of all recordings, how large a part these are: so much of the corpus's KLs is theirs.
        """
        tables, present = self.tables(), recordings.present
        windows = present.sum()
        if tables.hsmm is None:
            log_p = smoothed(tables, recordings.logits, recordings.codes, present)
            right = log_p.gather(-1, recordings.labels.clamp_min(0)[..., None])[..., 0]
            total = -(right * present).sum()
        else:
            said = emissions(tables, recordings.logits, recordings.codes, present)
            total = -log_conditional(tables.hsmm, said, recordings.labels, present).sum()
        if self.hdp is not None and recordings.codes is not None and self.recipe.lambda_hdp:
            elbo = self.hdp.elbo_terms(recordings.codes, present, share=share).elbo
            total = total - self.recipe.lambda_hdp * elbo
        mean: Tensor = total / windows
        return mean

    @torch.no_grad()
    def start(self, recordings: Recordings, seed: int) -> None:
        """Set all that needs no gradient, from recordings whose codes are certain."""
        present, labels = recordings.present, recordings.labels
        classes = len(self.log_prior)
        counts = torch.bincount(labels[present], minlength=classes).double() + _SMOOTHING
        self.log_prior.copy_((counts / counts.sum()).log())
        if self.hsmm is not None:
            self.hsmm.fit([row[there].numpy() for row, there in zip(labels, present, strict=True)])
        if self.hdp is not None:
            if recordings.codes is None:
                raise ArgumentError("codes", "must be given where there is an HDP")
            spread = np.arange(0, len(labels), -(-len(labels) // _FIT_RECORDINGS))
            some = recordings.rows(spread)
            assert some.codes is not None
            codes = some.codes.argmax(dim=-1) if some.codes.ndim == 4 else some.codes
            present, labels = some.present, some.labels
            self.hdp.double()
            found = fit(
                self.hdp,
                codes if codes.dtype == torch.int64 else codes.double(),
                _clusters(codes, present, self.recipe.behaviours, seed),
                present=present,
                sweeps=_FIT_SWEEPS,
            )
            self.hdp.float()
            weights = found.behaviours.responsibilities[present]
            known = torch.nn.functional.one_hot(labels[present], classes).to(weights.dtype)
            self.class_logits.copy_((weights.T @ known + _SMOOTHING).log())


def _clusters(codes: Tensor, present: Tensor, behaviours: int, seed: int) -> Tensor:
    """Responsibilities to start from, (J, T, K): where there are fewer windows than behaviours, the last have none."""
    most = min(behaviours, int(present.sum()))
    return torch.nn.functional.pad(clustered(codes, most, present=present, seed=seed), (0, behaviours - most))


def _as_arrays(tables: Hdp | GaussianHdp) -> Hdp | GaussianHdp:
    if isinstance(tables, Hdp):
        return Hdp(tables.log_codes.numpy(), tables.weights.numpy(), tables.alpha, tables.marginal)
    return GaussianHdp(tables.means.numpy(), tables.variances.numpy(), tables.weights.numpy(), tables.alpha)


def learn_stage(
    stage: SequenceStage,
    certain: Recordings,
    received: Callable[[int], Recordings],
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Start a stage, and move it by gradient.

    Parameters
    ----------
    certain : Recordings
        The training recordings without noise.
    received : callable
        The same with the noise of an epoch, by its number from 1.
    on_epoch : callable
        Told of each epoch and its mean loss, nats a window.
    """
    stage.start(certain, seed)
    recipe, count = stage.recipe, len(certain.labels)
    optimizer = torch.optim.Adam(stage.parameters(), lr=recipe.stage_learning_rate)
    for epoch in range(1, recipe.stage_epochs + 1):
        recordings = received(epoch)
        total = 0.0
        for chosen in _batches(permutation(seed, count, epoch), recipe.batch_recordings):
            loss = stage.loss(recordings.rows(chosen), len(chosen) / count)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
        on_epoch(epoch, total / count)


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(order), size):
        yield order[first : first + size]


def padded(values: Tensor, sequence: NDArray[np.int64], longest: int, fill: float = 0.0) -> Tensor:
    """Rows (n, ...) as recordings (J, T, ...): those of one number, cut into pieces of at most `longest`.

    Examples
    --------
    >>> padded(torch.tensor([1, 2, 3, 4]), np.array([0, 0, 0, 5]), 2, fill=-1).tolist()
    [[1, 2], [3, -1], [4, -1]]
    """
    row, place = places(sequence, longest)
    made = values.new_full((int(row[-1]) + 1, int(place.max()) + 1, *values.shape[1:]), fill)
    made[torch.from_numpy(row), torch.from_numpy(place)] = values
    return made


def places(sequence: NDArray[np.int64], longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Recording and window of each row, (n,) both: see `padded`."""
    starts = np.flatnonzero(np.concatenate([[True], sequence[1:] != sequence[:-1]]))
    lengths = np.diff(np.append(starts, len(sequence)))
    since = np.arange(len(sequence)) - np.repeat(starts, lengths)
    place = since % longest
    return np.cumsum(place == 0) - 1, place
