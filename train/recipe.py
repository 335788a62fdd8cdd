"""Recipes: everything that a training run depends on, as frozen models read from TOML.

The keys bear the names of the published system's flags where it had one: epochs, alignment_start_epoch,
temp_freeze_floor, lambda_entropy, lambda_consistency, lambda_vq.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from link.errors import RecipeError
from link.rate import Rate

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
SnrDb = Annotated[float, Field(ge=-30, le=60)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LinkRecipe(Rate):
    """What is sent, and how the receiver demaps it.

    Tokens of `dim` are normalised by their own mean and deviation, which leaves two points where `dim` is 2 and one
    where it is 1.
    """

    order: int = 16
    dim: Annotated[int, Field(ge=3, le=4096)] = 16
    demapper: Literal["max-log", "app"] = "app"
    llr_clip: Positive = 30.0


class ScheduleRecipe(_Section):
    """When what is trained.

    Epochs count from 1: `warmup_epochs` without a link, learning (soft assignment) up to `alignment_start_epoch`, which is
    the first epoch of alignment (hard forward, soft backward). Temperature falls from `temp_start` by `temp_decay` a
    learning epoch to `temp_freeze_floor`, where it stays.
    """

    epochs: Annotated[int, Field(ge=1)]
    warmup_epochs: Annotated[int, Field(ge=1)]
    alignment_start_epoch: Annotated[int, Field(ge=1)]
    temp_start: Positive = 1.0
    temp_decay: Annotated[float, Field(gt=0, le=1)] = 0.97
    temp_freeze_floor: Positive = 0.7

    @model_validator(mode="after")
    def _check(self) -> ScheduleRecipe:
        if not self.warmup_epochs < self.alignment_start_epoch:
            raise ValueError(
                f"alignment_start_epoch must come after the {self.warmup_epochs} warmup_epochs, "
                f"got {self.alignment_start_epoch}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"epochs must exceed the {self.warmup_epochs} warmup_epochs, got {self.epochs}")
        return self


class OptimizerRecipe(_Section):
    """AdamW with a cosine to zero over all steps."""

    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Positive = 2e-3
    weight_decay: Weight = 0.01


class LossRecipe(_Section):
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
        ||H_soft - stopgrad(H_hard)||^2, in alignment.
    lambda_energy : float
        Mean energy of the hard symbols above 1, the mean of the constellation.
    """

    lambda_vq: Weight = 0.06
    lambda_entropy: Weight = 0.2
    lambda_assignment: Weight = 0.01
    lambda_consistency: Weight = 0.5
    lambda_energy: Weight = 1.0


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
    fsq_levels : tuple of int
        Levels of each axis of the lattice, powers of two of product K; 4 an axis where empty. Of kind fsq.
    target_assignment_entropy : float
        Mean entropy of the soft assignment, nats, at temp_freeze_floor when the codebook is initialised; sets its scale.
    labels : str, optional
        `searched` by the Binary Switching Algorithm from Gray labels, `pca-gray` along principal axes, `axis-gray` along the
        axes of the lattice, `identity` or `random`; where absent, searched (ema) or axis-gray (fsq).
    label_search : str
        When labels are searched: at the `start` of the codebook, where `alignment` begins, or `both`; frozen otherwise.
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
    fsq_levels: tuple[Annotated[int, Field(ge=2)], ...] = ()
    target_assignment_entropy: Positive = 0.5
    labels: Literal["searched", "pca-gray", "axis-gray", "identity", "random"] | None = None
    label_search: Literal["start", "alignment", "both"] = "start"
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
    passes 8 above 6 dB), which is why it is not the default.
    """

    preset: Literal["fractions", "published"] = "fractions"


class Recipe(_Section):
    """A training run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    task: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    link: LinkRecipe
    schedule: ScheduleRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    loss: LossRecipe = LossRecipe()
    quantizer: QuantizerRecipe = QuantizerRecipe()
    channel: ChannelRecipe = ChannelRecipe()
    alarms: AlarmRecipe = AlarmRecipe()


def recipe_names() -> list[str]:
    """Names of the recipes that come with hardpath."""
    folder = resources.files("train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(source: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe by name or by path, with `section.key=value` overrides in TOML syntax.

    Raises
    ------
    RecipeError
        If it is not found, is no TOML, or a key or value is wrong; an unknown key is answered with the nearest known one.
    """
    text, origin = _read(source)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin} is no TOML: {error}") from None
    for key, value in (overrides or {}).items():
        _override(values, key, value)
    return parse_recipe(values, origin)


def parse_recipe(values: Mapping[str, Any], origin: str) -> Recipe:
    """Validate a recipe's values; `origin` names them in errors."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "recipe"
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{origin}: unknown key {key}{_suggest(key)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{origin}: {key}: {message}") from None


def _read(source: str) -> tuple[str, str]:
    names = recipe_names()
    if source in names:
        return (resources.files("train") / "recipes" / f"{source}.toml").read_text(encoding="utf-8"), f"recipe {source}"
    path = Path(source)
    if not path.is_file():
        raise RecipeError(f"no recipe {source!r}: name one of {', '.join(names)}, or a TOML file")
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None


def _override(values: dict[str, Any], key: str, value: str) -> None:
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{key} is no key of a recipe{_suggest(key)}")
    values[last] = parsed


def _suggest(key: str) -> str:
    known = _keys(Recipe)
    by_last = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1) or [
        by_last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], by_last, n=1)
    ]
    return f"; did you mean {near[0]}?" if near else f"; known keys: {', '.join(known)}"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
