"""What each part of a receiver of recordings brings: codebook, behaviours (HDP) and durations (HSMM), each with and without.

    recipe, seed ─┬─ train, export ─> hard path, ONNX Runtime ────┬─ none, hdp, hsmm, hdp_hsmm ─> scores over each channel
                  └─ encoder and head alone, without a codebook ──┴─ the same ────────────────> scores without a link

The stages of a seed share its codec, so that what a part brings is a difference of decisions on the same receptions.
Without a codebook there are no bits to send: those four are measured without a link, and say what a codebook costs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from link.bundle import load_bundle
from link.chain import Link
from link.channel.base import erase_unsent
from link.errors import RecipeError
from link.grid import SweepSpec
from link.hdp_number import EffectiveNumber
from link.randomness import Draws
from link.runtime import Transmission
from link.sequence import code_probabilities, smoothed
from link.snr import NO_MIN
from train import checkpoint as checkpoints
from train.evaluate import encode, tensors
from train.export import export
from train.loop import Trainer
from train.recipe import Recipe
from train.record import EpochRecord, batch_usage, read_metrics
from train.run import train
from train.scores import gain_in_f1, scores
from train.sequence import SequenceRecipe, SequenceStage, learn_stage, places
from train.sequence_run import LONGEST, Received, learn_behind, require_recordings
from train.tasks import Data, Split, Task, load_task, task_facts
from train.transceiver import Transceiver

NO_LINK: Final = "no link"
WITHOUT_NAME: Final = "without_codebook.safetensors"

Parts = tuple[str, ...]
COMBINATIONS: Final[tuple[Parts, ...]] = ((), ("hdp",), ("hsmm",), ("hdp", "hsmm"))


class PartScores(BaseModel):
    """One variant of one seed, over one channel at one Es/N0.

    Attributes
    ----------
    vq : bool
        Whether there is a codebook, and so a link.
    parts : tuple of str
        What follows the receiver of single windows.
    channel : str
        `no link` where nothing comes between.
    snr_db : float, optional
        Es/N0; None without a link.
    accuracy, macro_f1, calibration_error : float
        Of the windows of the test subjects (train.scores).
    gain, gain_low, gain_high : float, optional
        In macro-F1, over windows decided by themselves on the same receptions, with its 95 % interval over recordings; None
        where that is what this is.
    bits, symbols : int
        Of a window.
    perplexity_training, perplexity_validation, active_training, active_validation : float, optional
        Of the codebook in the epoch that is measured, and codewords that are used: means over batches of as many rows
        (train.usage), so that both are compared.
    behaviours, behaviours_low, behaviours_high : float, optional
        Effective number of behaviours in the corpus: exp of the entropy of their weights, with a 95 % interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    vq: bool
    parts: Parts
    channel: str
    snr_db: float | None
    accuracy: float
    macro_f1: float
    calibration_error: float
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    bits: int
    symbols: int
    perplexity_training: float | None = None
    perplexity_validation: float | None = None
    active_training: float | None = None
    active_validation: float | None = None
    behaviours: float | None = None
    behaviours_low: float | None = None
    behaviours_high: float | None = None

    @property
    def variant(self) -> str:
        """Its name: none, hdp, hsmm or hdp_hsmm, and vq before it where there is a codebook."""
        return variant_name(self.vq, self.parts)


def variant_name(vq: bool, parts: Parts) -> str:
    """The name of a variant.

    Examples
    --------
    >>> variant_name(False, ()), variant_name(True, ("hdp", "hsmm")), variant_name(True, ())
    ('none', 'vq_hdp_hsmm', 'vq')
    """
    return "_".join((*(("vq",) if vq else ()), *parts)) or "none"


def measure_seed(
    recipe: Recipe,
    folder: Path,
    specs: Mapping[str, SweepSpec],
    *,
    data_folder: Path | None = None,
    tell: Callable[[str, float], None] = lambda step, done: None,
) -> list[PartScores]:
    """Train codec and stages of a recipe's seed into `folder`, going on where it stopped, and measure all variants.

    Parameters
    ----------
    specs : mapping of channel to SweepSpec
        Es/N0, draws, and the seed that addresses the noise.
    tell : callable
        Told what is done, and how far it is, as a fraction.

    Raises
    ------
    RecipeError
        If the recipe has a stage that cannot be learned, or a bottleneck, which the variants without a codebook would lack.
    """
    if recipe.bottleneck.enabled:
        raise RecipeError("bottleneck.enabled must be false: an ablation of parts compares codecs without one")
    require_recordings(recipe.model_copy(update={"sequence": _stage_recipe(recipe, ("hdp", "hsmm"))}))
    epochs = recipe.schedule.epochs
    train(
        recipe.model_copy(update={"sequence": _stage_recipe(recipe, ())}),
        folder / "vq",
        data_folder=data_folder,
        on_epoch=lambda record: tell("codec", record.epoch / epochs),
    )
    found, model = checkpoints.load(folder / "vq" / "best")
    task = checkpoints.task_of(found)
    data = task.load(data_folder)
    export(folder / "vq" / "best", folder / "bundle", data_folder=data_folder)
    link = Link(load_bundle(folder / "bundle"))
    record = next(each for each in read_metrics(folder / "vq") if each.epoch == found.epoch)
    made = _over_the_link(recipe, model.eval(), link, task, data, specs, record, tell)
    alone = _without_codebook(recipe, folder, data_folder, tell)
    return made + _without_a_link(recipe, alone, task, data, tell)


def require_rows(folder: Path, data_folder: Path) -> None:
    """Raise CheckpointError where the codec in a seed's `folder` was trained on other rows than the data have."""
    found = checkpoints.last_of_run(folder / "vq")
    if found is not None:
        checkpoints.require_data(found, checkpoints.task_of(found).load(data_folder), folder / "vq")


def _over_the_link(
    recipe: Recipe,
    model: Transceiver,
    link: Link,
    task: Task,
    data: Data,
    specs: Mapping[str, SweepSpec],
    record: EpochRecord,
    tell: Callable[[str, float], None],
) -> list[PartScores]:
    mode = link.manifest.modes[0]
    tokens = encode(model, tensors(task, data.train))
    sent = link.encode(link.tensors(data.test.inputs), 0.0)
    points = [(NO_LINK, None), *((name, snr_db) for name, spec in specs.items() for snr_db in spec.snr_db)]
    receptions = [
        [_by_receiver(link, sent)]
        if snr_db is None
        else [_by_receiver(link, sent, specs[name], snr_db, draw) for draw in range(specs[name].draws)]
        for name, snr_db in points
    ]
    made = []
    for parts in COMBINATIONS:
        stage = SequenceStage(_stage_recipe(recipe, parts), len(task.classes), (mode.tokens, mode.codewords))
        if parts:
            learn_behind(stage, model, tokens, data.train, recipe)
            tell(variant_name(True, parts), 1.0)
        for (name, snr_db), received in zip(points, receptions, strict=True):
            over = {"channel": name, "snr_db": snr_db, "bits": mode.num_bits, "symbols": mode.num_symbols}
            found = _score(recipe.seed, True, parts, stage, received, data.test, task)
            made.append(found.model_copy(update={**over, **batch_usage(record)}))
    return made


def _without_a_link(
    recipe: Recipe, model: Transceiver, task: Task, data: Data, tell: Callable[[str, float], None]
) -> list[PartScores]:
    learned, measured = (_as_they_are(model, task, split) for split in (data.train, data.test))
    made = []
    for parts in COMBINATIONS:
        stage = SequenceStage(_stage_recipe(recipe, parts), len(task.classes), learned.codes.shape[-1])
        if parts:
            recordings = learned.recordings(data.train)
            learn_stage(stage, recordings, lambda epoch, held=recordings: held, recipe.seed)  # type: ignore[misc]
            tell(variant_name(False, parts), 1.0)
        made.append(_score(recipe.seed, False, parts, stage, [measured], data.test, task))
    return made


def _score(
    seed: int, vq: bool, parts: Parts, stage: SequenceStage, receptions: Sequence[Received], split: Split, task: Task
) -> PartScores:
    """Scores of one stage on receptions of the test rows, a draw each, as if without a link."""
    assert split.sequence is not None
    labels, recording = (np.tile(values, len(receptions)) for values in (split.labels, split.sequence))
    alone = np.concatenate([received.logits.softmax(dim=-1).numpy() for received in receptions])
    probabilities, gain = alone, None
    if parts:
        probabilities = np.concatenate([_smoothed(stage, received, split) for received in receptions])
        decided, before = probabilities.argmax(axis=-1), alone.argmax(axis=-1)
        gain = gain_in_f1(decided, before, labels, recording, len(task.classes))
    of_all = scores(probabilities, labels)
    number = _number(stage)
    return PartScores(
        seed=seed,
        vq=vq,
        parts=parts,
        channel=NO_LINK,
        snr_db=None,
        bits=0,
        symbols=0,
        **of_all._asdict(),
        **({} if gain is None else dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))),
        **(
            {}
            if number is None
            else {
                "behaviours": number.perplexity.mean,
                "behaviours_low": number.perplexity.low,
                "behaviours_high": number.perplexity.high,
            }
        ),
    )


def _smoothed(stage: SequenceStage, received: Received, split: Split) -> NDArray[np.floating]:
    """Probabilities of the classes of each row, (n, C), given the recording that it is of."""
    assert split.sequence is not None
    recordings = received.recordings(split)
    row, place = places(split.sequence, LONGEST)
    assert recordings.codes is not None
    arrays = (recordings.logits.numpy(), recordings.codes.numpy(), recordings.present.numpy())
    return np.asarray(np.exp(smoothed(stage.arrays(), *arrays)[row, place]))


def _number(stage: SequenceStage) -> EffectiveNumber | None:
    return None if stage.hdp is None else stage.hdp.effective_number()


def _stage_recipe(recipe: Recipe, parts: Parts) -> SequenceRecipe:
    return recipe.sequence.model_copy(update={"parts": parts})


def _by_receiver(
    link: Link, sent: Transmission, spec: SweepSpec | None = None, snr_db: float | None = None, draw: int = 0
) -> Received:
    """What receiver.onnx makes of what was sent over a channel, or with nothing between."""
    if spec is None or snr_db is None:
        no = np.full(sent.symbols.shape[:-1], NO_MIN, dtype=np.float32)
        decoded = link.receiver(*erase_unsent(sent.symbols, no, sent.num_symbols), sent.mode)
    else:
        draws = Draws(spec.seed, np.arange(len(sent.mode)), draw)
        decoded = link.carry(sent, spec.build_channel(), snr_db, draws).decoded
    codes = code_probabilities(decoded.llr, link.manifest.modes[0])
    return Received(torch.from_numpy(decoded.logits), torch.from_numpy(codes))


@torch.no_grad()
def _as_they_are(model: Transceiver, task: Task, split: Split) -> Received:
    """What the head makes of the encoder's tokens themselves, which stand in for codes."""
    tokens = encode(model, tensors(task, split))
    return Received(model.head(tokens), tokens.flatten(1))


def _without_codebook(
    recipe: Recipe, folder: Path, data_folder: Path | None, tell: Callable[[str, float], None]
) -> Transceiver:
    """The recipe's encoder and head, trained with nothing between them; read from `folder` where they are there."""
    task = load_task(recipe.task, recipe.task_options, task_facts(recipe, data_folder))
    file = folder / WITHOUT_NAME
    trainer = Trainer(recipe, task, task.load(data_folder))
    kept = _read(file, recipe)
    if kept is not None:
        trainer.model.load_state_dict(kept)
        return trainer.model.eval()
    epochs = recipe.schedule.epochs
    model = trainer.run_without_link(lambda epoch: tell("without a codebook", epoch / epochs))
    folder.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part")
    save_file(model.state_dict(), draft, metadata={"recipe": recipe.model_dump_json()})
    draft.replace(file)
    return model


def _read(file: Path, recipe: Recipe) -> dict[str, Tensor] | None:
    try:
        with safe_open(file, framework="pt") as stream:
            if json.loads((stream.metadata() or {}).get("recipe", "null")) != recipe.model_dump(mode="json"):
                return None
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
