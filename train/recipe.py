"""Recipes: everything that a training run depends on, as frozen models. `train.recipe_file` reads them.

The keys bear the names of the published system's flags where it had one: epochs, alignment_start_epoch,
temp_freeze_floor, lambda_entropy, lambda_consistency, lambda_vec, lambda_sym, lambda_vq, lambda_lb, lambda_kl.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from link.manifest import HeaderSpec
from train.curriculum import LossRecipe as LossRecipe
from train.curriculum import ScheduleRecipe as ScheduleRecipe
from train.defects import DEFECTS, check_defects, with_settings
from train.modes import LinkRecipe as LinkRecipe
from train.modes import RouterRecipe as RouterRecipe
from train.section import Fraction, Positive, SnrDb, Weight
from train.section import Section as _Section
from train.section import nearest_key as nearest_key
from train.sequence_recipe import SequenceRecipe as SequenceRecipe
from train.variational import BottleneckRecipe as BottleneckRecipe


class OptimizerRecipe(_Section):
    """AdamW with a cosine to zero over all steps.

    Attributes
    ----------
    encoder_learning_rate : float
        Of pretrained backbones; 0 keeps them frozen, and the states of a text's encoder are computed once and kept.
    unfreeze_epoch : int
        First epoch in which the backbone is trained, where its learning rate is not 0; refused where none is given.
    unfreeze_layers : int
        Layers of the backbone, from its top, that this epoch and each later one add to those that are trained; what is under
        the lowest layer comes with it. 0 is all at once. Layers that wait are computed in every step all the same.
    layer_decay : float
        From the learning rate of a layer to that of the one under it; the top one has encoder_learning_rate.
    head_learning_rate : float, optional
        Of the head; learning_rate where absent.
    freeze_vision_epochs : int
        First epochs in which the part of the encoder that looks at images, its module `vision`, stays as it is; of a
        pretrained one its backbone does, and the queries that read from it are trained.
    freeze_encoder_epochs : int
        First epochs over the link in which the encoder stays as the warm-up left it, so that the codebook settles on tokens
        that do not move: no gradient, no dropout, no running statistics.
    precision : str
        Of encoder and head while they train: `float32`, or `bfloat16` (train.precision). The link between them, evaluation
        and bundle are float32 in either.
    """

    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 2e-3
    weight_decay: Weight = 0.01
    encoder_learning_rate: Weight = 0.0
    unfreeze_epoch: Annotated[int, Field(ge=1)] = 1
    unfreeze_layers: Annotated[int, Field(ge=0)] = 0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    head_learning_rate: Positive | None = None
    freeze_vision_epochs: Annotated[int, Field(ge=0)] = 0
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _check(self) -> OptimizerRecipe:
        for key in ("unfreeze_epoch", "unfreeze_layers", "layer_decay"):
            if key in self.model_fields_set and "encoder_learning_rate" not in self.model_fields_set:
                raise ValueError(
                    f"{key} {getattr(self, key)} trains nothing without encoder_learning_rate: give it too"
                )
        for key in ("freeze_vision_epochs", "encoder_learning_rate") if self.freeze_encoder_epochs else ():
            if getattr(self, key):
                raise ValueError(
                    f"freeze_encoder_epochs must be 0 beside {key} {getattr(self, key):g}, which says itself what of the "
                    f"encoder is trained when, got {self.freeze_encoder_epochs}"
                )
        return self


class QuantizerRecipe(_Section):
    """The codebook.

    Attributes
    ----------
    kind : str
        `ema`, learned by running means, or `fsq`, a fixed lattice: the control that cannot collapse.
    metric : str
        `cosine` compares directions: tokens and codewords of one length. Of kind ema.
    start : str
        Where codewords start: `k-means` over the training tokens, `tokens` drawn from them, or `random`. Of kind ema.
    ema_decay : float
        Of the codewords' sizes and sums, a step.
    restart_threshold : float
        A codeword used less than this share of its fair share (1/K) is dead and restarts.
    restart_share : float, optional
        The same as a share of all tokens, as the published quantiser has it; where given, it replaces restart_threshold.
        0.001 is 0.512 of a fair share at K = 512.
    restart_every : int
        Epochs, by their number, from one restart to the next; 0 is never.
    restart_epochs : (int, int), optional
        First and last epoch with restarts; where absent, while learning lasts.
    gradient : str
        Of what is sent hard, from the receiver's embedding back to the token: `surrogate`, through LLRs, symbols and bits
        of the soft path, or `straight-through`, as it is, past quantiser and link (van den Oord et al. 2017). The surrogate
        knows which bits the noise takes; among hundreds of codewords it hardly reaches the encoder. Without effect where
        nothing is learned from what is sent hard: schedules without alignment, unless lambda_kl is above 0.
    fsq_levels : tuple of int
        Levels of each axis of the lattice, powers of two of product K; 4 an axis where empty. Of kind fsq.
    target_assignment_entropy : float
        Mean entropy of the soft assignment, nats, at temp_reference when the codebook is initialised; sets its scale.
    labels : str, optional
        `searched` by the Binary Switching Algorithm from Gray labels, `pca-gray` along principal axes, `axis-gray` along the
        axes of the lattice, `identity` or `random`; where absent, searched (ema) or axis-gray (fsq).
    label_search : str
        When labels are searched: at the `start` of the codebook, where `alignment` begins, at `both`, or at the start and
        after all `restarts`, which leave a codeword's label where the codeword was; frozen otherwise.
    label_snr_db : float
        Es/N0 in dB whose bit error rates weigh the search for labels.
    """

    kind: Literal["ema", "fsq"] = "ema"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    start: Literal["k-means", "tokens", "random"] = "k-means"
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    restart_threshold: Fraction = 0.05
    restart_share: Fraction | None = None
    restart_every: Annotated[int, Field(ge=0)] = 1
    restart_epochs: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    gradient: Literal["surrogate", "straight-through"] = "surrogate"
    fsq_levels: tuple[Annotated[int, Field(ge=2)], ...] = ()
    target_assignment_entropy: Positive = 0.5
    labels: Literal["searched", "pca-gray", "axis-gray", "identity", "random"] | None = None
    label_search: Literal["start", "alignment", "both", "restarts"] = "start"
    label_snr_db: SnrDb = 3.0

    @property
    def labelling(self) -> Literal["searched", "pca-gray", "axis-gray", "identity", "random"]:
        """`labels`, or the kind's own."""
        return self.labels or ("axis-gray" if self.kind == "fsq" else "searched")

    def restarts_in(self, epoch: int, *, learning: bool) -> bool:
        """Whether dead codewords restart at the end of that epoch."""
        first_to_last = self.restart_epochs
        within = learning if first_to_last is None else first_to_last[0] <= epoch <= first_to_last[1]
        return within and self.restart_every > 0 and epoch % self.restart_every == 0

    def fair_threshold(self, codewords: int) -> float:
        """Usage below which a codeword is dead, as a share of the fair share 1/K."""
        return self.restart_threshold if self.restart_share is None else self.restart_share * codewords

    @model_validator(mode="after")
    def _check(self) -> QuantizerRecipe:
        if self.kind == "fsq" and self.metric != "euclidean":
            raise ValueError(f"metric must be euclidean for kind fsq, got {self.metric}")
        if self.kind == "fsq" and self.start != "k-means":
            raise ValueError(f"start is of kind ema, and kind fsq has its lattice; got {self.start}")
        if self.kind == "ema" and self.fsq_levels:
            raise ValueError(f"fsq_levels are of kind fsq, got {list(self.fsq_levels)}")
        if self.kind == "ema" and self.labels == "axis-gray":
            raise ValueError("labels axis-gray are of kind fsq; kind ema has pca-gray")
        if self.kind == "fsq" and self.label_search == "restarts":
            raise ValueError("label_search restarts is of kind ema: no codeword of kind fsq restarts")
        if self.restart_epochs is not None and self.restart_epochs[0] > self.restart_epochs[1]:
            raise ValueError(f"restart_epochs must be (first, last), got {self.restart_epochs}")
        return self


class ChannelRecipe(_Section):
    """Es/N0 in dB: drawn uniformly in training, and the grid of the evaluation."""

    train_snr_db: tuple[SnrDb, SnrDb] = (-2.0, 20.0)
    eval_snr_db: tuple[SnrDb, ...] = (0.0, 6.0, 12.0, 18.0)
    eval_draws: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _check(self) -> ChannelRecipe:
        if self.train_snr_db[0] > self.train_snr_db[1]:
            raise ValueError(f"train_snr_db must be (low, high), got {self.train_snr_db}")
        if not self.eval_snr_db:
            raise ValueError("eval_snr_db must name at least one SNR")
        return self


class AlarmRecipe(_Section):
    """When a collapse metric raises an alarm.

    Preset `fractions` scales with log K, log M and theory. Preset `published` holds the absolute numbers of the
    system whose notes started this project; two of them cannot hold for a healthy QPSK link (ln 4 < 1.5, and mean |LLR|
    passes 8 above 6 dB), which is why it is not the default. The preset decides on usage, assignment, energy and LLR; the
    other thresholds hold in both.

    Attributes
    ----------
    usage_entropy : float
        Least entropy of the codewords' and of the symbols' usage, as a share of ln K and of ln M.
    codes_used : float
        Least share of the codewords used at least once.
    h_assign_high, h_assign_low : float
        Assignment entropy, nats, above which the surrogate does not speak for the hard path at a settled temperature, and
        under which it is the hard path already, so that agreement with it proves nothing.
    energy_db : float
        Largest mean energy of the hard symbols, dB above the constellation's.
    llr_factor : float
        Largest factor, up or down, between mean |LLR| and its theory value.
    overfitting_ratio : float
        Largest ratio of the validation's task loss to training's.
    learned_task_loss : float
        Task loss in training, nats, under which the task counts as learned: ratios and shares of less mean nothing.
    soft_hard_gap : float
        Largest difference of soft and hard accuracy, points.
    best_last_gap : float
        Largest fall of the hard accuracy from the best epoch to the last, and into alignment, points.
    perplexity_ratio : float
        Least perplexity in evaluation, as a share of training's.
    same_codes : float
        Largest share of token positions that send one codeword for (almost) every sample.
    token_drift : float
        Largest distance of the encoder's tokens in evaluation from those in training, in training deviations.
    term_share : float
        Largest share of one term beside the task's in the loss.
    consistency : float
        ||H_soft - H_hard||^2 a dimension that alignment has to bring down, where it is above.
    latent_low, latent_high : float
        Least and largest KL of a token behind a bottleneck, in ln K; preset `published` has its own (train.latent_alarms).
    """

    preset: Literal["fractions", "published"] = "fractions"
    usage_entropy: Fraction = 0.5
    codes_used: Fraction = 0.5
    h_assign_high: Positive = 1.0
    h_assign_low: Weight = 0.1
    energy_db: Weight = 0.5
    llr_factor: Annotated[float, Field(gt=1)] = 2.0
    overfitting_ratio: Annotated[float, Field(gt=1)] = 2.5
    learned_task_loss: Positive = 0.1
    soft_hard_gap: Weight = 2.0
    best_last_gap: Weight = 2.0
    perplexity_ratio: Fraction = 0.5
    same_codes: Annotated[float, Field(gt=0, le=1)] = 0.5
    token_drift: Positive = 0.5
    term_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    consistency: Weight = 0.05
    latent_low: Fraction = 0.05
    latent_high: Positive = 2.0


class Recipe(_Section):
    """A training run.

    Attributes
    ----------
    defects : tuple of str
        Defects of published systems that it is trained with, for the ablation (`train.defects`); their settings replace the
        recipe's own.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    task: str
    task_options: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    link: LinkRecipe
    schedule: ScheduleRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    loss: LossRecipe = LossRecipe()
    quantizer: QuantizerRecipe = QuantizerRecipe()
    channel: ChannelRecipe = ChannelRecipe()
    alarms: AlarmRecipe = AlarmRecipe()
    router: RouterRecipe = RouterRecipe()
    header: HeaderSpec = HeaderSpec()
    bottleneck: BottleneckRecipe = BottleneckRecipe()
    sequence: SequenceRecipe = SequenceRecipe()
    defects: tuple[str, ...] = ()

    @property
    def chosen_anew(self) -> frozenset[int]:
        """Epochs before which no epoch counts any more for the best: the first of alignment, and of a router's choice.

        What learning sends was never hard in training: where it happens to be ahead by a few validation rows, its soft
        surrogate is not one that was aligned. And without a router's choice an epoch has another rate.
        """
        router, schedule = self.router, self.schedule
        starts = {1 + schedule.warmup_epochs + router.explore_epochs} if router.enabled else set()
        aligned = schedule.alignment_start_epoch
        return frozenset(starts if aligned is None else {*starts, aligned})

    @model_validator(mode="before")
    @classmethod
    def _with_defects(cls, values: Any) -> Any:
        """The settings of its defects, and these in their own order."""
        named = values.get("defects", ()) if isinstance(values, Mapping) else ()
        if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
            return values
        check_defects(named)
        ordered = tuple(name for name in DEFECTS if name in named)
        return with_settings({**values, "defects": ordered}, ordered) if ordered else values

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        several = bool(self.link.modes)
        for name in self.defects:
            if DEFECTS[name].ema_only and self.quantizer.kind != "ema":
                raise ValueError(f"defects: {name} is of a codebook of kind ema, got kind {self.quantizer.kind}")
        if self.defects and self.bottleneck.enabled:
            raise ValueError("defects: a codec with a bottleneck has none; leave [bottleneck] out")
        if self.defects and several:
            raise ValueError("defects: a link with several modes has none; leave out [[link.modes]]")
        for key in ("lambda_sym", "lambda_lb"):
            if getattr(self.loss, key) and not (several and self.router.enabled):
                why = "no router chooses" if several else "the link has one mode"
                raise ValueError(
                    f"loss.{key} must be 0 where {why}: what it weighs is a constant there, "
                    f"got {getattr(self.loss, key):g}"
                )
        if self.quantizer.gradient == "straight-through" and (several or self.bottleneck.enabled):
            why = "the link has several modes" if several else "tokens are drawn behind a bottleneck"
            raise ValueError(f"quantizer.gradient must be surrogate where {why}, got straight-through")
        if not several:
            for key, default in (("router", RouterRecipe()), ("header", HeaderSpec())):
                if getattr(self, key) != default:
                    raise ValueError(
                        f"[{key}] must be absent where the link has one mode; [[link.modes]] names several"
                    )
        available = self.schedule.epochs - self.schedule.warmup_epochs
        frozen = self.optimizer.freeze_encoder_epochs
        if frozen > available:
            raise ValueError(
                f"optimizer.freeze_encoder_epochs must be at most the {available} epochs over the link, got {frozen}"
            )
        if frozen and self.bottleneck.enabled:
            raise ValueError(
                "optimizer.freeze_encoder_epochs must be 0 behind a bottleneck: it learns on and moves the tokens, "
                f"got {frozen}"
            )
        if self.router.enabled and self.router.explore_epochs >= available:
            raise ValueError(
                f"router.explore_epochs must be below the {available} epochs over the link, "
                f"got {self.router.explore_epochs}"
            )
        if len(self.link.codebook_sizes) > 1 and self.quantizer.kind == "fsq":
            raise ValueError(
                "quantizer.kind fsq has one lattice, and tokens on it: all modes must have as many codewords, "
                f"got {', '.join(map(str, self.link.codebook_sizes))}"
            )
        return self
