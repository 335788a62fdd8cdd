"""A training run as a picture: its phases, and what tells a collapse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from link.errors import ArgumentError
from link.plot import GREY, PALETTE, save_figure, styled_figure
from train.recipe import Recipe
from train.record import EpochRecord
from train.schedule import Phase
from train.usage import by_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHADES: Final = {Phase.WARMUP: "#f2f2f2", Phase.LEARNING: "#e3eef8", Phase.ALIGNMENT: "#fbe9dd"}


def plot_training(records: Sequence[EpochRecord], path: Path) -> tuple[Path, Path]:
    """Accuracy of both paths, temperature and assignment entropy, and consistency, epoch by epoch.

    Parameters
    ----------
    records : sequence of EpochRecord
        As `train.record.read_metrics` gives them.
    path : Path
        Without suffix.

    Returns
    -------
    (png, svg)
    """
    if not records:
        raise ArgumentError("records", "must hold at least one epoch")
    linked = [record for record in records if record.validation_collapse is not None]
    epochs = [record.epoch for record in linked]
    with styled_figure((6.4, 6.4)) as figure:
        accuracy, temperature, consistency = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1.2, 1))
        for axes in (accuracy, temperature, consistency):
            _shade(axes, records)
        without = [record for record in records if record.validation_no_link is not None]
        accuracy.plot(
            [record.epoch for record in without],
            [record.validation_no_link or 0.0 for record in without],
            color=GREY,
            label="without a link",
        )
        accuracy.plot(epochs, [record.soft_mean or 0.0 for record in linked], color=PALETTE[1], label="soft")
        accuracy.plot(epochs, [record.hard_mean or 0.0 for record in linked], color=PALETTE[0], label="hard")
        best = [record for record in linked if record.is_best][-1:]
        accuracy.plot(
            [record.epoch for record in best],
            [record.hard_mean or 0.0 for record in best],
            "k*",
            markersize=9,
            label="best",
        )
        accuracy.set_ylabel("Validation accuracy,\nmean over the SNR grid")
        accuracy.legend(loc="lower right", ncols=2)
        temperature.plot(epochs, [record.vq_temp for record in linked], color=PALETTE[2], label="temperature T")
        entropies = [record.validation_collapse.h_assign for record in linked if record.validation_collapse]
        temperature.plot(epochs, entropies, color=PALETTE[3], label="assignment entropy (nats)")
        temperature.set_ylim(bottom=0.0)
        temperature.legend(loc="upper right", ncols=2)
        drift = [record.validation_collapse.consistency for record in linked if record.validation_collapse]
        consistency.plot(epochs, drift, color=PALETTE[0])
        consistency.set_ylim(bottom=0.0)
        consistency.set_ylabel(r"$\|H_\mathrm{soft} - H_\mathrm{hard}\|^2$")
        consistency.set_xlabel("Epoch")
        return save_figure(figure, path)


def plot_diagnosis(records: Sequence[EpochRecord], recipe: Recipe, path: Path) -> tuple[Path, Path]:
    """Every curve that tells a collapse, epoch by epoch, each with the threshold of its alarm.

    From the top: accuracy of both paths; their gap; usage entropy of codewords and symbols as shares of ln K and ln M, and
    the assignment's in nats beside the temperature; the perplexity of single batches, their mean and from the least to the
    greatest; consistency; validation's task loss over training's, and token drift. At the bottom the last epoch's histogram:
    what share of the tokens each codeword has, by its rank, training and validation over each other.

    Parameters
    ----------
    records : sequence of EpochRecord
        As `train.record.read_metrics` gives them; what a run of an older version did not record is left out.
    recipe : Recipe
        Whose thresholds are drawn.
    path : Path
        With or without suffix.

    Returns
    -------
    (png, svg)
    """
    if not records:
        raise ArgumentError("records", "must hold at least one epoch")
    limits, ln_k, ln_m = recipe.alarms, math.log(recipe.link.codewords), math.log(recipe.link.order)
    counted = [record for record in records if record.code_counts]
    with styled_figure((6.8, 13.0 if counted else 10.8)) as figure:
        if counted:
            upper, lower = figure.subfigures(2, 1, height_ratios=(10.8, 2.2), squeeze=False)[:, 0]
            _histograms(lower.subplots(1, len(counted[-1].code_counts), squeeze=False)[0], counted[-1])
        else:
            upper = figure
        panels = upper.subplots(7, 1, sharex=True, height_ratios=(2, 1, 1.2, 1.2, 1.2, 1, 1.2))
        accuracy, gap, usage, temperature, batches, consistency, drift = panels
        for axes in panels:
            _shade(axes, records)
        _curve(accuracy, records, lambda record: record.validation_no_link, "without a link", GREY)
        _curve(accuracy, records, lambda record: record.train_accuracy, "training", PALETTE[2])
        _curve(accuracy, records, lambda record: record.soft_mean, "soft", PALETTE[1])
        _curve(accuracy, records, lambda record: record.hard_mean, "hard", PALETTE[0])
        accuracy.set_ylabel("Accuracy,\nmean over the grid")
        _curve(gap, records, _gap, "soft less hard", PALETTE[0])
        _threshold(gap, limits.soft_hard_gap, -limits.soft_hard_gap)
        gap.set_ylabel("Gap (points)")
        _curve(usage, records, _collapse("vq_entropy", ln_k), "codewords / ln K", PALETTE[0])
        _curve(usage, records, _collapse("symbol_entropy", ln_m), "symbols / ln M", PALETTE[1])
        _threshold(usage, limits.usage_entropy)
        usage.set_ylim(0.0, 1.05)
        usage.set_ylabel("Usage entropy")
        _curve(temperature, records, lambda record: record.vq_temp, "temperature T", PALETTE[2])
        _curve(temperature, records, _collapse("h_assign"), "assignment\nentropy (nats)", PALETTE[3])
        _threshold(temperature, limits.h_assign_high, limits.h_assign_low)
        temperature.set_ylim(bottom=0.0)
        _batches(batches, records)
        _curve(consistency, records, _collapse("consistency"), "validation", PALETTE[0])
        _threshold(consistency, limits.consistency)
        consistency.set_ylim(bottom=0.0)
        consistency.set_ylabel(r"$\|H_\mathrm{soft} - H_\mathrm{hard}\|^2$")
        _curve(drift, records, lambda record: record.overfitting, "task loss,\nvalidation / training", PALETTE[1])
        _curve(drift, records, _drift, "token drift\n(deviations)", PALETTE[4])
        _threshold(drift, limits.overfitting_ratio, limits.token_drift)
        drift.set_ylim(bottom=0.0)
        drift.set_xlabel("Epoch")
        for axes in panels:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save_figure(figure, path)


def _batches(axes: Axes, records: Sequence[EpochRecord]) -> None:
    """Perplexity of single batches in training and evaluation; nothing where it was not recorded."""
    for which, label, color in (("train", "training", PALETTE[2]), ("validation", "validation", PALETTE[0])):
        metrics = [(record.epoch, getattr(record, f"{which}_collapse")) for record in records]
        known = [(epoch, found.batches.perplexity) for epoch, found in metrics if found and found.batches]
        if known:
            epochs = [epoch for epoch, _ in known]
            axes.plot(epochs, [spread.mean for _, spread in known], color=color, label=f"{label}, a batch")
            least, greatest = ([getattr(spread, end) for _, spread in known] for end in ("least", "greatest"))
            axes.fill_between(epochs, least, greatest, color=color, alpha=0.2, linewidth=0)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("Perplexity")


def _histograms(panels: Sequence[Axes], record: EpochRecord) -> None:
    """One panel a codebook: shares of the tokens by the rank of the codeword."""
    for axes, (size, counts) in zip(panels, record.code_counts.items(), strict=True):
        for sent, label, color in (
            (counts.training, "training", PALETTE[2]),
            (counts.validation, "validation", PALETTE[0]),
        ):
            shares = 100.0 * by_rank(sent)
            axes.stairs(shares, np.arange(len(shares) + 1) + 0.5, color=color, label=label, fill=True, alpha=0.35)
        axes.axhline(100.0 / len(counts.training), color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="even usage")
        axes.set_xlabel(f"Rank of the codeword, of {size}; epoch {record.epoch}")
        axes.set_ylabel("Tokens (%)")
        axes.legend(loc="upper right")


def _collapse(name: str, unit: float = 1.0) -> Callable[[EpochRecord], float | None]:
    """A collapse metric of the validation set, in that unit."""

    def value(record: EpochRecord) -> float | None:
        metrics = record.validation_collapse
        return None if metrics is None else float(getattr(metrics, name)) / unit

    return value


def _drift(record: EpochRecord) -> float | None:
    return None if record.token_drift is None else record.token_drift.frechet


def _gap(record: EpochRecord) -> float | None:
    if record.soft_mean is None or record.hard_mean is None:
        return None
    return 100.0 * (record.soft_mean - record.hard_mean)


def _curve(
    axes: Axes, records: Sequence[EpochRecord], value: Callable[[EpochRecord], float | None], label: str, color: str
) -> None:
    """One curve over the epochs in which its value is known; nothing where it never is."""
    known = [(record.epoch, found) for record in records if (found := value(record)) is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=color, label=label)


def _threshold(axes: Axes, *values: float) -> None:
    for value in values:
        axes.axhline(value, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def _shade(axes: Axes, records: Sequence[EpochRecord]) -> None:
    """Colour the epochs of each phase, and name it in the upper panel."""
    for phase, shade in _SHADES.items():
        epochs = [record.epoch for record in records if record.phase is phase]
        if not epochs:
            continue
        axes.axvspan(epochs[0] - 0.5, epochs[-1] + 0.5, color=shade, zorder=0, linewidth=0)
        if axes.get_subplotspec() is not None and axes.get_subplotspec().is_first_row():  # type: ignore[union-attr]
            axes.text(
                (epochs[0] + epochs[-1]) / 2.0,
                1.01,
                phase.value.lower(),
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=8.5,
            )
