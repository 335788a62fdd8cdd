"""The two phases of a training run, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from link.errors import ArgumentError
from link.plot import GREY, PALETTE, save_figure, styled_figure
from train.record import EpochRecord
from train.schedule import Phase

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
