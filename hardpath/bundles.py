"""Sub-commands about a bundle: export, verify, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardpath.options import Bundle, Data, Json, ReceiverName, Seed, SkipBad, SnrGrid, TaskData, path_of, receivers_of
from hardpath.terminal import say, say_json, waiting, write_text

commands = typer.Typer()


@commands.command()
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A run (its best), its best/ or last/, or a file.", parser=path_of),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Bundle folder; where absent, bundle/ in the run.", parser=path_of)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; where absent, the recipe's.")] = None,
    data: TaskData = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CHECKPOINT",
            help="A further receiver: a run that was trained with --transmitter of this one; may be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write transmitter.onnx and receiver.onnx, compared with torch before they take their place."""
    from train.checkpoint import checkpoint_file
    from train.export import export as export_bundle

    others = receivers_of(also or [])
    bundle = out or checkpoint_file(checkpoint).parent.parent / "bundle"
    with waiting(f"exporting {checkpoint} and comparing the graphs with torch"):
        manifest = export_bundle(checkpoint, bundle, name=name, data_folder=data, also=others)
    if as_json:
        say_json({"bundle": str(bundle), "manifest": manifest.model_dump(mode="json")})
    else:
        from hardpath.inspection import describe

        say(f"{bundle}: {describe(manifest)}")


@commands.command()
def verify(
    bundle: Bundle,
    checkpoint: Annotated[Path, typer.Option(help="The training checkpoint that was exported.", parser=path_of)],
    receiver: ReceiverName = None,
    grpc: Annotated[str | None, typer.Option("--grpc", metavar="HOST:PORT", help="Also ask this server.")] = None,
    snr_db: SnrGrid = "-6:18:3",
    margin: Annotated[float, typer.Option(help="Accuracy that the hard path may lose against the soft one.")] = 0.01,
    max_draws: Annotated[int, typer.Option(min=1, help="Budget: draws of the whole data set at each SNR.")] = 200,
    seed: Seed = 0,
    data: Data = None,
    skip_bad: SkipBad = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write the verification as JSON into this file.", parser=path_of)
    ] = None,
    as_json: Json = False,
) -> int:
    """Show that checkpoint, graphs, server, soft and hard path agree. Exit 0 equivalent, 1 different, 3 undecided."""
    from hardpath.jobs import run_verification
    from link.sweep import parse_grid
    from train.verify import VerifySettings, render

    settings = VerifySettings(snr_db=parse_grid(snr_db), margin=margin, max_draws=max_draws, seed=seed)
    verification = run_verification(bundle, checkpoint, settings, grpc, data, receiver, skip_bad=skip_bad)
    text = verification.model_dump_json(indent=2)
    # Said first: a file that cannot be written must not cost the verdict.
    say(text if as_json else render(verification))
    if out is not None:
        write_text(out, text + "\n")
    return verification.exit_code


@commands.command()
def inspect(bundle: Bundle, receiver: ReceiverName = None, as_json: Json = False) -> None:
    """Show what a bundle holds: task, modes, graphs, where it comes from; its hashes are checked."""
    from hardpath.inspection import details
    from link.bundle import load_bundle
    from link.runtime import Receiver, Transmitter

    found = load_bundle(bundle, receiver)
    Transmitter(found)
    for name in found.manifest.receiver_names:
        Receiver(found.for_receiver(name))
    if as_json:
        say(found.manifest.model_dump_json(indent=2))
    else:
        say(details(found))
