"""The sub-commands and their options.

Results go to stdout (one JSON object with --json), progress and errors to stderr. Exit codes:

    0    done; `verify`: equivalent
    1    `verify` and `demo`: different; `diagnose`: something is wrong with the run
    2    wrong usage: an option, an argument, a recipe
    3    `verify`: undecided after its budget
    4    a bundle, checkpoint or results folder that is missing, broken, tampered with or of another run
    5    could not be done: a server out of reach, a port in use, a missing package, no room to write
    130  interrupted; what was finished is kept
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from hardpath.terminal import INTERRUPTED, exit_with_line, note, percent, say, say_json, say_table, waiting, write_text
from link.errors import ArgumentError

app = typer.Typer(
    help="Train soft, align hard, deploy digital, and prove that all of it agrees.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder with manifest.json and the two graphs.")]
SnrGrid = Annotated[
    str, typer.Option("--snr-db", help="Es/N0 in dB: LOW:HIGH:STEP with both ends, or a list such as 0,6,12.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
ChannelName = Annotated[str, typer.Option("--channel", help="awgn, rayleigh, rayleigh-fast, rician or rician-fast.")]
BlockSymbols = Annotated[
    int, typer.Option("--block-symbols", help="Symbols that fade together in block fading; 0 is the whole sample.")
]
KFactor = Annotated[float, typer.Option("--k-factor-db", help="Rician K-factor in dB.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="An .npz with the inputs by name and `labels`, or a folder with the task's files; "
        "where absent, the task's own test set.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", help="Pretrained encoder of a text task: a name on the hub, a folder, or scratch."),
]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Threads of torch; small models are fastest with one.")]
TaskData = Annotated[
    Path | None,
    typer.Option("--data", exists=True, file_okay=False, help="Folder with the task's files, where it needs any."),
]


class PathChoice(StrEnum):
    """Paths of an evaluation."""

    SOFT = "soft"
    HARD = "hard"
    BOTH = "both"

    @property
    def paths(self) -> tuple[Literal["hard", "soft"], ...]:
        """Each of them."""
        return ("hard", "soft") if self is PathChoice.BOTH else ("hard",) if self is PathChoice.HARD else ("soft",)


class SplitChoice(StrEnum):
    """Parts of the data that training did not fit."""

    VALIDATION = "validation"
    TEST = "test"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; answer each mistake with one line and its exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="hardpath", standalone_mode=False)
    except typer.Abort:
        exit_with_line(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        # Typer's usage errors share no public base class across its versions, but they know how to show themselves.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        exit_with_line(error)
    if code == INTERRUPTED:  # newer versions of typer answer Ctrl-C themselves
        exit_with_line(KeyboardInterrupt())
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Training seed.")] = 0,
) -> None:
    """Train, export, serve, verify, call and sweep digits: the whole job. Run again, it goes on where it stopped."""
    from hardpath.demo import run_demo

    run_demo(out, seed)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe (digits) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; where absent, runs/NAME.")] = None,
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
    threads: Threads = 1,
    brief: Annotated[bool, typer.Option("--brief", help="A progress bar instead of a paragraph an epoch.")] = False,
    as_json: Json = False,
) -> None:
    """Train in two phases, learn soft and align hard. Run again, it goes on where it stopped."""
    from hardpath.jobs import run_training
    from train.recipe import load_recipe

    chosen = load_recipe(recipe, _overrides(settings, seed=seed, encoder=encoder), presets or [])
    folder = out or Path("runs") / chosen.name
    summary = run_training(chosen, folder, data, threads, brief=brief or as_json)
    if as_json:
        kept = {name: found.model_dump(mode="json", exclude={"facts"}) for name, found in summary._asdict().items()}
        say_json({"folder": str(folder), **kept})
    else:
        say(summary.text(folder))


@app.command()
def finetune(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe whose task has a pretrained encoder: text, or a TOML file."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the encoder; --encoder of train takes it.")],
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
    from train.recipe import load_recipe

    chosen = load_recipe(recipe, _overrides(settings, encoder=encoder))
    how = FinetuneSettings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, bf16=bf16, seed=seed)
    found = run_finetuning(chosen, out, data, how, threads)
    if as_json:
        say(found.model_dump_json(indent=2))
    else:
        say(
            f"{out}: fine-tuned on {found.rows} rows in {found.seconds:.0f} s; without a link "
            f"{percent(found.validation_accuracy)} % on validation, {percent(found.test_accuracy)} % on test"
        )


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A run (its best), its best/ or last/, or a file.")
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
    as_json: Json = False,
) -> None:
    """Measure a checkpoint's accuracy in torch, soft at each temperature and hard, over AWGN."""
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


@app.command()
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Also measure best and last checkpoint on the run's data.")
    ] = False,
    data: TaskData = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also draw the run's curves, as .png and .svg.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Say in words what is wrong with a run and what to try, in order. Exit 0 healthy, 1 something is wrong."""
    from hardpath.examination import run_diagnosis

    found = run_diagnosis(run, data, plot, deep=deep)
    say(found.model_dump_json(indent=2) if as_json else found.text())
    return 0 if found.healthy else 1


@app.command()
def ablate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe (digits) or a TOML file.")],
    schedules: Annotated[
        str,
        typer.Option(
            help="Presets whose schedules to compare, with commas between; two-phase is basic, own is the recipe's."
        ),
    ] = "two-phase,anneal",
    defects: Annotated[
        str,
        typer.Option(
            help="alone, without, or conditions with commas between: none, all, or defects joined by + (leak+no-scale)."
        ),
    ] = "alone",
    seeds: Annotated[
        str, typer.Option(help="Training seeds: FIRST:END, the end excluded, or a list such as 0,3.")
    ] = "0:3",
    out: Annotated[Path, typer.Option(help="Folder of runs and results.")] = Path("runs/ablation"),
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
    """Train with defects of published systems and measure what is deployed. Run again, it goes on where it stopped."""
    from hardpath.ablation import TABLE_NAME, run_ablation
    from link.sweep import parse_grid
    from train.ablation_design import Ablation, parse_conditions, parse_schedules, parse_seeds

    ablation = Ablation(
        recipe=recipe,
        schedules=parse_schedules(schedules),
        conditions=parse_conditions(defects),
        seeds=parse_seeds(seeds),
        overrides=_overrides(settings, encoder=encoder),
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


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A run (its best), its best/ or last/, or a file.")
    ],
    out: Annotated[Path | None, typer.Option(help="Bundle folder; where absent, bundle/ in the run.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; where absent, the recipe's.")] = None,
    data: TaskData = None,
    as_json: Json = False,
) -> None:
    """Write transmitter.onnx and receiver.onnx, compared with torch before they take their place."""
    from train.checkpoint import checkpoint_file
    from train.export import export as export_bundle

    bundle = out or checkpoint_file(checkpoint).parent.parent / "bundle"
    with waiting(f"exporting {checkpoint} and comparing the graphs with torch"):
        manifest = export_bundle(checkpoint, bundle, name=name, data_folder=data)
    if as_json:
        say_json({"bundle": str(bundle), "manifest": manifest.model_dump(mode="json")})
    else:
        from hardpath.inspection import describe

        say(f"{bundle}: {describe(manifest)}")


@app.command()
def verify(
    bundle: Bundle,
    checkpoint: Annotated[Path, typer.Option(help="The training checkpoint that was exported.")],
    grpc: Annotated[str | None, typer.Option("--grpc", metavar="HOST:PORT", help="Also ask this server.")] = None,
    snr_db: SnrGrid = "-6:18:3",
    margin: Annotated[float, typer.Option(help="Accuracy that the hard path may lose against the soft one.")] = 0.01,
    max_draws: Annotated[int, typer.Option(min=1, help="Budget: draws of the whole data set at each SNR.")] = 200,
    seed: Seed = 0,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Also write the verification as JSON into this file.")] = None,
    as_json: Json = False,
) -> int:
    """Show that checkpoint, graphs, server, soft and hard path agree. Exit 0 equivalent, 1 different, 3 undecided."""
    from hardpath.jobs import run_verification
    from link.sweep import parse_grid
    from train.verify import VerifySettings, render

    settings = VerifySettings(snr_db=parse_grid(snr_db), margin=margin, max_draws=max_draws, seed=seed)
    verification = run_verification(bundle, checkpoint, settings, grpc, data)
    text = verification.model_dump_json(indent=2)
    # Said first: a file that cannot be written must not cost the verdict.
    say(text if as_json else render(verification))
    if out is not None:
        write_text(out, text + "\n")
    return verification.exit_code


@app.command()
def sweep(
    bundle: Bundle,
    snr_db: SnrGrid = "-6:18:3",
    channel: ChannelName = "awgn",
    block_symbols: BlockSymbols = 0,
    k_factor_db: KFactor = 6.0,
    seed: Seed = 0,
    draws: Annotated[int, typer.Option(min=1, help="Times that the data set is sent at each SNR.")] = 10,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and plots; an interrupted sweep goes on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy and bit errors of a bundle against SNR, with intervals and plots."""
    from hardpath.jobs import run_sweep
    from link.sweep import SweepSpec, parse_grid

    spec = SweepSpec(
        snr_db=parse_grid(snr_db),
        channel=channel,
        block_symbols=block_symbols,
        k_factor_db=k_factor_db,
        seed=seed,
        draws=draws,
    )
    result = run_sweep(bundle, spec, data, out)
    if out is not None:
        from link.plot import Curve, waterfall

        waterfall([Curve.of_accuracy(channel, result.points)], out / "accuracy")
        waterfall([Curve.of_ber(channel, result.points)], out / "ber", metric="ber")
    if as_json:
        say(result.model_dump_json(indent=2))
        return
    rows = [
        (
            f"{point.snr_db:g}",
            percent(point.accuracy.value),
            f"{percent(point.accuracy.low)} .. {percent(point.accuracy.high)}",
            f"{point.correct}/{point.decisions}",
            f"{point.ber.value:.3g}",
            f"{point.bit_errors}/{point.bits}",
            "-" if point.ber_theory is None else f"{point.ber_theory:.3g}",
        )
        for point in result.points
    ]
    say_table(
        f"{result.provenance.bundle} over {channel}, {result.points[0].symbols_per_sample:g} symbols a sample, seed {seed}",
        ("Es/N0 dB", "accuracy %", "95 % interval", "correct", "BER", "bit errors", "theory"),
        rows,
    )


@app.command()
def serve(
    bundle: Bundle,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reachable from here only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 50051,
) -> None:
    """Serve a bundle over gRPC until SIGINT or SIGTERM, then finish what is in flight."""
    from serve.server import serve as serve_bundle

    serve_bundle(bundle, host, port, ready=lambda address: say(f"serving {bundle} on {address}"))


@app.command()
def call(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where a server listens.")],
    inputs: Annotated[
        Path | None,
        typer.Option("--inputs", help="An .npy with the input or an .npz by name; where absent, the task's test set."),
    ] = None,
    rows: Annotated[str, typer.Option(help="Rows to send, FIRST:LAST, the last excluded.")] = "0:8",
    snr_db: Annotated[float, typer.Option("--snr-db", help="Es/N0 in dB.")] = 12.0,
    channel: ChannelName = "awgn",
    block_symbols: BlockSymbols = 0,
    k_factor_db: KFactor = 6.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Send samples over the link of a running server; print what was decided and how many bits were wrong."""
    from hardpath.jobs import load_samples
    from serve.client import Client

    chosen = _row_range(rows)
    with Client(address) as client:
        samples = load_samples(inputs, client.model().manifest)
        reply = client.transmit(
            {name: value[chosen] for name, value in samples.inputs.items()},
            snr_db=snr_db,
            channel=channel,
            block_symbols=block_symbols,
            k_factor_db=k_factor_db if channel.startswith("rician") else None,
            seed=seed,
            sample_offset=chosen.start,
        )
    labels = None if samples.labels is None else samples.labels[chosen]
    answers = [
        {
            "row": chosen.start + index,
            "decision": reply.decoded.class_names[index],
            "probability": float(reply.decoded.probabilities[index].max()),
            "bit_errors": int(reply.bit_errors[index]),
            "bits": int(reply.sent.num_bits[index]),
            "symbols": int(reply.sent.num_symbols[index]),
        }
        | ({} if labels is None else {"correct": bool(reply.decoded.decisions[index] == labels[index])})
        for index in range(len(reply.decoded.class_names))
    ]
    if as_json:
        say_json({"address": address, "snr_db": snr_db, "channel": channel, "seed": seed, "samples": answers})
        return
    if len(answers) < chosen.stop - chosen.start:
        note(f"rows {rows} reach past the end: {len(answers)} were sent")
    columns = [name for name in answers[0]]
    cells = [
        tuple(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()) for row in answers
    ]
    say_table(f"{address}, {channel} at {snr_db:g} dB, seed {seed}", columns, cells)


@app.command()
def inspect(bundle: Bundle, as_json: Json = False) -> None:
    """Show what a bundle holds: task, modes, graphs, where it comes from; its hashes are checked."""
    from hardpath.inspection import details
    from link.manifest import load_bundle
    from link.runtime import Receiver, Transmitter

    found = load_bundle(bundle)
    Transmitter(found)
    Receiver(found)
    if as_json:
        say(found.manifest.model_dump_json(indent=2))
    else:
        say(details(found))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, ONNX Runtime's providers, the extras, and what is missing."""
    from hardpath.inspection import diagnosis, diagnosis_text

    found = diagnosis()
    if as_json:
        say_json(found)
    else:
        say(diagnosis_text(found))


def _overrides(
    settings: Sequence[str] | None, *, seed: int | None = None, encoder: str | None = None
) -> dict[str, str]:
    """--set and the options that stand for a key, as load_recipe takes them."""
    found = dict(_key_and_value(setting) for setting in settings or [])
    if seed is not None:
        found["seed"] = str(seed)
    if encoder is not None:
        # A folder is kept as it lies, so that the run can go on from anywhere.
        folder = Path(encoder)
        found["task_options.encoder"] = json.dumps(str(folder.resolve()) if folder.is_dir() else encoder)
    return found


def _key_and_value(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ArgumentError("--set", f"takes KEY=VALUE, got {setting!r}")
    return key.strip(), value.strip()


def _row_range(text: str) -> slice:
    first, colon, last = text.partition(":")
    try:
        chosen = slice(int(first or 0), int(last if colon else first) + (0 if colon else 1))
    except ValueError:
        raise ArgumentError("--rows", f"takes FIRST:LAST, got {text!r}") from None
    if not 0 <= chosen.start < chosen.stop:
        raise ArgumentError("--rows", f"must name at least one row from 0, got {text!r}")
    return chosen
