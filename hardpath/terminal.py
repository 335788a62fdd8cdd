"""What people see: progress on stderr, results on stdout, one line for each mistake."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from link.errors import (
    ArgumentError,
    BundleError,
    CheckpointError,
    HardpathError,
    MissingExtra,
    OutOfMemory,
    RadioError,
    RecipeError,
    RecordingError,
    ResultsError,
    ServerError,
    WorkerError,
)

INTERRUPTED: Final = 130
GOES_ON: Final = "; what was finished is kept: run the same command again to go on"
TRACEBACK_VARIABLE: Final = "HARDPATH_TRACEBACK"
EXIT_CODES: Final[tuple[tuple[type[HardpathError], int], ...]] = (
    (ArgumentError, 2),
    (RecipeError, 2),
    (BundleError, 4),
    (CheckpointError, 4),
    (ResultsError, 4),
    (RecordingError, 4),
    (MissingExtra, 5),
    (OutOfMemory, 5),
    (RadioError, 5),
    (ServerError, 5),
    (WorkerError, 5),
    (HardpathError, 1),
)
"""First match wins. `verify` adds 3, undecided."""

_WIDTH_MAX: Final = 10_000
"""Of a table, in characters."""

_EXTRAS: Final = {
    "onnxruntime": "cpu",
    "matplotlib": "sweep",
    "numba": "sweep",
    "loky": "sweep",
    "pyarrow": "sweep",
    "distributed": "dask",
    "ray": "ray",
    "sionna": "sim",
    "torch": "train",
    "onnx": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "accelerate": "train",
    "PIL": "image",
    "tokenizers": "text",
    "transformers": "hub",
    "datasets": "hub",
    "grpc": "serve",
    "grpc_health": "serve",
    "grpc_reflection": "serve",
    "grpc_status": "serve",
    "prometheus_client": "serve",
    "opentelemetry": "otel",
    "google": "serve",
}


class Once(logging.Filter):
    """Passes what is said of data the first time alone: data are read twice, to know what to train for and to train.

    Parameters
    ----------
    packages : collection of str
        Whose loggers it looks at; a server repeats itself on purpose.
    """

    def __init__(self, packages: Collection[str]) -> None:
        super().__init__()
        self._packages = packages
        self._said: set[tuple[str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is new, or none of these packages'."""
        if record.name.partition(".")[0] not in self._packages:
            return True
        said = (record.name, record.getMessage())
        if said in self._said:
            return False
        self._said.add(said)
        return True


@contextmanager
def ends_with(line: str) -> Iterator[None]:
    """Where Ctrl-C ends the block, say this of what was done, which is true of a command alone; also a decorator."""
    try:
        yield
    except KeyboardInterrupt:
        _say_and_exit(f"interrupted{line}", INTERRUPTED)


def exit_with_line(error: BaseException) -> NoReturn:
    """End the process with the one line and the exit code that an error deserves; re-raise what nobody foresaw."""
    if isinstance(error, KeyboardInterrupt):
        _say_and_exit("interrupted", INTERRUPTED)
    if isinstance(error, HardpathError):
        _say_and_exit(str(error), next(code for kind, code in EXIT_CODES if isinstance(error, kind)))
    if isinstance(error, ModuleNotFoundError):
        package = str(error.name).partition(".")[0]
        if package in _EXTRAS:
            _say_and_exit(str(MissingExtra(package, _EXTRAS[package])), 5)
    if isinstance(error, BrokenPipeError):
        # The reader has gone (as with `| head`): nothing more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if isinstance(error, OSError):
        _say_and_exit(f"{error.filename or 'input or output'}: {error.strerror or error}", 5)
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    what = next(iter(str(error).splitlines()), "") or "no more is known"
    _say_and_exit(f"unforeseen {type(error).__name__}: {what} ({TRACEBACK_VARIABLE}=1 shows where)", 5)


def exit_with_usage(error: Any) -> NoReturn:
    """End the process with what typer says of a wrong option or argument, in one line that names the help."""
    message = " ".join(str(error.format_message()).split())
    path = getattr(getattr(error, "ctx", None), "command_path", "hardpath")
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is all that it says
        error.show()
        sys.exit(error.exit_code)
    _say_and_exit(f"{message.rstrip('.')}; see {path} --help", error.exit_code)


def exit_at_once() -> NoReturn:
    """End a process that has done its work but has a thread that hangs, for which the interpreter would wait."""
    try:
        logging.shutdown()
        sys.stdout.flush()
    finally:
        os._exit(0)


def say(text: str) -> None:
    """One result to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One remark to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """One JSON object to stdout."""
    say(json.dumps(value, indent=2, allow_nan=False))


def say_json_line(value: Any) -> None:
    """One JSON object to stdout, in a line: of those that come one after another."""
    say(json.dumps(value, allow_nan=False))


def say_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table to stdout, as wide as it needs to be: a terminal that is narrower wraps it, and no number is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # what a cell says is no markup
    console = Console(file=sys.stdout, width=_WIDTH_MAX, highlight=False)
    console.width = console.measure(table).maximum
    console.print(table)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on stderr while the block runs; call what it gives with the steps done so far and a remark.

    Where stderr is no terminal, the description is written once and no bar is drawn.
    """
    if not sys.stderr.isatty():
        note(description)
        yield lambda done, remark: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
        console=Console(file=sys.stderr),
    ) as bar:
        task = bar.add_task(description, total=total, remark="")

        def update(done: int, remark: str) -> None:
            bar.update(task, completed=done, remark=remark)

        yield update


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """A spinner on stderr while the block runs, or the description once where stderr is no terminal."""
    if not sys.stderr.isatty():
        note(description)
        yield
        return
    from rich.console import Console

    with Console(file=sys.stderr).status(description):
        yield


def percent(value: float) -> str:
    """A share as per cent with two places."""
    return f"{100.0 * value:.2f}"


def in_one_line(text: str, width: int = 48) -> str:
    r"""A text for a cell: shortened, and without what would move the cursor.

    Examples
    --------
    >>> in_one_line("a fine\tfilm\n"), in_one_line("dull " * 9, width=12)
    ('a fine film', 'dull dull...')
    """
    shown = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
    return shown if len(shown) <= width else f"{shown[: width - 3].rstrip()}..."


def write_text(file: Path, text: str) -> None:
    """Write a file in one step."""
    with in_place_of(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def in_place_of(file: Path) -> Iterator[Path]:
    """A file to write, which takes this one's place at the end: a crash leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _say_and_exit(line: str, code: int) -> NoReturn:
    note(f"hardpath: {line}")
    sys.exit(code)
