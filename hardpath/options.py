"""Options that several sub-commands share, and what their texts mean."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from link.errors import ArgumentError


def path_of(text: str) -> Path:
    """A path as it was typed; an empty one would mean the folder that one is in."""
    if not str(text):
        raise typer.BadParameter("is empty: name a file or a folder")
    return Path(text)


def folder_of(text: str) -> Path:
    """A folder that is there."""
    found = path_of(text)
    if not found.is_dir():
        raise typer.BadParameter(f"{found} is no folder" if found.exists() else f"{found} does not exist")
    return found


def existing(text: str) -> Path:
    """A file or a folder that is there."""
    found = path_of(text)
    if not found.exists():
        raise typer.BadParameter(f"{found} does not exist")
    return found


Bundle = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder with manifest.json and the two graphs.", parser=path_of)
]
ReceiverName = Annotated[
    str | None,
    typer.Option(
        "--receiver", metavar="NAME", help="Which of the bundle's receivers, where it has several; else the first."
    ),
]
SnrGrid = Annotated[
    str,
    typer.Option(
        "--snr-db", metavar="GRID", help="Es/N0 in dB: LOW:HIGH:STEP with both ends, or a list such as 0,6,12."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
CHANNEL_PANEL: Final = "Channel"
TR38901_PANEL: Final = "Channels of 3GPP TR 38.901, tdl-a to tdl-e and cdl-a to cdl-e"
STOP_PANEL: Final = "How long"
RUN_PANEL: Final = "Where to run"
OUTPUT_PANEL: Final = "Output"
"""Headings of the help, below what belongs to a command alone."""

_SIMULATED: Final = (
    "awgn; rayleigh or rician, which fade block by block; rayleigh-fast or rician-fast, symbol by symbol; tdl-a to tdl-e or "
    "cdl-a to cdl-e of 3GPP TR 38.901 over OFDM, which need hardpath\\[sim] where they are simulated"
)
SimulatedChannel = Annotated[
    str, typer.Option("--channel", metavar="NAME", help=f"{_SIMULATED}.", rich_help_panel=CHANNEL_PANEL)
]
ServerChannel = Annotated[
    str,
    typer.Option(
        "--channel", metavar="NAME", help=f"{_SIMULATED}; or radio, that of the server.", rich_help_panel=CHANNEL_PANEL
    ),
]
BlockSymbols = Annotated[
    int,
    typer.Option(
        "--block-symbols",
        help="Symbols that fade together in block fading; 0 is the whole sample or frame.",
        rich_help_panel=CHANNEL_PANEL,
    ),
]
KFactor = Annotated[float, typer.Option("--k-factor-db", help="Rician K-factor in dB.", rich_help_panel=CHANNEL_PANEL)]
CsiKind = Annotated[
    str,
    typer.Option(
        "--csi",
        metavar="KIND",
        help="How the receiver knows the gains of block fading and of TR 38.901: perfect, or estimated from pilots by ls or "
        "lmmse.",
        rich_help_panel=CHANNEL_PANEL,
    ),
]
Pilots = Annotated[
    int,
    typer.Option(
        "--pilots",
        help="Pilots for ls and lmmse: symbols of each fading block, or OFDM symbols of each slot of TR 38.901.",
        rich_help_panel=CHANNEL_PANEL,
    ),
]
NoOffset = Annotated[
    float,
    typer.Option(
        "--no-offset-db",
        help="The receiver is told a noise variance N0 that is so many dB too high; below 0, too low.",
        rich_help_panel=CHANNEL_PANEL,
    ),
]
DelaySpread = Annotated[
    float, typer.Option("--delay-spread-ns", help="RMS delay spread in ns.", rich_help_panel=TR38901_PANEL)
]
Speed = Annotated[float, typer.Option("--speed-kmh", help="Speed of the user in km/h.", rich_help_panel=TR38901_PANEL)]
Carrier = Annotated[
    float, typer.Option("--carrier-ghz", help="Carrier frequency in GHz.", rich_help_panel=TR38901_PANEL)
]
Spacing = Annotated[
    int,
    typer.Option("--spacing-khz", help="Subcarrier spacing in kHz: 15, 30, 60 or 120.", rich_help_panel=TR38901_PANEL),
]
ResourceBlocks = Annotated[
    int,
    typer.Option(
        "--resource-blocks", help="Resource blocks of the carrier, 12 subcarriers each.", rich_help_panel=TR38901_PANEL
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="An .npz with the inputs by name and `labels`, texts and labels as .tsv, .csv or .jsonl, sentences as .txt, "
        "recordings, or a folder with the task's files; where absent, the task's own test set.",
        parser=path_of,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out lines, rows and images that cannot be used, and say how many, in place of ending with the first.",
    ),
]
Radio = Annotated[
    Path | None,
    typer.Option(
        "--radio",
        metavar="FILE",
        help="Send over the radio that this TOML file describes, in place of a simulated channel.",
        rich_help_panel=CHANNEL_PANEL,
        parser=path_of,
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
CsvPath = Annotated[
    Path | None,
    typer.Option("--csv-path", help="Table of a visual task: columns image, question, answer.", parser=path_of),
]
ImageFolder = Annotated[
    Path | None, typer.Option("--image-folder", help="Folder or zip file of the table's images.", parser=path_of)
]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Threads of torch; small models are fastest with one.")]
TaskData = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder with the task's files, where it needs any; or one file of recordings.", parser=existing
    ),
]


TargetErrors = Annotated[
    int | None,
    typer.Option(
        "--target-errors",
        min=1,
        help="End a point at so many errors, counted in units that fail independently: a bundle's decisions; a modem's "
        "symbols over awgn and fast fading, and its frames over other channels or with a code.",
        rich_help_panel=STOP_PANEL,
    ),
]
RelWidth = Annotated[
    float | None,
    typer.Option(
        "--rel-width",
        help="End a point once its interval is so wide, relative to the error rate: 0.2 is about +-10 %. With "
        "--target-errors, both are to be met.",
        rich_help_panel=STOP_PANEL,
    ),
]
MaxTime = Annotated[
    float | None,
    typer.Option(
        "--max-time",
        metavar="SECONDS",
        help="Seconds for the whole sweep: then points end with what they have, and with --out the same command goes on.",
        rich_help_panel=STOP_PANEL,
    ),
]
Confidence = Annotated[
    float, typer.Option("--confidence", help="Two-sided coverage of all intervals.", rich_help_panel=STOP_PANEL)
]
SimulationDevice = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", help="cpu, or a GPU: cuda, or cuda:1 for the second.", rich_help_panel=RUN_PANEL
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Processes that share the work. The results are the same for any number of them.",
        rich_help_panel=RUN_PANEL,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="What runs the workers: loky, on this machine; dask or ray, here or on the cluster that DASK_SCHEDULER_ADDRESS "
        "or RAY_ADDRESS names.",
        rich_help_panel=RUN_PANEL,
    ),
]
ResultsOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for results and plots. A sweep that was interrupted there goes on.",
        parser=path_of,
        rich_help_panel=OUTPUT_PANEL,
    ),
]
ResultsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout.", rich_help_panel=OUTPUT_PANEL)
]


class Baseline(StrEnum):
    """What to lay beside a bundle's sweep."""

    REPETITION = "repetition"
    UNCODED = "uncoded"
    LDPC = "ldpc"


Baselines = Annotated[
    list[Baseline] | None,
    typer.Option(
        "--baseline",
        help="Also decide at the transmitter and send the decision: repeated over as many symbols, uncoded over as few as "
        "it takes, or many decisions in an LDPC codeword over as many, which needs hardpath\\[sim]. May be repeated.",
    ),
]


class DeviceChoice(StrEnum):
    """Where training computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


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


class InterventionChoice(StrEnum):
    """What may stand in the latent's place."""

    ZERO = "zero"
    NOISE = "noise"
    SWAP = "swap"


def overrides_of(
    settings: Sequence[str] | None,
    *,
    seed: int | None = None,
    encoder: str | None = None,
    csv_path: Path | None = None,
    image_folder: Path | None = None,
) -> dict[str, str]:
    """--set and the options that stand for a key, as load_recipe takes them.

    Raises
    ------
    ArgumentError
        If a key is given in both ways, a setting is no KEY=VALUE, or the encoder's name is empty.
    """
    found = dict(_key_and_value(setting) for setting in settings or [])
    files = {"csv_path": csv_path, "image_folder": image_folder}
    for option, key, value in (
        ("--seed", "seed", seed),
        ("--encoder", "task_options.encoder", encoder),
        *((f"--{name.replace('_', '-')}", f"task_options.{name}", file) for name, file in files.items()),
    ):
        if value is not None and key in found:
            raise ArgumentError(option, f"must be absent beside --set {key}")
    # As they lie, so that the run can go on from anywhere.
    found |= {
        f"task_options.{name}": json.dumps(str(file.resolve())) for name, file in files.items() if file is not None
    }
    if seed is not None:
        found["seed"] = str(seed)
    if encoder is not None:
        found["task_options.encoder"] = json.dumps(_encoder(encoder))
    return found


def _encoder(name: str) -> str:
    """A name on the hub as it is; a folder as it lies, so that the run can go on from anywhere."""
    from train.hub import names_a_folder

    if not name.strip():
        raise ArgumentError("--encoder", "is empty: name a folder, an encoder on the hub, or scratch")
    return str(Path(name).expanduser().resolve()) if names_a_folder(name) else name


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
