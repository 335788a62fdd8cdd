"""What of the variational bottleneck matters for questions about images: one setting at a time, over training seeds.

    python examples/bottleneck_ablation.py EASY_VQA --out runs/bottleneck --seeds 0,1,2 --epochs-share 0.55

EASY_VQA is a folder as easy-VQA publishes it. Each run is the recipe with one setting changed, trained, and measured on the
test split by the hard path: one draw of noise at 0 and 6 dB, and the latent erased. `--epochs-share` is the time that there
is: all that the recipe counts in epochs times it. Runs go seed by seed, so that a call that is cut short has whole
comparisons, and the next one goes on where it stopped. OUT gets a folder a run and results.jsonl, a line a run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from link.errors import ArgumentError, HardpathError, require_range
from train import checkpoint as checkpoints
from train.ablation_design import parse_seeds
from train.baseline import without_link
from train.intervention import intervene
from train.measure import measure
from train.recipe import Recipe
from train.recipe_file import load_recipe
from train.record import EpochRecord, read_metrics
from train.run import train
from train.variational import BottleneckRecipe

SNR_DB: Final = (0.0, 6.0)
NOISE_SEED: Final = 0
LEARNED: Final = 0.98
"""Accuracy on the validation set from which a run has learned what there is to learn."""

HEAD: Final = (
    "| what differs | seeds | 0 dB | from the recipe | 6 dB | from the recipe | erased | KL a token | a dimension "
    "| behind free bits | free % | validation / training | largest rise | 98 % in epoch | epochs |"
)


class Variation(NamedTuple):
    """What a run changes of the recipe.

    Attributes
    ----------
    words : str
        For the table.
    overrides : mapping of str to str
        As `load_recipe` takes them; epochs of the whole recipe.
    bottleneck : bool
        Whether there is one.
    link : bool
        Whether tokens are quantised and sent, or given to the head as they are.
    """

    words: str
    overrides: Mapping[str, str] = {}
    bottleneck: bool = True
    link: bool = True


BASE: Final = "recipe"
CLAIMS: Final[Mapping[str, Variation]] = {
    BASE: Variation("the recipe: KL by mean, 0.1 free, 3 epochs frozen, by epoch"),
    "sum-0.1": Variation("KL by sum, 0.1 free", {"kl_reduction": '"sum"', "free_bits": "0.1"}),
    "free-0.05": Variation("0.05 free", {"free_bits": "0.05"}),
    "free-0.2": Variation("0.2 free", {"free_bits": "0.2"}),
    "freeze-0": Variation("0 epochs frozen", {"freeze_vision_epochs": "0"}),
    "freeze-5": Variation("5 epochs frozen", {"freeze_vision_epochs": "5"}),
    "teacher-off": Variation("no teacher", {"teacher_weight": "0"}),
    "by-batch": Variation("KL weight by batch", {"kl_warmup_by": '"batch"'}),
    "sum": Variation("KL by sum, 1.6 free", {"kl_reduction": '"sum"', "free_bits": "1.6"}),
}
"""What the published notes on this bottleneck say something of."""
BESIDE: Final[Mapping[str, Variation]] = {
    "no-bottleneck": Variation("no bottleneck", bottleneck=False),
    "no-link": Variation("no link", link=False),
    "question-receiver": Variation("question at the receiver alone", {"task_options.question": '"receiver"'}),
    "question-transmitter": Variation("question at the transmitter alone", {"task_options.question": '"transmitter"'}),
}
VARIATIONS: Final[Mapping[str, Variation]] = {**CLAIMS, **BESIDE}


class Case(NamedTuple):
    """One run."""

    name: str
    seed: int
    recipe: Recipe

    def folder(self, out: Path) -> Path:
        """Where it lies in the folder of all."""
        return out / self.name / f"seed-{self.seed}"


class LatentFigures(BaseModel):
    """The bottleneck in the epoch that is measured, and on the way there.

    Attributes
    ----------
    kl, after : float
        Of training, before and behind the free bits: nats a token, however the recipe counts.
    free : float
        Share of it that the free bits take: the penalty reduction.
    rise : float
        Largest rise of the validation loss of drawn tokens from one epoch to the next, nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kl: float
    after: float
    free: float
    rise: float


class Result(BaseModel):
    """What a run gave.

    Attributes
    ----------
    epochs : int
        How many there were.
    accuracy : tuple of float
        On the test split at each of SNR_DB, of the best epoch; without a link that of the last one, at each.
    erased : float, optional
        The same with the latent erased.
    learned : int, optional
        First epoch with an accuracy of LEARNED on the validation set; None where there was none.
    validation, overfitting : float, optional
        Of the best epoch: hard accuracy over the recipe's grid, and validation's task loss over training's.
    latent : LatentFigures, optional
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    seed: int
    recipe: Recipe
    epochs: int
    accuracy: tuple[float, ...]
    erased: float | None = None
    learned: int | None = None
    validation: float | None = None
    overfitting: float | None = None
    latent: LatentFigures | None = None


def main() -> None:
    """Run what is missing, a line a run on stderr, and print the table of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder as easy-VQA publishes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2", help="first:end, or numbers with commas between")
    parser.add_argument(
        "--only",
        default=",".join(CLAIMS),
        help=f"of {', '.join(CLAIMS)} (all of these where absent), and {', '.join(BESIDE)}, with commas between",
    )
    parser.add_argument("--epochs-share", type=float, default=1.0, help="of the recipe's epochs")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        type=key_and_value,
        action="append",
        default=[],
        help="over the recipe in all runs",
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    results: list[Result] = []
    try:
        require_range("--threads", given.threads, 1, 1024)
        torch.set_num_threads(given.threads)
        for case in cases(given.only.split(","), parse_seeds(given.seeds), dict(given.set), given.epochs_share):
            results.append(run(case, given.out, given.data))
            print(f"{case.name}, seed {case.seed}: {results[-1].accuracy}", file=sys.stderr, flush=True)
            lines = [result.model_dump_json() + "\n" for result in results]
            (given.out / "results.jsonl").write_text("".join(lines), encoding="utf-8")
    except HardpathError as error:
        sys.exit(f"bottleneck_ablation: {error}")
    except KeyboardInterrupt:
        if results:
            print(table(results))
        sys.exit(f"bottleneck_ablation: interrupted after {len(results)} runs; the same call goes on from there")
    print(table(results))


def key_and_value(text: str) -> tuple[str, str]:
    """The two sides of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE, got {text!r}")
    return key, value


def cases(names: Sequence[str], seeds: Sequence[int], overrides: Mapping[str, str], share: float) -> list[Case]:
    """Every run, seed by seed.

    Raises
    ------
    ArgumentError
        If a name is none of VARIATIONS, or there twice, or the share leaves no room for the phases of the recipe.
    """
    unknown = [name for name in names if name not in VARIATIONS]
    if unknown:
        raise ArgumentError("--only", f"must be of {', '.join(VARIATIONS)}, got {unknown[0]!r}")
    if len(set(names)) < len(names):
        raise ArgumentError("--only", f"must name each once, got {','.join(names)}")
    return [Case(name, seed, recipe_of(VARIATIONS[name], seed, overrides, share)) for seed in seeds for name in names]


def recipe_of(variation: Variation, seed: int, overrides: Mapping[str, str], share: float) -> Recipe:
    """The recipe of one run."""
    recipe = load_recipe("visual-questions", {**overrides, **variation.overrides, "seed": str(seed)})
    recipe = shortened(recipe, share)
    return recipe if variation.bottleneck else recipe.model_copy(update={"bottleneck": BottleneckRecipe()})


def shortened(recipe: Recipe, share: float) -> Recipe:
    """A recipe with all that it counts in epochs times `share`, so that everything keeps its place."""
    require_range("--epochs-share", share, 0.0, 1.0)
    values = recipe.model_dump()
    counts = {
        "schedule": ("epochs", "warmup_epochs", "patience"),
        "optimizer": ("freeze_vision_epochs",),
        "bottleneck": ("kl_warmup",),
    }
    firsts = {"schedule": "alignment_start_epoch", "bottleneck": "teacher_start_epoch"}
    for section, keys in counts.items():
        values[section] |= {key: round(values[section][key] * share) for key in keys}
    for section, key in firsts.items():
        values[section][key] = round((values[section][key] - 1) * share) + 1
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ArgumentError("--epochs-share", f"cannot be {share:g}: {error.errors()[0]['msg']}") from None


def run(case: Case, out: Path, data: Path) -> Result:
    """Train one run and measure it, or read what was measured; an interrupted one goes on."""
    folder = case.folder(out)
    file = folder / "result.json"
    try:
        found = Result.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        found = None
    if found is not None and found.recipe == case.recipe:
        return found
    result = measured(case, folder, data) if VARIATIONS[case.name].link else unlinked(case, folder, data)
    file.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return result


def unlinked(case: Case, folder: Path, data: Path) -> Result:
    """Encoder, bottleneck and head alone, for as many epochs."""
    accuracy = without_link(case.recipe, folder, data_folder=data).accuracy
    return Result(
        name=case.name,
        seed=case.seed,
        recipe=case.recipe,
        epochs=case.recipe.schedule.epochs,
        accuracy=(accuracy,) * len(SNR_DB),
    )


def measured(case: Case, folder: Path, data: Path) -> Result:
    """A run over the link, and its best epoch on the test split."""
    best, last = train(case.recipe, folder, data_folder=data)
    _, model = checkpoints.load(folder / "best")
    task = checkpoints.task_of(best)
    splits = task.load(data)
    points = measure(
        model, task, splits.test, snr_db=SNR_DB, draws=1, paths=("hard",), temperatures=(), seed=NOISE_SEED
    )
    erased, *_ = intervene(
        model, task, splits.train, splits.test, ("zero",), snr_db=SNR_DB[-1], seed=NOISE_SEED
    )  # of all rows first
    records = read_metrics(folder)
    at_best = records[best.epoch - 1]
    return Result(
        name=case.name,
        seed=case.seed,
        recipe=case.recipe,
        epochs=last.epoch,
        accuracy=tuple(point.accuracy.value for point in points),
        erased=erased.accuracy.value,
        learned=next((record.epoch for record in records if validated(record) >= LEARNED), None),
        validation=at_best.hard_mean,
        overfitting=at_best.overfitting,
        latent=latent_figures(case.recipe, records, at_best),
    )


def validated(record: EpochRecord) -> float:
    """Accuracy on the validation set: over the link, hard, where there is one."""
    found = record.validation_no_link if record.hard_mean is None else record.hard_mean
    return 0.0 if found is None else found


def latent_figures(recipe: Recipe, records: Sequence[EpochRecord], at: EpochRecord) -> LatentFigures | None:
    """The bottleneck's figures of an epoch; None where there is no bottleneck."""
    found = at.bottleneck
    if found is None:
        return None
    losses = [record.bottleneck.validation_task_drawn for record in records if record.bottleneck is not None]
    return LatentFigures(
        kl=found.kl_nats,
        after=recipe.bottleneck.nats_a_token(found.kl_after, recipe.link.dim),
        free=found.penalty_reduction,
        rise=max((after - before for before, after in pairwise(losses)), default=0.0),
    )


def table(results: Sequence[Result]) -> str:
    """Markdown, a row a variation: means over seeds, from the lowest to the highest, and differences paired by seed.

    No interval: a run learns to tell shapes apart or does not, and what lies between is no mean of a normal. KL in nats, of
    the measured epoch.
    """
    base = {result.seed: result for result in results if result.name == BASE}
    rows = [HEAD, "|---" * (HEAD.count(" | ") + 1) + "|"]
    for name, variation in VARIATIONS.items():
        found = [result for result in results if result.name == name]
        if found:
            rows.append(f"| {' | '.join([variation.words, str(len(found)), *_cells(found, base)])} |")
    return "\n".join(rows)


def _cells(found: Sequence[Result], base: Mapping[int, Result]) -> list[str]:
    """The figures of one variation, in the order of HEAD."""
    latents = [(result.recipe.link.dim, result.latent) for result in found if result.latent is not None]
    paired = [(result, base[result.seed]) for result in found if result.name != BASE and result.seed in base]
    cells = []
    for at in range(len(SNR_DB)):
        cells += [
            _mean([100 * result.accuracy[at] for result in found], ".2f"),
            _mean([100 * (result.accuracy[at] - other.accuracy[at]) for result, other in paired], "+.2f"),
        ]
    return [
        *cells,
        _mean([100 * result.erased for result in found if result.erased is not None], ".1f"),
        _mean([latent.kl for _, latent in latents], ".3f"),
        _mean([latent.kl / dim for dim, latent in latents], ".4f"),
        _mean([latent.after / dim for dim, latent in latents], ".4f"),
        _mean([100 * latent.free for _, latent in latents], ".1f"),
        _mean([result.overfitting for result in found if result.overfitting is not None], ".2f"),
        _mean([latent.rise for _, latent in latents], ".3f"),
        _listed([result.learned for result in found if result.erased is not None]),
        _listed([result.epochs for result in found]),
    ]


def _mean(values: Sequence[float], form: str) -> str:
    """Mean, and the lowest and the highest where they differ as printed; nothing where there are no values."""
    if not values:
        return ""
    mean, low, high = (f"{value:{form}}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _listed(values: Sequence[int | None]) -> str:
    """Each seed's number; a dash where there is none."""
    return ", ".join("-" if value is None else str(value) for value in values)


if __name__ == "__main__":
    main()
