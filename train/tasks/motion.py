"""Windows of a motion sensor: the transmitter sends each as a few codewords, and the receiver names the behaviour.

    recordings ─> channels, gaps, rate ─> windows ─> convolutions ─> tokens ─> link ─> head ─> behaviour

The data are recordings (`--data`): SisFall or PAMAP2 as they are published (link.motion_sets), or `.npz` and `.csv` with
channels, label and subject (link.recordings). Rows are windows, split by *subject*: whoever is measured on was not trained
on. Windows of training overlap; those of validation and test follow on one another, as they would be sent.

A trial of "sits down, waits, gets up" is labelled as one, but two seconds of waiting look alike in all trials. So a rule may
take windows in which nothing moves as a behaviour of their own (`task_options.still`); where there is none, a window has its
recording's label whatever it shows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.errors import ArgumentError
from link.interface import TensorSpec
from link.randomness import Draws, Stream
from link.recordings import UNLABELLED, Recording
from train.motion_rows import Options as Options
from train.motion_rows import Parts, cut_windows, part_subjects, read_usable, whole_windows
from train.tasks import Data, Split, WholeRecording

SKIP_BAD: Final = "skip_bad_recordings"
OF_RECORDINGS: Final = True
TRANSMITTER_OPTIONS: Final = ("rate_hz", "window")
TRANSMITTER_FACTS: Final = ("channels", "mean", "deviation")
_SCALE: Final = 0.1
_OFFSET: Final = 0.1
_WIDTHS: Final = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 2))
_KERNEL: Final = 5
_GROUPS: Final = 8
_HIDDEN: Final = 128
_LOGGER: Final = logging.getLogger(__name__)


def find(options: Options, folder: Path | None) -> dict[str, Any]:
    """Behaviours, channels, who is in which part, and each channel's mean and deviation over the training windows."""
    recordings = read_usable(options, folder)
    parts = part_subjects(options, sorted({recording.subject for recording in recordings}))
    train = cut_windows(options, [made for made in recordings if made.subject in parts.train], options.step, "train")
    classes = sorted(set(train.labels.tolist()))
    if len(classes) < 2:
        raise ArgumentError("data", f"must have two behaviours or more in training, got {', '.join(classes)} alone")
    mean = train.samples.mean(axis=(0, 1), dtype=np.float64)
    deviation = train.samples.std(axis=(0, 1), dtype=np.float64)
    if flat := [name for name, value in zip(recordings[0].channels, deviation, strict=True) if value == 0.0]:
        raise ArgumentError("data", f"channel {flat[0]} never changes: leave it out (task_options.channels)")
    return {
        "classes": classes,
        "channels": list(recordings[0].channels),
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
        "subjects": {name: sorted(subjects) for name, subjects in parts._asdict().items()},
    }


def build(options: Options, facts: Mapping[str, Any]) -> Motion:
    """The task from its facts."""
    return Motion(options, facts)


class Motion:
    """Windows, to one of the behaviours of the training subjects.

    Parameters
    ----------
    options : Options
    facts : mapping
        As `find` returns them.
    """

    name = "motion"

    def __init__(self, options: Options, facts: Mapping[str, Any]) -> None:
        self.options = options
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.channels: tuple[str, ...] = tuple(facts["channels"])
        self.mean: NDArray[np.float32] = np.array(facts["mean"], dtype=np.float32)
        self.deviation: NDArray[np.float32] = np.array(facts["deviation"], dtype=np.float32)
        self._subjects: Mapping[str, Sequence[str]] = facts["subjects"]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The window as it was recorded."""
        rate = f"{self.options.rate_hz:g} Hz"
        return (
            TensorSpec(
                name="window",
                dtype="float32",
                shape=("batch", self.options.window, len(self.channels)),
                description=f"Samples at {rate}, of each its channels: {', '.join(self.channels)}.",
            ),
        )

    def load(self, folder: Path | None) -> Data:
        """The windows of the recordings in `folder`."""
        recordings = read_usable(self.options, folder, self.channels)
        there = {recording.subject for recording in recordings}
        parts = Parts(*(frozenset(self._subjects[name]) for name in Parts._fields))
        known = frozenset().union(*parts)
        if missing := sorted(known - there):
            raise ArgumentError(
                "data",
                f"lacks {len(missing)} of the {len(known)} subjects that the model knows, {missing[0]} among them",
            )
        return Data(
            *(
                self._split([made for made in recordings if made.subject in subjects], name)
                for name, subjects in parts._asdict().items()
            )
        )

    def test_samples(self, folder: Path | None) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Windows and labels of everyone whom nothing was learned or chosen by, new people among them.

        Raises
        ------
        ArgumentError
            If there is nobody.
        """
        seen = {*self._subjects["train"], *self._subjects["validation"]}
        recordings = read_usable(self.options, folder, self.channels)
        others = [recording for recording in recordings if recording.subject not in seen]
        if not others:
            raise ArgumentError("data", f"{folder} has nobody but subjects of training and validation")
        split = self._split(others, "test")
        return dict(split.inputs), split.labels

    def recordings(self, path: Path) -> list[WholeRecording]:
        """The recordings of a path, of anyone, whose windows follow on one another; parts between gaps are one each."""
        options = self.options
        seconds = options.window / options.rate_hz
        found = read_usable(options, path, self.channels, labelled=False)
        of_name = Counter(recording.name for recording in found)
        seen: Counter[str] = Counter()
        asked, unknown = {UNLABELLED, *(options.behaviours or self.classes)}, set[str]()
        made = []
        for recording in found:
            name = recording.name
            if recording.labels is not None:
                unknown |= set(recording.labels.tolist()) - asked
            seen[name] += 1
            windows = whole_windows(options, recording)
            assert windows.labels is not None
            known = np.isin(windows.labels, self.classes)
            made.append(
                WholeRecording(
                    name if of_name[name] == 1 else f"{name}, part {seen[name]} of {of_name[name]}",
                    recording.subject,
                    recording.start_s + seconds * np.arange(len(windows.samples), dtype=np.float64),
                    {"window": windows.samples},
                    np.where(known, windows.labels, UNLABELLED),
                    f"{len(windows.samples)} windows of {seconds:g} s",
                )
            )
        if unknown:
            _LOGGER.warning(
                "%s: labels that the model does not know count as none: %s", path, ", ".join(sorted(unknown))
            )
        return made

    def augment(self, inputs: Mapping[str, NDArray[Any]], draws: Draws) -> Mapping[str, NDArray[Any]]:
        """Each channel scaled by a tenth or so, as of another sensor, and moved by a tenth of its deviation, as tilted."""
        windows = inputs["window"]
        rows, _, channels = windows.shape
        normals = draws.normals(Stream.AUGMENTATION, 0, channels).reshape(rows, 2, 1, channels).astype(np.float32)
        scale, offset = normals[:, 0], normals[:, 1]
        return {"window": windows * (1.0 + _SCALE * scale) + _OFFSET * self.deviation * offset}

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """Convolutions over time, and of what they find the mean and the peak, projected to the tokens."""
        return Encoder(self.mean, self.deviation, tokens, dim)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """One hidden layer on all tokens."""
        return nn.Sequential(
            nn.Flatten(1), nn.Linear(tokens * dim, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, len(self.classes))
        )

    def _split(self, recordings: Sequence[Recording], part: str) -> Split:
        options = self.options
        windows = cut_windows(options, recordings, options.step if part == "train" else options.window, part)
        known = {name: place for place, name in enumerate(self.classes)}
        unknown = np.array([label not in known for label in windows.labels.tolist()])
        if windows.across or windows.unnamed:
            _LOGGER.warning(
                "%s: windows are left out: %d across a change of label, %d of no label that is asked for",
                part,
                windows.across,
                windows.unnamed,
            )
        if unknown.any():
            _LOGGER.warning(
                "%s: %d windows are left out: %s is no behaviour of the training subjects",
                part,
                unknown.sum(),
                ", ".join(sorted(set(windows.labels[unknown].tolist()))),
            )
        if unknown.all():
            raise ArgumentError("data", f"no window of the {part} subjects has a behaviour of the training subjects")
        labels = np.array([known[label] for label in windows.labels[~unknown].tolist()], dtype=np.int64)
        return Split({"window": windows.samples[~unknown]}, labels, windows.stretch[~unknown])


class Encoder(nn.Module):
    """(B, T, C) samples to (B, tokens, dim).

    Parameters
    ----------
    mean, deviation : (C,) float32
        Of each channel; a window is sent as it was recorded, and is scaled here.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: NDArray[np.float32], deviation: NDArray[np.float32], tokens: int, dim: int) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("deviation", torch.from_numpy(deviation))
        layers: list[nn.Module] = []
        before = len(mean)
        for width, stride in _WIDTHS:
            layers += [
                nn.Conv1d(before, width, _KERNEL, stride, _KERNEL // 2),
                nn.GroupNorm(_GROUPS, width),
                nn.GELU(),
            ]
            before = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(2 * before, tokens * dim)

    def forward(self, window: Tensor) -> Tensor:
        """Tokens of each window."""
        scaled = (window - self.mean) / self.deviation
        found = self.layers(scaled.transpose(1, 2))
        tokens: Tensor = self.out(torch.cat([found.mean(dim=2), found.amax(dim=2)], dim=1))
        return tokens.reshape(-1, *self.shape)
