"""Figures of a run over a radio, in the style of link.plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from link.errors import ArgumentError
from link.plot import GREY, PALETTE, SNR_LABEL, save_figure, styled_figure
from link.radio.operation.figures import Moment


def over_time(moments: Sequence[Moment], path: Path, title: str = "") -> tuple[Path, Path]:
    """Es/N0 and carrier frequency offset over the time of a run; exchanges that lost frames are marked.

    Parameters
    ----------
    moments : sequence of Moment
        One at least.
    path : Path
        Without suffix.
    title : str

    Returns
    -------
    (png, svg)
    """
    if not moments:
        raise ArgumentError("moments", "must hold at least one")
    seconds, _, lost, snr_db, cfo, *_ = np.array(moments, dtype=np.float64).T
    with styled_figure((5.6, 4.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, values, label, color in (
            (upper, snr_db, SNR_LABEL, PALETTE[0]),
            (lower, 1e3 * cfo, r"CFO ($10^{-3}$ cycles a sample)", PALETTE[1]),
        ):
            axes.plot(seconds, values, color=color, marker="o", markersize=2.5, linewidth=1.0)
            axes.set_ylabel(label)
        losses = seconds[lost > 0]
        if len(losses):
            marks = upper.vlines(
                losses, 0.0, 1.0, transform=upper.get_xaxis_transform(), color=GREY, linewidth=0.6, alpha=0.6
            )
            marks.set_label(f"frames lost ({int(lost.sum()):,})")
            figure.legend(handles=[marks], loc="outside lower center")
        lower.set_xlabel("Time (s)")
        lower.ticklabel_format(axis="y", useOffset=False)
        if title:
            upper.set_title(title)
        return save_figure(figure, path)
