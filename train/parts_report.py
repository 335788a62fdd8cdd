"""What an ablation of the receiver's parts says: a table and a plot, each over training seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from link.plot import GREY, PALETTE, save_figure, styled_figure
from train.ablation_report import over_seeds, percent_cell, usage_cell
from train.parts import COMBINATIONS, NO_LINK, Parts, PartScores, variant_name

Point = tuple[str, float | None]


def points_of(done: Sequence[PartScores]) -> list[Point]:
    """Channels and Es/N0, in the order of the measurement, none first."""
    return list(dict.fromkeys((row.channel, row.snr_db) for row in done))


def point_name(point: Point) -> str:
    """A point in words.

    Examples
    --------
    >>> point_name(("rayleigh", 6.0)), point_name((NO_LINK, None))
    ('rayleigh 6 dB', 'no link')
    """
    return point[0] if point[1] is None else f"{point[0]} {point[1]:g} dB"


def select(done: Sequence[PartScores], vq: bool, parts: Parts, point: Point) -> list[PartScores]:
    """The seeds of one variant at one point."""
    return [row for row in done if (row.vq, row.parts, (row.channel, row.snr_db)) == (vq, parts, point)]


def markdown(done: Sequence[PartScores]) -> str:
    """Two tables, one row a variant: at no link all that is measured, and macro-F1 at every point, per cent over seeds.

    A cell is mean ± deviation [± half the 95 % interval of the mean]; the gain is over windows decided by themselves, and
    its brackets are the interval over recordings, the mean of the seeds'.
    """
    points = points_of(done)
    head = ["variant", "seeds", "accuracy", "macro-F1", "gain", "calibration error", "bits", "symbols"]
    head += ["perplexity of a batch, training / evaluation", "active codes", "behaviours"]
    whole = [head, ["---"] * len(head)]
    by_point = [["macro-F1", *map(point_name, points)], ["---"] * (len(points) + 1)]
    for vq in (False, True):
        for parts in COMBINATIONS:
            rows = select(done, vq, parts, (NO_LINK, None))
            if not rows:
                continue
            name = variant_name(vq, parts)
            whole.append(
                [
                    name,
                    str(len(rows)),
                    _percent(rows, lambda row: row.accuracy),
                    _percent(rows, lambda row: row.macro_f1),
                    _gain(rows),
                    _percent(rows, lambda row: row.calibration_error),
                    str(rows[0].bits or ""),
                    str(rows[0].symbols or ""),
                    usage_cell(rows, "perplexity"),
                    usage_cell(rows, "active"),
                    _behaviours(rows),
                ]
            )
            cells = [select(done, vq, parts, point) for point in points]
            by_point.append([name, *(_percent(found, lambda row: row.macro_f1) if found else "" for found in cells)])
    return "\n\n".join("\n".join("| " + " | ".join(row) + " |" for row in table) for table in (whole, by_point)) + "\n"


def plot_parts(done: Sequence[PartScores], path: Path) -> tuple[Path, Path]:
    """Macro-F1 against Es/N0 of each variant with a codebook, a panel a channel; those without one are lines at the edge.

    Parameters
    ----------
    path : Path
        Without suffix.

    Returns
    -------
    (png, svg)
    """
    channels = [channel for channel in dict.fromkeys(row.channel for row in done) if channel != NO_LINK]
    with styled_figure((3.6 * max(len(channels), 1) + 0.6, 3.4)) as figure:
        panels = figure.subplots(1, max(len(channels), 1), sharey=True, squeeze=False)[0]
        for axes, channel in zip(panels, channels, strict=False):
            for parts, color in zip(COMBINATIONS, PALETTE, strict=False):
                points = [point for point in points_of(done) if point[0] == channel]
                found = [over_seeds([row.macro_f1 for row in select(done, True, parts, point)]) for point in points]
                snr_db = [point[1] or 0.0 for point in points]
                means = np.array([100.0 * each.mean for each in found])
                width = np.array([100.0 * each.half_width for each in found])
                axes.plot(snr_db, means, "o-", color=color, markersize=4, label=variant_name(True, parts))
                if not np.isnan(width).any():
                    axes.fill_between(snr_db, means - width, means + width, color=color, alpha=0.15, linewidth=0)
                without = select(done, False, parts, (NO_LINK, None))
                if without:
                    level = 100.0 * over_seeds([row.macro_f1 for row in without]).mean
                    axes.axhline(level, color=color, linewidth=0.7, linestyle=":")
            axes.set_title(channel, loc="left", fontsize=9)
            axes.set_xlabel("Es/N0 (dB)")
            axes.grid(color=GREY, linewidth=0.3, alpha=0.5)
        panels[0].set_ylabel("Macro-F1 of windows (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, title="dotted: without codebook and link")
        return save_figure(figure, path)


def _percent(rows: Sequence[PartScores], value: Callable[[PartScores], float]) -> str:
    return percent_cell([value(row) for row in rows])


def _gain(rows: Sequence[PartScores]) -> str:
    gains = [(row.gain, row.gain_low, row.gain_high) for row in rows if row.gain is not None]
    if not gains:
        return ""
    mean, low, high = (100.0 * float(np.mean(values)) for values in zip(*gains, strict=True))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _behaviours(rows: Sequence[PartScores]) -> str:
    found = [(row.behaviours, row.behaviours_low, row.behaviours_high) for row in rows if row.behaviours is not None]
    if not found:
        return ""
    mean, low, high = (float(np.mean(values)) for values in zip(*found, strict=True))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
