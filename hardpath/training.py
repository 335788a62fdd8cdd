"""Sub-commands that make a checkpoint, and those that ask one: train, finetune, evaluate, diagnose, ablate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hardpath.call_options import is_given
from hardpath.options import (
    CsvPath,
    DeviceChoice,
    Encoder,
    ImageFolder,
    InterventionChoice,
    Json,
    PathChoice,
    Seed,
    SnrGrid,
    SplitChoice,
    TaskData,
    Threads,
    overrides_of,
    path_of,
)
from hardpath.terminal import GOES_ON, ends_with, percent, say, say_json
from link.errors import ArgumentError

commands = typer.Typer()


@commands.command()
@ends_with(GOES_ON)
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a recipe (digits, text, text-questions, visual-questions, ...) or a TOML file.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; where absent, runs/NAME.", parser=path_of)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Training seed, in place of the recipe's.")] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset", metavar="NAME", help="A preset over the recipe, such as basic; the last one is on top."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value: --set optimizer.batch_size=32."),
    ] = None,
    data: TaskData = None,
    encoder: Encoder = None,
    csv_path: CsvPath = None,
    image_folder: ImageFolder = None,
    transmitter: Annotated[
        Path | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Keep this run's transmitter as it is, and train a head alone on what is received of it.",
        ),
    ] = None,
    threads: Threads = 1,
    brief: Annotated[bool, typer.Option("--brief", help="A progress bar instead of a paragraph an epoch.")] = False,
    device: Annotated[
        DeviceChoice, typer.Option(help="Where to compute; auto is CUDA where there is one.")
    ] = DeviceChoice.AUTO,
    as_json: Json = False,
) -> None:
    """Train in two phases, learn soft and align hard. Run again, it goes on where it stopped."""
    from hardpath.jobs import run_training
    from train.processes import launched
    from train.recipe_file import load_recipe

    overrides = overrides_of(settings, seed=seed, encoder=encoder, csv_path=csv_path, image_folder=image_folder)
    chosen = load_recipe(recipe, overrides, presets or [])
    folder = out or Path("runs") / chosen.name
    with launched(device.value) as processes:
        summary = run_training(
            chosen,
            folder,
            data,
            threads,
            brief=brief or as_json,
            processes=processes,
            transmitter=transmitter,
        )
    if not processes.is_first:
        return
    if as_json:
        kept = {name: found.model_dump(mode="json", exclude={"facts"}) for name, found in summary._asdict().items()}
        say_json({"folder": str(folder), **kept})
    else:
        say(summary.text(folder))


@commands.command()
@ends_with(GOES_ON)
def finetune(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe whose task has a pretrained encoder: text, or a TOML file."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the encoder; --encoder of train takes it.", parser=path_of)],
    data: TaskData = None,
    encoder: Encoder = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value of the recipe.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Times that the training rows are read.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="At its height, after 6 % of the steps.")] = 6e-5,
    bf16: Annotated[bool, typer.Option(help="Whether matrix products are computed in bfloat16.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of row order, dropout and classifier.")] = 0,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Fine-tune a pretrained encoder as a classifier, before any link. Run again, it goes on where it stopped."""
    from hardpath.jobs import run_finetuning
    from train.finetune import FinetuneSettings
    from train.recipe_file import load_recipe

    chosen = load_recipe(recipe, overrides_of(settings, encoder=encoder))
    how = FinetuneSettings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, bf16=bf16, seed=seed)
    found = run_finetuning(chosen, out, data, how, threads)
    if as_json:
        say(found.model_dump_json(indent=2, exclude={"facts"}))
    else:
        say(
            f"{out}: fine-tuned on {found.rows} rows in {found.seconds:.0f} s; without a link "
            f"{percent(found.validation_accuracy)} % on validation, {percent(found.test_accuracy)} % on test"
        )


@commands.command()
def evaluate(
    context: typer.Context,
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A run (its best), its best/ or last/, or a file.", parser=path_of),
    ],
    path: Annotated[PathChoice, typer.Option("--path", help="Which path to send by.")] = PathChoice.BOTH,
    temperature: Annotated[
        str, typer.Option("--temperature", help="T of the soft path, with commas between; the hard path has none.")
    ] = "1,0.7,0.5,0.1",
    snr_db: Annotated[
        str | None,
        typer.Option(
            "--snr-db",
            help="Es/N0 in dB: LOW:HIGH:STEP or a list; where absent, the grid that the recipe evaluates on.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Times that the data set is sent at each SNR.")] = 10,
    seed: Seed = 0,
    data: TaskData = None,
    split: Annotated[SplitChoice, typer.Option("--split", help="Which part of the data.")] = SplitChoice.VALIDATION,
    intervene: Annotated[
        list[InterventionChoice] | None,
        typer.Option(
            "--intervene",
            help="Measure instead what is answered without the latent, with noise or another sample's in its place.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint's accuracy in torch, soft at each temperature and hard, over AWGN."""
    if intervene:
        for name in ("path", "temperature", "draws"):
            if is_given(context, name):
                raise ArgumentError(
                    f"--{name}", "must be absent beside --intervene: rows are sent once by the hard path"
                )
        _intervene(checkpoint, intervene, snr_db, seed, data, split, as_json=as_json)
        return
    from hardpath.examination import evaluation_text, run_evaluation
    from link.sweep import parse_grid
    from train.measure import parse_temperatures

    found = run_evaluation(
        checkpoint,
        paths=path.paths,
        temperatures=parse_temperatures(temperature),
        snr_db=None if snr_db is None else parse_grid(snr_db),
        draws=draws,
        seed=seed,
        data=data,
        split=split.value,
    )
    if as_json:
        say(found.model_dump_json(indent=2))
    else:
        evaluation_text(found)


def _intervene(
    checkpoint: Path,
    kinds: Sequence[InterventionChoice],
    snr_db: str | None,
    seed: int,
    data: Path | None,
    split: SplitChoice,
    *,
    as_json: bool,
) -> None:
    """The interventions at one SNR, 12 dB where none is given."""
    from hardpath.examination import intervention_text, run_intervention
    from link.sweep import parse_grid

    grid = (12.0,) if snr_db is None else parse_grid(snr_db)
    if len(grid) != 1:
        raise ArgumentError("--snr-db", f"must be one SNR beside --intervene, got {len(grid)}")
    found = run_intervention(
        checkpoint,
        tuple(dict.fromkeys(kind.value for kind in kinds)),
        snr_db=grid[0],
        seed=seed,
        data=data,
        split=split.value,
    )
    if as_json:
        say(found.model_dump_json(indent=2))
    else:
        intervention_text(found)


@commands.command()
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", parser=path_of)],
    deep: Annotated[
        bool, typer.Option("--deep", help="Also measure best and last checkpoint on the run's data.")
    ] = False,
    data: TaskData = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Also draw the run's curves, as .png and .svg.", parser=path_of),
    ] = None,
    as_json: Json = False,
) -> int:
    """Say in words what is wrong with a run and what to try, in order. Exit 0 healthy, 1 something is wrong."""
    from hardpath.examination import run_diagnosis

    found = run_diagnosis(run, data, plot, deep=deep)
    say(found.model_dump_json(indent=2) if as_json else found.text())
    return 0 if found.healthy else 1


@commands.command()
@ends_with(GOES_ON)
def ablate(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Name of a recipe (digits, text, motion) or a TOML file.")
    ],
    schedules: Annotated[
        str | None,
        typer.Option(
            help="Presets whose schedules to compare, with commas between; two-phase is basic, own is the recipe's. "
            "two-phase,anneal where absent.",
        ),
    ] = None,
    defects: Annotated[
        str | None,
        typer.Option(
            help="alone, without, or conditions with commas between: none, all, or defects joined by + (leak+no-scale). "
            "alone where absent.",
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Training seeds: FIRST:END, the end excluded, or a list such as 0,3.")
    ] = "0:3",
    out: Annotated[Path, typer.Option(help="Folder of runs and results.", parser=path_of)] = Path("runs/ablation"),
    snr_db: SnrGrid = "0,6,12",
    channels: Annotated[str, typer.Option(help="Channels with commas between, as of sweep.")] = "awgn,rayleigh",
    draws: Annotated[int, typer.Option(min=1, help="Times that the test split is sent at each SNR.")] = 10,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value of the recipe, over every schedule."),
    ] = None,
    data: TaskData = None,
    encoder: Encoder = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Train with defects of published systems and measure what is deployed. Run again, it goes on where it stopped.

    Of a task of recordings (motion), where neither schedules nor defects are named, compare the parts of its receiver in
    their place: codebook, behaviours (HDP) and durations (HSMM), each with and without.
    """
    from hardpath.ablation import TABLE_NAME, run_ablation
    from link.sweep import parse_grid
    from train.ablation_design import Ablation, parse_conditions, parse_schedules, parse_seeds
    from train.recipe_file import load_recipe
    from train.tasks import of_recordings

    changes = overrides_of(settings, encoder=encoder)
    if schedules is None and defects is None and of_recordings(load_recipe(recipe, changes, []).task):
        _ablate_parts(recipe, changes, seeds, out, snr_db, channels, draws, data, threads, as_json=as_json)
        return
    ablation = Ablation(
        recipe=recipe,
        schedules=parse_schedules(schedules or "two-phase,anneal"),
        conditions=parse_conditions(defects or "alone"),
        seeds=parse_seeds(seeds),
        overrides=changes,
        snr_db=parse_grid(snr_db),
        channels=tuple(channel.strip() for channel in channels.split(",")),
        draws=draws,
    )
    done, baselines = run_ablation(ablation, out, data, threads)
    if as_json:
        say_json(
            {
                "folder": str(out),
                "measured": [found.model_dump(mode="json") for found in done],
                "baselines": [found.model_dump(mode="json") for found in baselines],
            }
        )
    else:
        say((out / TABLE_NAME).read_text(encoding="utf-8").rstrip())


def _ablate_parts(
    recipe: str,
    changes: dict[str, str],
    seeds: str,
    out: Path,
    snr_db: str,
    channels: str,
    draws: int,
    data: Path | None,
    threads: int,
    *,
    as_json: bool,
) -> None:
    from hardpath.parts import TABLE_NAME, run_parts
    from link.grid import SweepSpec
    from link.sweep import parse_grid
    from train.ablation_design import parse_seeds
    from train.recipe_file import load_recipe

    specs = {
        channel: SweepSpec(snr_db=parse_grid(snr_db), channel=channel, draws=draws, seed=0)
        for channel in (name.strip() for name in channels.split(","))
    }
    recipes = [load_recipe(recipe, {**changes, "seed": str(seed)}, []) for seed in parse_seeds(seeds)]
    done = run_parts(recipes, specs, out, data, threads)
    if as_json:
        say_json({"folder": str(out), "scores": [row.model_dump(mode="json") for row in done]})
    else:
        say((out / TABLE_NAME).read_text(encoding="utf-8").rstrip())
