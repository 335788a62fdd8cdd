"""What an ablation says: baselines, a table and a plot, each over training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit

from link.montecarlo import CONFIDENCE
from link.plot import GREY, PALETTE, save_figure, styled_figure
from link.repetition import sweep_repetition
from train.ablation import KEPT, Measured
from train.ablation_design import Ablation, Defects, condition_name
from train.baseline import without_link
from train.tasks import load_task, task_facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class OverSeeds(NamedTuple):
    """What the training seeds gave.

    Attributes
    ----------
    mean, deviation : float
        Over seeds; the deviation is NaN for one seed.
    half_width : float
        Of the interval for the mean over all seeds there could be, by Student's t; NaN for one seed.
    """

    mean: float
    deviation: float
    half_width: float


class Baseline(BaseModel):
    """What one seed gives without a link, and by sending its decision.

    Attributes
    ----------
    no_link : float
        Accuracy of encoder and head with nothing between them, trained for as many epochs.
    repetition : mapping of channel to (mapping of Es/N0 in dB, as text, to accuracy)
        Its decision, repeated over as many QPSK symbols.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    no_link: float
    repetition: dict[str, dict[str, float]]


def over_seeds(values: Sequence[float], confidence: float = CONFIDENCE) -> OverSeeds:
    """Mean, standard deviation, and the interval's half-width.

    Examples
    --------
    >>> [round(value, 4) for value in over_seeds([0.9, 0.92, 0.94])]
    [0.92, 0.02, 0.0497]
    """
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return OverSeeds(mean, math.nan, math.nan)
    deviation = float(np.std(values, ddof=1))
    quantile = float(stdtrit(count - 1.0, 0.5 + 0.5 * confidence))
    return OverSeeds(mean, deviation, quantile * deviation / math.sqrt(count))


def measure_baselines(ablation: Ablation, out: Path, data_folder: Path | None = None) -> list[Baseline]:
    """One a seed, of the clean system and the first schedule's epochs; read from `out` where they are there."""
    found = []
    for seed in ablation.seeds:
        recipe = ablation.recipe_of(ablation.schedules[0], (), seed)
        without = without_link(recipe, out / "no-link" / f"seed-{seed}", data_folder=data_folder)
        task = load_task(recipe.task, recipe.task_options, task_facts(recipe, data_folder))
        labels = task.load(data_folder).test.labels
        repetition = {
            channel: {
                f"{point.snr_db:g}": point.accuracy.value
                for point in sweep_repetition(
                    without.decisions,
                    labels,
                    spec,
                    num_classes=len(task.classes),
                    num_symbols=recipe.link.num_symbols,
                )
            }
            for channel, spec in ablation.specs().items()
        }
        found.append(Baseline(seed=seed, no_link=without.accuracy, repetition=repetition))
    return found


def markdown(ablation: Ablation, done: Sequence[Measured], baselines: Sequence[Baseline]) -> str:
    """The table: one row a schedule, condition and checkpoint; per cent over seeds as mean ± deviation [± half-width]."""
    columns = _columns(ablation)
    head = ["schedule", "defects", "checkpoint", "epoch", "seeds", *(column.head for column in columns)]
    head += ["perplexity of a batch, training / evaluation", "active codes"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for schedule in ablation.schedules:
        for defects in ablation.conditions:
            for kept in KEPT:
                rows = select(done, schedule, defects, kept)
                if rows:
                    epochs = ", ".join(str(row.epoch) for row in rows)
                    cells = [percent_cell([column.value(row) for row in rows]) for column in columns]
                    name = condition_name(defects)
                    cells += [usage_cell(rows, "perplexity"), usage_cell(rows, "active")]
                    lines.append("| " + " | ".join([schedule, name, kept, epochs, str(len(rows)), *cells]) + " |")
    for name, cells in (
        ("label by repetition", [_repeated(baselines, column) for column in columns]),
        (
            "no link",
            [percent_cell([row.no_link for row in baselines]) if column.path != "gap" else "" for column in columns],
        ),
    ):
        lines.append("| " + " | ".join([f"**{name}**", "", "", "", str(len(baselines)), *cells, "", ""]) + " |")
    return "\n".join(lines) + "\n"


def select(done: Sequence[Measured], schedule: str, defects: Defects, kept: str) -> list[Measured]:
    """The seeds of one row."""
    return [row for row in done if (row.schedule, row.defects, row.checkpoint) == (schedule, defects, kept)]


class _Column(NamedTuple):
    """Accuracy of a path, or the gap between both: soft less hard."""

    path: Literal["soft", "hard", "gap"]
    channel: str
    snr_db: str
    head: str

    def value(self, row: Measured) -> float:
        """Of one checkpoint."""
        hard, soft = (paths[self.channel][self.snr_db] for paths in (row.hard, row.soft))
        return hard if self.path == "hard" else soft if self.path == "soft" else soft - hard


def _columns(ablation: Ablation) -> list[_Column]:
    """Soft, hard and their gap at each SNR of the first channel, and hard over the others."""
    first, *others = ablation.channels
    points = [f"{snr_db:g}" for snr_db in ablation.snr_db]
    heads: tuple[tuple[Literal["soft", "hard", "gap"], str], ...] = (
        ("soft", "soft"),
        ("hard", "hard"),
        ("gap", "soft - hard"),
    )
    columns = [_Column(path, first, snr, f"{head} {snr} dB") for path, head in heads for snr in points]
    return columns + [_Column("hard", channel, snr, f"hard {channel} {snr} dB") for channel in others for snr in points]


def _repeated(baselines: Sequence[Baseline], column: _Column) -> str:
    if column.path == "gap":
        return ""
    return percent_cell([row.repetition[column.channel][column.snr_db] for row in baselines])


def percent_cell(values: Sequence[float]) -> str:
    """A cell of a table, per cent over seeds: mean ± deviation [± half-width]; the mean alone for one seed."""
    found = over_seeds(values)
    if math.isnan(found.deviation):
        return f"{100 * found.mean:.1f}"
    return f"{100 * found.mean:.1f} ±{100 * found.deviation:.1f} [±{100 * found.half_width:.1f}]"


def usage_cell(rows: Sequence[BaseModel], field: Literal["perplexity", "active"]) -> str:
    """A cell of a table, mean over seeds: training / evaluation; empty where a seed has none."""
    pairs = [(getattr(row, f"{field}_training"), getattr(row, f"{field}_validation")) for row in rows]
    if any(value is None for pair in pairs for value in pair):
        return ""
    training, validation = (float(np.mean(values)) for values in zip(*pairs, strict=True))
    return f"{training:.1f} / {validation:.1f}"


def plot_ablation(
    ablation: Ablation, done: Sequence[Measured], baselines: Sequence[Baseline], path: Path
) -> tuple[Path, Path]:
    """Soft against hard of each condition over the first channel: a row of panels a schedule, a column an Es/N0.

    The last checkpoint; small points are seeds, large ones their mean. A hollow square is the mean of the best checkpoint's
    hard path.

    Parameters
    ----------
    path : Path
        Without suffix.

    Returns
    -------
    (png, svg)
    """
    channel = ablation.channels[0]
    shown = [schedule for schedule in ablation.schedules if any(row.schedule == schedule for row in done)]
    conditions = [defects for defects in ablation.conditions if any(row.defects == defects for row in done)]
    height = 1.2 + len(shown) * (0.4 + 0.26 * len(conditions))
    without = [100.0 * row.no_link for row in baselines]
    with styled_figure((3.4 + 1.8 * len(ablation.snr_db), max(height, 2.6))) as figure:
        panels = figure.subplots(len(shown), len(ablation.snr_db), sharex="col", sharey=True, squeeze=False)
        for row_of_panels, schedule in zip(panels, shown, strict=True):
            for axes, snr_db in zip(row_of_panels, ablation.snr_db, strict=True):
                for place, defects in enumerate(conditions):
                    _draw_condition(axes, place, done, schedule, defects, channel, f"{snr_db:g}")
                if without:
                    axes.axvline(float(np.mean(without)), color=GREY, linewidth=0.8, label="no link")
                axes.set_title(f"{schedule}, {snr_db:g} dB", loc="left", fontsize=8.5)
            row_of_panels[0].set_yticks(range(len(conditions)), [condition_name(d) for d in conditions], fontsize=7.5)
            row_of_panels[0].set_ylim(len(conditions) - 0.5, -0.5)
        for axes in panels[-1]:
            axes.set_xlabel(f"Accuracy (%), {channel}")
        handles, labels = panels[0][0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=4)
        return save_figure(figure, path)


_PATHS: Final = (("soft", PALETTE[1], -0.14), ("hard", PALETTE[0], 0.14))


def _draw_condition(
    axes: Axes, place: int, done: Sequence[Measured], schedule: str, defects: Defects, channel: str, snr_db: str
) -> None:
    """One line of a panel."""
    last = select(done, schedule, defects, "last")
    if not last:
        return
    for path, color, shift in _PATHS:
        values = [100.0 * getattr(row, path)[channel][snr_db] for row in last]
        axes.plot(values, [place + shift] * len(values), ".", color=color, alpha=0.5, markersize=4)
        axes.plot([float(np.mean(values))], [place + shift], "o", color=color, markersize=5.5, label=f"{path}, last")
    best = [100.0 * row.hard[channel][snr_db] for row in select(done, schedule, defects, "best")]
    axes.plot(
        [float(np.mean(best))],
        [place + 0.14],
        "s",
        markerfacecolor="none",
        color=PALETTE[0],
        markersize=8,
        label="hard, best",
    )
