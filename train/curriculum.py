"""The sections [schedule] and [loss] of a recipe: when what is trained, and what each term weighs."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from train.section import Epochs, Fraction, Positive, Section, Weight

_FLOORS: Final = {"two-phase": 0.7, "anneal": 0.1, "floor": 0.5, "freeze": 0.5}


class ScheduleRecipe(Section):
    """When what is trained.

    Epochs count from 1: `warmup_epochs` without a link, learning (soft assignment), and in kind two-phase alignment (hard
    forward, soft backward). Temperature falls from `temp_start` by `temp_decay` a learning epoch to `temp_freeze_floor`.
    `train.schedule` draws each kind.

    Attributes
    ----------
    kind : str
        `two-phase`, `anneal`, `floor` or `freeze`.
    alignment_start_epoch : int, optional
        First epoch of alignment; None in the kinds without alignment, which pass over a value that is given.
    temp_freeze_floor : float
        T at which annealing stops; where absent, 0.7 (two-phase), 0.1 (anneal), 0.5 (floor, freeze).
    temp_reference : float
        T at which the codebook's scale gives quantizer.target_assignment_entropy. One for all schedules: T means nothing
        without a scale, and a scale set at each schedule's own floor would make all floors equally soft.
    symbol_temp : str
        `tied` divides the logits of the soft bits by vq_temp before the mapper, `off` leaves them.
    anneal_stop_epoch : int
        Last epoch that anneals, of kind freeze.
    freeze_at : str
        Where kind freeze holds T from then on: at the `floor`, or at what annealing has `reached`.
    hardening_epochs : int
        Epochs of alignment over which the symbols sent go from soft to hard; 0 is at once.
    early_stop : bool
        Whether the run ends once soft and hard agree: consistency on the validation set below `early_stop_consistency`, a
        dimension, and hard accuracy, averaged over its grid, above `early_stop_accuracy`.
    patience : int
        Epochs of the last phase, once it is fully hard, that may pass without a lower task loss of the hard path on the
        validation set before the run ends; 0 is never. The other terms have no say: their weights change over the run.
    """

    kind: Literal["two-phase", "anneal", "floor", "freeze"] = "two-phase"
    epochs: Annotated[int, Field(ge=1)]
    warmup_epochs: Annotated[int, Field(ge=1)]
    alignment_start_epoch: Annotated[int, Field(ge=1)] | None = None
    temp_start: Positive = 1.0
    temp_decay: Annotated[float, Field(gt=0, le=1)] = 0.97
    temp_freeze_floor: Positive = 0.7
    temp_reference: Positive = 0.7
    symbol_temp: Literal["off", "tied"] = "off"
    anneal_stop_epoch: Annotated[int, Field(ge=1)] = 15
    freeze_at: Literal["floor", "reached"] = "floor"
    hardening_epochs: Epochs = 0
    early_stop: bool = False
    early_stop_consistency: Positive = 0.01
    early_stop_accuracy: Fraction = 0.9
    patience: Epochs = 0

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, values: Any) -> Any:
        """The floor of the kind, and no alignment where it has none."""
        kind = values.get("kind", "two-phase") if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in _FLOORS:
            return values
        own = {"temp_freeze_floor": _FLOORS[kind]} | values
        return own if kind == "two-phase" else own | {"alignment_start_epoch": None}

    @model_validator(mode="after")
    def _check(self) -> ScheduleRecipe:
        if self.kind == "two-phase":
            self._check_alignment()
        elif self.hardening_epochs or self.early_stop:
            key = "hardening_epochs" if self.hardening_epochs else "early_stop"
            raise ValueError(f"{key} is of kind two-phase, and kind {self.kind} has no alignment")
        if self.kind == "freeze" and not self.warmup_epochs < self.anneal_stop_epoch:
            raise ValueError(
                f"anneal_stop_epoch must come after the {self.warmup_epochs} warmup_epochs, got {self.anneal_stop_epoch}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"epochs must exceed the {self.warmup_epochs} warmup_epochs, got {self.epochs}")
        return self

    def _check_alignment(self) -> None:
        start = self.alignment_start_epoch
        if start is None:
            raise ValueError("alignment_start_epoch is required for kind two-phase")
        if not self.warmup_epochs < start:
            raise ValueError(
                f"alignment_start_epoch must come after the {self.warmup_epochs} warmup_epochs, got {start}"
            )
        available = max(self.epochs - start + 1, 0)
        if self.hardening_epochs > available:
            raise ValueError(
                f"hardening_epochs must be in [0, {available}], the epochs of alignment, got {self.hardening_epochs}"
            )


class WarmupRecipe(Section):
    """Epochs over the link, counted from its first, that each weight takes to grow to its value; 0 is at once.

    In epoch e of n a weight stands at e / n of its value: min(1, e / n). Epochs without a link do not count, since no
    weight acts in them.
    """

    lambda_vq: Epochs = 0
    lambda_entropy: Epochs = 0
    lambda_assignment: Epochs = 0
    lambda_consistency: Epochs = 0
    lambda_consistency_vq: Epochs = 0
    lambda_consistency_symbols: Epochs = 0
    lambda_energy: Epochs = 0
    lambda_vec: Epochs = 0
    lambda_kl: Epochs = 0
    lambda_sym: Epochs = 0
    lambda_lb: Epochs = 0


class LossRecipe(Section):
    """Weights of the loss terms; the task's own has weight 1.

    Attributes
    ----------
    lambda_vq : float
        Commitment of the tokens to their codewords.
    lambda_entropy : float
        Entropy of the codewords' usage over the batch, raised.
    lambda_assignment : float
        Entropy of each token's soft assignment, lowered.
    lambda_consistency : float
        ||H_soft - stopgrad(H_hard)||^2 of the received embeddings, in alignment.
    lambda_consistency_vq, lambda_consistency_symbols : float
        The same of the codewords sent (soft: their mean under the assignment) and of the symbols, in alignment.
    lambda_energy : float
        Mean energy of the hard symbols above 1, the mean of the constellation.
    lambda_vec : float
        Latent reconstruction: the received embedding against the transmitter's tokens.
    lambda_kl : float
        KL divergence of the hard answers from the soft ones, the soft ones teaching.
    lambda_sym : float
        Rate: expected symbols of a sample, its share of the header among them. A constant where no router chooses between
        modes, and refused there.
    lambda_lb : float
        Load balance of the modes; refused where no router chooses.
    warmup : WarmupRecipe
        How long each weight grows.
    """

    lambda_vq: Weight = 0.06
    lambda_entropy: Weight = 0.2
    lambda_assignment: Weight = 0.01
    lambda_consistency: Weight = 0.5
    lambda_consistency_vq: Weight = 0.0
    lambda_consistency_symbols: Weight = 0.0
    lambda_energy: Weight = 1.0
    lambda_vec: Weight = 0.0
    lambda_kl: Weight = 0.0
    lambda_sym: Weight = 0.0
    lambda_lb: Weight = 0.0
    warmup: WarmupRecipe = WarmupRecipe()

    def at(self, epoch: int) -> LossRecipe:
        """The weights in force in an epoch over the link, counted from its first.

        Examples
        --------
        >>> growing = LossRecipe(lambda_entropy=0.2, warmup=WarmupRecipe(lambda_entropy=10))
        >>> [round(growing.at(epoch).lambda_entropy, 3) for epoch in (1, 5, 10, 11)]
        [0.02, 0.1, 0.2, 0.2]
        """
        growing = {key: epochs for key, epochs in self.warmup.model_dump().items() if epoch < epochs}
        return self.model_copy(update={key: getattr(self, key) * (epoch / epochs) for key, epochs in growing.items()})
