"""The sub-commands and their options.

Results go to stdout (one JSON object with --json), progress and errors to stderr. Exit codes:

    0    done; `verify`: equivalent
    1    `verify` and `demo`: different; `diagnose`: something is wrong with the run
    2    wrong usage: an option, an argument, a recipe
    3    `verify`: undecided after its budget
    4    a bundle, checkpoint or results folder that is missing, broken, tampered with or of another run
    5    could not be done: a server out of reach, a port in use, a missing package, workers that died, no room to write
    130  interrupted by Ctrl-C; 128 plus its number for another signal
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hardpath import bundles, calls, radio, reload, servers, sweeps, top, training
from hardpath.options import Json, path_of
from hardpath.terminal import GOES_ON, INTERRUPTED, Once, ends_with, exit_with_line, exit_with_usage, say, say_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; answer each mistake with one line and its exit code."""
    for number in range(3):  # closed by whoever called: what is opened next would take its place
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called: there is nobody to tell
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (open to the end)
    told = logging.StreamHandler(sys.stderr)
    told.addFilter(Once(("train", "hardpath")))
    logging.basicConfig(level=logging.WARNING, handlers=[told], format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it misses fonts that no figure here uses
    # Each command says itself what is wrong, in one line; set before grpc is imported, which looks once.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="hardpath", standalone_mode=False)
    except typer.Abort as abort:
        # Typer takes the end of a file that a command met for Ctrl-C.
        exit_with_line(abort.__cause__ if isinstance(abort.__cause__, EOFError) else KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        # Typer's usage errors share no public base class across its versions, but they know what they say.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            exit_with_usage(error)
        exit_with_line(error)
    if code == INTERRUPTED:  # newer versions of typer answer Ctrl-C themselves
        exit_with_line(KeyboardInterrupt())
    sys.exit(code if isinstance(code, int) else 0)


def _show_version(asked: bool) -> None:
    if asked:
        from link.provenance import code_version

        say(f"hardpath {code_version()}")
        raise typer.Exit


@app.callback()
def hardpath(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Train soft, align hard, deploy digital, and prove that all of it agrees."""


@app.command()
@ends_with(GOES_ON)
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.", parser=path_of)] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Training seed.")] = 0,
) -> None:
    """Train, export, serve, verify, call and sweep digits: the whole job. Run again, it goes on where it stopped."""
    from hardpath.demo import run_demo

    run_demo(out, seed)


for group in (training, bundles, sweeps, servers, calls, reload, top):
    app.add_typer(group.commands)
app.add_typer(radio.commands, name="radio", help="Probe a radio, run frames over it, replay, calibrate, serve it.")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, ONNX Runtime's providers, the extras, and what is missing."""
    from hardpath.inspection import diagnosis, diagnosis_text

    found = diagnosis()
    if as_json:
        say_json(found)
    else:
        say(diagnosis_text(found))
