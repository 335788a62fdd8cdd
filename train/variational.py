"""The section [bottleneck] of a recipe: a variational bottleneck between encoder and quantiser, and when its terms act.

    encoder ─> features ─┬─> mean ──────────────────┬─> tokens ─> quantiser ─> bits ─> link
                         └─> log variance ─> noise ─┘ in training; what is deployed is the mean

`train.bottleneck` computes it. Its terms act from the first epoch on, those without a link included.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from train.section import Epochs, Fraction, Positive, Section, Weight

FREE_NATS_A_DIMENSION = 0.1
"""What a dimension may carry at no cost where a recipe does not say."""


class LatentWeights(NamedTuple):
    """What each term of the bottleneck weighs in a step."""

    kl: float
    orthogonality: float
    diversity: float
    teacher: float


class BottleneckRecipe(Section):
    """A token is drawn from N(mean, variance), both the encoder's, against a prior N(0, 1) in each of its D dimensions.

    Attributes
    ----------
    temperature, validation_temperature : float
        What the standard deviation is multiplied by where a token is drawn: in training, and for the loss of drawn tokens on
        the validation set, which is recorded and decides nothing. Accuracies are of the mean, which is what is deployed.
    kl_weight : float
        Of KL(N(mean, variance) || N(0, 1)), once it has grown to all of it.
    kl_warmup : int
        Epochs over which the weight grows from 0, from the run's first.
    kl_warmup_by : str
        Whether it grows at each `epoch` or at each `batch`; both reach the whole weight after the same epochs.
    kl_reduction : str
        Whether the dimensions of a token are averaged (`mean`) or added up (`sum`); tokens and samples are averaged.
    free_bits : float, optional
        Nats that a token may carry at no cost, counted as `kl_reduction` does: a dimension of a mean, a token of a sum.
        Where absent, 0.1 a dimension in either, so that as much is free: 0.1 of a mean, 0.1 D of a sum.
    orthogonality : float
        Weight of the squared cosine between the tokens of a sample.
    diversity : float
        Weight of what each token lacks of a deviation of 1 over the batch, position by position.
    image_dropout : float
        Share of the training samples whose whole latent is lost, as the link loses it: LLRs of 0, the prior's mean. The head
        learns there what it can say without.
    teacher_weight : float
        Of the KL divergence of the answers from those of the task's rules, where the task has rules.
    teacher_start_epoch : int
        First epoch with a teacher.
    """

    enabled: bool = False
    temperature: Positive = 0.6
    validation_temperature: Weight = 0.5
    kl_weight: Weight = 3.0
    kl_warmup: Epochs = 15
    kl_warmup_by: Literal["epoch", "batch"] = "epoch"
    kl_reduction: Literal["mean", "sum"] = "mean"
    free_bits: Weight | None = None
    orthogonality: Weight = 0.01
    diversity: Weight = 0.01
    image_dropout: Fraction = 0.1
    teacher_weight: Weight = 0.0
    teacher_start_epoch: Annotated[int, Field(ge=1)] = 16

    def free(self, dim: int) -> float:
        """Free bits of a token of so many dimensions, as `kl_reduction` counts.

        Examples
        --------
        >>> [BottleneckRecipe(enabled=True, kl_reduction=reduction).free(16) for reduction in ("mean", "sum")]
        [0.1, 1.6]
        """
        if self.free_bits is not None:
            return self.free_bits
        return FREE_NATS_A_DIMENSION * (dim if self.kl_reduction == "sum" else 1)

    def nats_a_token(self, value: float, dim: int) -> float:
        """A KL divergence, or free bits, as `kl_reduction` counts, in nats a token.

        Examples
        --------
        >>> [BottleneckRecipe(enabled=True, kl_reduction=reduction).nats_a_token(0.1, 256) for reduction in ("mean", "sum")]
        [25.6, 0.1]
        """
        return value * (dim if self.kl_reduction == "mean" else 1)

    def weights_at(self, step: int, epoch_steps: int) -> LatentWeights:
        """The weights in force in a step, counted from 0 over the whole run.

        Examples
        --------
        >>> by_epoch, by_batch = (BottleneckRecipe(enabled=True, kl_warmup_by=by) for by in ("epoch", "batch"))
        >>> [round(by_epoch.weights_at(100 * epoch, 100).kl, 2) for epoch in (0, 5, 10, 15, 40)]
        [0.0, 1.0, 2.0, 3.0, 3.0]
        >>> by_epoch.weights_at(550, 100).kl, round(by_batch.weights_at(550, 100).kl, 2)
        (1.0, 1.1)
        """
        epochs = step // epoch_steps if self.kl_warmup_by == "epoch" else step / epoch_steps
        grown = min(1.0, epochs / self.kl_warmup) if self.kl_warmup else 1.0
        taught = step // epoch_steps + 1 >= self.teacher_start_epoch
        return LatentWeights(
            self.kl_weight * grown, self.orthogonality, self.diversity, self.teacher_weight if taught else 0.0
        )

    @model_validator(mode="after")
    def _check(self) -> BottleneckRecipe:
        fields = type(self).model_fields
        changed = sorted(name for name in self.model_fields_set if getattr(self, name) != fields[name].default)
        if not self.enabled and changed:
            raise ValueError(f"{', '.join(changed)} of no bottleneck: set enabled = true")
        return self
