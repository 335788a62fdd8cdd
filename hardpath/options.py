"""Options that several sub-commands share, and what their texts mean."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from link.errors import ArgumentError

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder with manifest.json and the two graphs.")]
ReceiverName = Annotated[
    str | None,
    typer.Option(
        "--receiver", metavar="NAME", help="Which of the bundle's receivers, where it has several; else the first."
    ),
]
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
        help="An .npz with the inputs by name and `labels`, texts and labels as .tsv, .csv or .jsonl, or a folder with the "
        "task's files; where absent, the task's own test set.",
    ),
]
SnrError = Annotated[
    float,
    typer.Option("--snr-error-db", help="What the bundle's router takes the SNR for is higher by this, in dB."),
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


def overrides_of(
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


def receivers_of(settings: Sequence[str]) -> dict[str, Path]:
    """Checkpoints by the names that their receivers are to have, as --also gives them.

    Raises
    ------
    ArgumentError
        If one has no name, or two have the same.
    """
    found: dict[str, Path] = {}
    for setting in settings:
        name, equals, path = (part.strip() for part in setting.partition("="))
        if not equals or not path or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            raise ArgumentError(
                "--also", f"takes NAME=CHECKPOINT, the name of letters, digits, - and _, got {setting!r}"
            )
        if name in found:
            raise ArgumentError("--also", f"gives two receivers the name {name}: each needs one of its own")
        found[name] = Path(path)
    return found


def _key_and_value(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ArgumentError("--set", f"takes KEY=VALUE, got {setting!r}")
    return key.strip(), value.strip()


def row_range(text: str) -> slice:
    """Rows that FIRST:LAST names, the last excluded.

    Raises
    ------
    ArgumentError
        If it names none.
    """
    first, colon, last = text.partition(":")
    try:
        chosen = slice(int(first or 0), int(last if colon else first) + (0 if colon else 1))
    except ValueError:
        raise ArgumentError("--rows", f"takes FIRST:LAST, got {text!r}") from None
    if not 0 <= chosen.start < chosen.stop:
        raise ArgumentError("--rows", f"must name at least one row from 0, got {text!r}")
    return chosen
