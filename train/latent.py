"""What a run does with its bottleneck: what it draws, what that adds to the loss, and what an epoch says of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from link.errors import RecipeError
from link.randomness import Draws
from train.bottleneck import (
    VALIDATION,
    Latent,
    LatentNoise,
    Posterior,
    free_bits,
    lack_of_diversity,
    latent_normals,
    orthogonality,
    reduced,
    rule_divergence,
)
from train.evaluate import chunks, side_tensors, tensors
from train.losses import task_loss
from train.questions import asked
from train.recipe import Recipe
from train.tasks import Split, Task
from train.transceiver import Transceiver
from train.variational import BottleneckRecipe, LatentWeights


class Drawn(NamedTuple):
    """What the validation set says of a bottleneck: its raw KL, as the recipe counts, and the loss of drawn tokens, nats."""

    kl_raw: float
    task: float


class RulesTask(Protocol):
    """A task with rules.

    Attributes
    ----------
    rules : (C, C) float
        By right answer, what the rules say of each answer: rows sum to 1.
    """

    @property
    def rules(self) -> NDArray[np.float64]: ...


class LatentTerms(NamedTuple):
    """The unweighted terms of the bottleneck in a step.

    Attributes
    ----------
    kl : Tensor
        Raw, as `kl_reduction` counts, mean over tokens.
    kl_after : Tensor
        What is left of it behind the free bits: the term of the loss.
    orthogonality, diversity : Tensor
    teacher : Tensor
        0 before there is one.
    """

    kl: Tensor
    kl_after: Tensor
    orthogonality: Tensor
    diversity: Tensor
    teacher: Tensor

    def weighted(self, weights: LatentWeights) -> dict[str, Tensor]:
        """What each term adds to the loss."""
        return {
            "latent_kl": weights.kl * self.kl_after,
            "latent_orthogonality": weights.orthogonality * self.orthogonality,
            "latent_diversity": weights.diversity * self.diversity,
            "latent_teacher": weights.teacher * self.teacher,
        }


class BottleneckRecord(BaseModel):
    """What an epoch says of its bottleneck.

    Attributes
    ----------
    kl_raw, kl_after : float
        Training's, as the recipe counts (a dimension of a mean, a token of a sum), before and behind the free bits.
    kl_nats, free_nats : float
        The first, and the free bits, in nats a token.
    penalty_reduction : float
        Share of the raw KL that was free: 1 - kl_after / kl_raw.
    kl_weight, teacher_weight : float
        In the epoch's last step.
    orthogonality, diversity, teacher : float
        Unweighted.
    validation_kl_raw : float
        On the validation set.
    validation_task_drawn : float
        Loss of the answers there to tokens drawn at validation_temperature, quantised, without a channel: nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    kl_raw: float
    kl_after: float
    kl_nats: float
    free_nats: float
    penalty_reduction: float
    kl_weight: float
    teacher_weight: float
    orthogonality: float
    diversity: float
    teacher: float
    validation_kl_raw: float
    validation_task_drawn: float

    def text(self) -> str:
        """A line for the screen."""
        return (
            f"  Latent: KL={self.kl_raw:.4f} ({self.kl_nats:.2f} nats a token, {self.free_nats:.2f} free) "
            f"after free bits={self.kl_after:.4f} (-{self.penalty_reduction:.0%}) val={self.validation_kl_raw:.4f} "
            f"weight={self.kl_weight:.2f} | ortho={self.orthogonality:.4f} diversity={self.diversity:.4f} "
            f"teacher={self.teacher:.4f} (weight {self.teacher_weight:g}) | drawn task={self.validation_task_drawn:.4f}"
        )


class VariationalTraining:
    """The bottleneck of a run: what it draws, and what it adds to the loss.

    Parameters
    ----------
    recipe : BottleneckRecipe
        Enabled.
    task : Task
    dim : int
        D.
    epoch_steps : int
        Steps of an epoch.

    Raises
    ------
    RecipeError
        If a teacher is asked for, and the task has no rules.
    """

    def __init__(self, recipe: BottleneckRecipe, task: object, dim: int, epoch_steps: int) -> None:
        self.recipe = recipe
        self._free = recipe.free(dim)
        self._dim = dim
        self._epoch_steps = epoch_steps
        self._rules: Tensor | None = None
        if recipe.teacher_weight:
            if not hasattr(task, "rules"):
                raise RecipeError("bottleneck.teacher_weight must be 0: this task has no rules to teach")
            self._rules = torch.from_numpy(cast(RulesTask, task).rules.astype(np.float32))
        self._sums: dict[str, float] = {}
        self._rows = 0
        self._weights = LatentWeights(0.0, 0.0, 0.0, 0.0)

    def draw(self, posterior: Posterior, noise: LatentNoise) -> Latent:
        """The tokens of a batch."""
        return Latent(posterior, posterior.draw(noise.normals, self.recipe.temperature), noise.lost)

    def terms(self, latent: Latent, logits: Tensor, labels: Tensor, step: int) -> LatentTerms:
        """The terms of a batch whose answers are (B, C) logits."""
        weights = self.recipe.weights_at(step, self._epoch_steps)
        raw, after = free_bits(reduced(latent.posterior.kl(), self.recipe.kl_reduction), self._free)
        teacher = torch.zeros((), device=logits.device)
        if weights.teacher and self._rules is not None:
            teacher = rule_divergence(logits, self._rules.to(logits.device)[labels])
        return LatentTerms(raw, after, orthogonality(latent.drawn), lack_of_diversity(latent.drawn), teacher)

    def add(self, terms: LatentTerms, step: int, rows: int) -> Tensor:
        """What a step adds to the loss; it is kept for the epoch's record."""
        self._weights = self.recipe.weights_at(step, self._epoch_steps)
        weighted = terms.weighted(self._weights)
        for name, value in (*terms._asdict().items(), *weighted.items()):
            self._sums[name] = self._sums.get(name, 0.0) + rows * float(value.detach())
        self._rows += rows
        return torch.stack(list(weighted.values())).sum()

    def shares(self) -> dict[str, float]:
        """What each weighted term added to the loss since the last record, mean over rows."""
        return {name: self._sums[name] / self._rows for name in self._sums if name.startswith("latent_")}

    def record(self, validation: Drawn) -> BottleneckRecord:
        """The epoch's record; the next one begins anew."""
        mean = {name: value / self._rows for name, value in self._sums.items()}
        self._sums, self._rows = {}, 0
        return BottleneckRecord(
            kl_raw=mean["kl"],
            kl_after=mean["kl_after"],
            kl_nats=self.recipe.nats_a_token(mean["kl"], self._dim),
            free_nats=self.recipe.nats_a_token(self._free, self._dim),
            penalty_reduction=1.0 - mean["kl_after"] / mean["kl"] if mean["kl"] else 0.0,
            kl_weight=self._weights.kl,
            teacher_weight=self._weights.teacher,
            orthogonality=mean["orthogonality"],
            diversity=mean["diversity"],
            teacher=mean["teacher"],
            validation_kl_raw=validation.kl_raw,
            validation_task_drawn=validation.task,
        )


@torch.no_grad()
def drawn_on(model: Transceiver, task: Task, split: Split, recipe: Recipe, epoch: int, *, linked: bool) -> Drawn:
    """KL and loss of a split whose tokens are drawn at validation_temperature, and quantised where `linked`."""
    model.eval()
    assert model.bottleneck is not None
    settings = recipe.bottleneck
    raw = loss = 0.0
    for rows, part in chunks(split):
        features = model.encoder(*(tensor[:].to(model.device) for tensor in tensors(task, part)))
        posterior: Posterior = model.bottleneck(features)
        tokens, dim = posterior.mean.shape[1:]
        draws = Draws(recipe.seed, np.arange(rows.start, rows.stop), epoch)
        normals = torch.from_numpy(latent_normals(draws, VALIDATION, tokens, dim)).to(model.device)
        sent = model.quantizer.tokens(posterior.draw(normals, settings.validation_temperature))
        if linked:
            sent = model.quantizer.codewords_of(model.quantizer.hard(sent))
        labels = torch.from_numpy(part.labels).to(model.device)
        side = [values.to(model.device) for values in side_tensors(task, part)]
        logits = asked(model.head, model.head(sent, *side), labels)
        raw += len(part) * float(reduced(posterior.kl(), settings.kl_reduction).mean())
        loss += len(part) * float(task_loss(logits, labels))
    return Drawn(raw / len(split), loss / len(split))
