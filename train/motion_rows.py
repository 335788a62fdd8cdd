"""Rows of the motion task: recordings brought to one rate and cut into windows, and who is in which part.

recordings ─> channels, gaps, rate (link.windows) ─> windows ─> behaviours, by label and by the rule of what is still
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from link.errors import ArgumentError
from link.motion_sets import UNLABELLED, read_motion
from link.randomness import permutation
from link.recordings import Recording
from link.windows import Windows, all_windows_of, channels_of, ratio_of_rates, resampled, windows_of, without_gaps

HOLDOUT_SEED: Final = 20_000
_VALIDATION_SHARE: Final = 0.15
_TEST_SHARE: Final = 0.2
_LOGGER: Final = logging.getLogger(__name__)

Subjects = Annotated[tuple[str, ...], Field(min_length=1)]


class StillRule(BaseModel):
    """When nothing moves in a window.

    Attributes
    ----------
    name : str
        What that behaviour is called.
    channels : tuple of str
        Those that are looked at.
    below : float
        Root of the sum of their variances in the window, in the unit of the channels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "still"
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    below: Annotated[float, Field(gt=0)]


class Options(BaseModel):
    """Options of the task.

    Attributes
    ----------
    rate_hz : float
        Samples a second; recordings of another rate are resampled.
    source_rate_hz : float, optional
        Rate of recordings that do not say it; where absent they are taken for `rate_hz`.
    window, step : int
        Samples of a window, and from one to the next in training.
    channels : tuple of str, optional
        Which channels are sent, in order; where absent, all of the first recording.
    classes : mapping of name to tuple of str
        Labels that make a behaviour; recordings of other labels are left out. Where empty, each label is one.
    still : StillRule, optional
    validation_subjects, test_subjects : tuple of str, optional
        Who is held out; where absent some are drawn, the same ones whatever the seed of the run.
    longest_gap_s : float
        Missing samples in a row, in seconds, that are filled in; at longer gaps a recording is cut.
    skip_bad_recordings : bool
        Whether recordings that cannot be used are counted and left out, in place of ending with the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: Annotated[float, Field(gt=0, le=10_000)] = 50.0
    source_rate_hz: Annotated[float, Field(gt=0, le=100_000)] | None = None
    window: Annotated[int, Field(ge=16, le=4096)] = 100
    step: Annotated[int, Field(ge=1)] = 50
    channels: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    classes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    still: StillRule | None = None
    validation_subjects: Subjects | None = None
    test_subjects: Subjects | None = None
    longest_gap_s: Annotated[float, Field(ge=0)] = 0.2
    skip_bad_recordings: bool = False

    @model_validator(mode="after")
    def _check(self) -> Options:
        if (self.validation_subjects is None) != (self.test_subjects is None):
            raise ValueError("validation_subjects and test_subjects are given together, or not at all")
        both = set(self.validation_subjects or ()) & set(self.test_subjects or ())
        if both:
            raise ValueError(f"{min(both)} is named in validation_subjects and in test_subjects: each is in one part")
        labels = [label for merged in self.classes.values() for label in merged]
        if twice := [label for label, count in Counter(labels).items() if count > 1]:
            raise ValueError(f"classes name the label {twice[0]} twice")
        if twice := [name for name, count in Counter(self.channels or ()).items() if count > 1]:
            raise ValueError(f"channels name {twice[0]} twice")
        if self.still is not None and self.still.name in self.classes:
            raise ValueError(f"classes and still both name {self.still.name}")
        return self

    @property
    def behaviours(self) -> Mapping[str, str]:
        """Behaviour of each label that has another name."""
        return {label: name for name, merged in self.classes.items() for label in merged}


class Parts(NamedTuple):
    """Who is in which part."""

    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]


class LabelledWindows(NamedTuple):
    """Windows of many recordings.

    Attributes
    ----------
    samples : (n, T, C) float32
    labels : (n,) str
        Behaviours.
    stretch : (n,) int64
        The same number for windows of one recording, in order. It does not change where windows are left out between
        them: where a behaviour ends is what labels tell, and a model of what follows on what has to find out.
    across, unnamed : int
        Windows that are left out: across a change of label, and of labels that are none or are not asked for.
    """

    samples: NDArray[np.float32]
    labels: NDArray[np.str_]
    stretch: NDArray[np.int64]
    across: int = 0
    unnamed: int = 0


def read_usable(
    options: Options, folder: Path | None, channels: Sequence[str] | None = None, *, labelled: bool = True
) -> list[Recording]:
    """The recordings that can be used, at the rate and with the channels that are asked for.

    Parameters
    ----------
    labelled : bool
        Whether those without labels are of no use.
    """
    if folder is None:
        raise ArgumentError("data", "must name recordings of motion: SisFall, PAMAP2, .npz or .csv (--data)")
    wrong: list[str] = []
    found = read_motion(folder, wrong if options.skip_bad_recordings else None)
    if not found:
        raise ArgumentError("data", f"{folder} has no file that can be used; the first: {wrong[0]}")
    if labelled and all(recording.labels is None for recording in found):
        raise ArgumentError("data", f"{folder} has no labels: a column or an array `label`")
    files = len(wrong)
    wanted = tuple(channels or options.channels or found[0].channels)
    made: list[Recording] = []
    rates: Counter[float] = Counter()
    filled = cut = 0
    for recording in found:
        rate = recording.rate_hz or options.source_rate_hz or options.rate_hz
        try:
            if labelled and recording.labels is None:
                raise ArgumentError("data", f"{recording.name}: has no labels, which others have")
            whole = channels_of(recording._replace(rate_hz=rate), wanted)
            parts, count = without_gaps(whole, math.floor(options.longest_gap_s * rate))
            parts = [resampled(part, options.rate_hz) for part in parts]
            usable = [part for part in parts if len(part.samples) >= options.window]
            if not usable:
                raise ArgumentError("data", _too_short(recording, parts, options))
        except ArgumentError as error:
            if not options.skip_bad_recordings:
                raise
            wrong.append(error.message)
            continue
        made += usable
        rates[rate] += 1
        filled, cut = filled + count, cut + len(parts) - 1
    if files:
        _LOGGER.warning("%s: %d files are left out; the first, %s", folder, files, wrong[0])
    _tell(folder, options, found, rates, wrong[files:], filled, cut)
    if labelled:
        _tell_who_may_be_one(folder, made)
    if options.channels is None and (more := {name for each in found for name in each.channels} - set(wanted)):
        _LOGGER.warning("%s: channels that not all have are left out: %s", folder, ", ".join(sorted(more)))
    if not made:
        raise ArgumentError("data", f"{folder} has no recording that can be used; the first: {wrong[0]}")
    return made


def _too_short(recording: Recording, parts: Sequence[Recording], options: Options) -> str:
    empty = np.isnan(recording.samples).all(axis=0)
    if not parts and empty.any():
        named = [recording.channels[place] for place in np.flatnonzero(empty)]
        return f"{recording.name}: has no sample of channel {', '.join(named)}"
    longest = max((len(part.samples) for part in parts), default=0)
    gaps = " between its gaps" if len(parts) != 1 else ""
    return f"{recording.name}: a window is {options.window} samples at {options.rate_hz:g} Hz, it has {longest}{gaps}"


def _tell(
    folder: Path,
    options: Options,
    found: Sequence[Recording],
    rates: Mapping[float, int],
    wrong: Sequence[str],
    filled: int,
    cut: int,
) -> None:
    """Say what was done to the recordings, each in a line."""
    others = {rate: count for rate, count in rates.items() if ratio_of_rates(rate, options.rate_hz) != 1}
    if others:
        low, high = min(others), max(others)
        _LOGGER.warning(
            "%s: %d recordings are resampled from %s Hz to %g Hz",
            folder,
            sum(others.values()),
            f"{low:g}" if low == high else f"{low:g} to {high:g}",
            options.rate_hz,
        )
    unsaid = sum(recording.rate_hz is None for recording in found)
    if unsaid and options.source_rate_hz is None:
        _LOGGER.warning(
            "%s: %d recordings do not say their rate and are taken for %g Hz; task_options.source_rate_hz says another",
            folder,
            unsaid,
            options.rate_hz,
        )
    if filled or cut:
        _LOGGER.warning("%s: %d missing samples are filled in, recordings are cut at %d gaps", folder, filled, cut)
    if wrong:
        _LOGGER.warning("%s: %d of %d recordings are left out; the first, %s", folder, len(wrong), len(found), wrong[0])


def _tell_who_may_be_one(folder: Path, recordings: Sequence[Recording]) -> None:
    """Say where two subjects may be one person, who would be learned from and measured on."""
    of_samples: dict[bytes, set[str]] = {}
    for recording in recordings:
        digest = hashlib.sha256(recording.samples.tobytes()).digest()
        of_samples.setdefault(digest, set()).add(recording.subject)
    of_name: dict[str, set[str]] = {}
    for recording in recordings:
        of_name.setdefault(recording.subject.casefold(), set()).add(recording.subject)
    for what, groups in (("have a recording in common", of_samples), ("differ in case alone", of_name)):
        alike = sorted(", ".join(sorted(subjects)) for subjects in groups.values() if len(subjects) > 1)
        if alike:
            _LOGGER.warning("%s: subjects %s and are taken for different people: %s", folder, what, alike[0])


def part_subjects(options: Options, subjects: Sequence[str]) -> Parts:
    """Who is in which part: as the options say, or drawn."""
    if options.validation_subjects is not None and options.test_subjects is not None:
        held = (options.validation_subjects, options.test_subjects)
        if unknown := [name for named in held for name in named if name not in subjects]:
            raise ArgumentError("data", f"has no subject {unknown[0]}; it has {', '.join(subjects)}")
    else:
        if len(subjects) < 3:
            raise ArgumentError(
                "data", f"needs three subjects or more, one a part, got {', '.join(subjects)}: a column `subject`"
            )
        order = [subjects[place] for place in permutation(HOLDOUT_SEED, len(subjects))]
        test = max(1, round(_TEST_SHARE * len(order)))
        last = test + max(1, round(_VALIDATION_SHARE * len(order)))
        held = (tuple(order[test:last]), tuple(order[:test]))
    validation, test_subjects = map(frozenset, held)
    train = frozenset(subjects) - validation - test_subjects
    if not train:
        raise ArgumentError("data", "leaves no subject to train on: all are named for validation or test")
    return Parts(train, validation, test_subjects)


def cut_windows(options: Options, recordings: Sequence[Recording], step: int, part: str) -> LabelledWindows:
    """The windows of recordings of a part, each with its behaviour.

    Windows of training overlap: those that begin at a multiple of a window's length make a stretch, and so do the others.
    """
    samples, labels = [], []
    stretches: list[NDArray[np.int64]] = []
    possible = whole = unnamed = 0
    offsets = range(0, options.window, step) if options.window % step == 0 else (0,)
    stride = options.window if options.window % step == 0 else step
    number = -1
    for recording in recordings:
        for offset in offsets:
            number += 1
            possible += len(range(offset, len(recording.samples) - options.window + 1, stride))
            for stretch in windows_of(recording, options.window, stride, offset):
                behaviours = _behaviours(options, recording.channels, stretch.samples, stretch.labels)
                kept = behaviours != UNLABELLED
                unnamed += int((~kept).sum())
                whole += len(kept)
                if kept.any():
                    samples.append(stretch.samples[kept])
                    labels.append(behaviours[kept])
                    stretches.append(np.full(int(kept.sum()), number, dtype=np.int64))
    if not samples:
        raise ArgumentError(
            "data", f"no window of the {part} subjects has a label that is asked for: see task_options.classes"
        )
    return LabelledWindows(
        np.concatenate(samples), np.concatenate(labels), np.concatenate(stretches), possible - whole, unnamed
    )


def whole_windows(options: Options, recording: Recording) -> Windows:
    """The windows of a recording, none left out, each with its behaviour; UNLABELLED where nothing is known or asked."""
    every = all_windows_of(recording, options.window)
    return every._replace(labels=_behaviours(options, recording.channels, every.samples, every.labels))


def _behaviours(
    options: Options,
    channels: Sequence[str],
    samples: NDArray[np.float32],
    labels: NDArray[np.str_] | None,
) -> NDArray[np.str_]:
    """What is done in each window; UNLABELLED where nothing is known or asked."""
    if labels is None:
        return np.full(len(samples), UNLABELLED)
    named = options.behaviours
    behaviours = np.array([named.get(label, "" if named else label) for label in labels.tolist()], dtype=object)
    rule = options.still
    if rule is not None:
        if missing := [name for name in rule.channels if name not in channels]:
            raise ArgumentError(
                "task_options.still", f"looks at {missing[0]}, which is no channel: {', '.join(channels)}"
            )
        places = [channels.index(name) for name in rule.channels]
        moved = np.sqrt(samples[..., places].var(axis=1, dtype=np.float64).sum(axis=-1))
        behaviours[(moved < rule.below) & (behaviours != UNLABELLED)] = rule.name
    return behaviours.astype(np.str_)
