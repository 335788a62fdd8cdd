"""The benchmark's pictures: time against symbols, orders, points and workers, and ratios against orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.growth import ARRAYS, Growth
from benchmarks.physical import Chain
from benchmarks.workers import Scaling

_BLUE, _ORANGE, _GREY, _GREEN = "#0072B2", "#D55E00", "#666666", "#009E73"
_COLOURS: Final = {ARRAYS: _BLUE}
_LABELS: Final = {
    "symbols": "symbols",
    "order": "QAM order",
    "points": "SNR points",
}


def draw(folder: Path, growth: Sequence[Growth], workers: Sequence[Scaling], chains: Sequence[Chain]) -> list[str]:
    """growth and ratios as SVG and PNG; names of the files."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {
        "svg.hashsalt": "hardpath",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
    }
    made = []
    with pyplot.rc_context(style):
        for name, figure in (
            ("growth", _growth(pyplot, growth, workers)),
            ("ratios", _ratios(pyplot, chains)),
        ):
            for panel in figure.axes:
                _plain_numbers(panel)
            for kind in ("svg", "png"):
                figure.savefig(folder / f"{name}.{kind}", dpi=160, metadata={"Date": None} if kind == "svg" else None)
                made.append(f"{name}.{kind}")
            pyplot.close(figure)
    return made


def _plain_numbers(panel: Any) -> None:
    """1000 and 0.01 instead of powers of ten."""
    for axis in (panel.xaxis, panel.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")


def _growth(pyplot: Any, growth: Sequence[Growth], workers: Sequence[Scaling]) -> Any:
    figure, panels = pyplot.subplots(2, 2, figsize=(8.0, 6.0), layout="constrained")
    for panel, along in zip(panels.flat, _LABELS, strict=False):
        for curve in growth:
            if curve.along != along:
                continue
            colour = _COLOURS.get(curve.subject, _ORANGE)
            panel.plot(curve.sizes, curve.ms, "o-", color=colour, markersize=4, label=curve.subject)
            if along != "order":
                linear = [curve.ms[-1] * size / curve.sizes[-1] for size in curve.sizes]
                panel.plot(curve.sizes, linear, ":", color=colour, linewidth=1.0)
        panel.set(xscale="log", yscale="log", xlabel=_LABELS[along], ylabel="time, ms")
        if along == "order":
            _label_orders(panel, sorted({size for curve in growth if curve.along == along for size in curve.sizes}))
            least, most = (f([ms for curve in growth if curve.along == along for ms in curve.ms]) for f in (min, max))
            panel.set_ylim(10.0 ** math.floor(math.log10(least)), 10.0 ** math.ceil(math.log10(most)))
    panels.flat[0].legend()
    last = panels.flat[3]
    last.plot(
        [s.workers for s in workers], [s.speedup.median for s in workers], "o-", color=_ORANGE, label="fused kernel"
    )
    last.plot([s.workers for s in workers], [s.workers for s in workers], ":", color=_GREY, label="ideal")
    last.set(xlabel="worker processes", ylabel="times one worker's speed", xticks=[s.workers for s in workers])
    last.legend()
    return figure


def _label_orders(panel: Any, orders: Sequence[int]) -> None:
    panel.set_xticks(orders, [str(order) for order in orders])
    panel.minorticks_off()


def _ratios(pyplot: Any, chains: Sequence[Chain]) -> Any:
    figure, panel = pyplot.subplots(figsize=(5.6, 4.0), layout="constrained")
    orders = [chain.order for chain in chains]
    for label, colour, mark, ratios in (
        ("fused kernel, Sionna eager", _ORANGE, "o-", [chain.kernel_eager for chain in chains]),
        ("fused kernel, Sionna at its best", _ORANGE, "s--", [chain.kernel for chain in chains]),
        ("array path, Sionna eager", _BLUE, "o-", [chain.arrays_eager for chain in chains]),
        ("array path, Sionna at its best", _BLUE, "s--", [chain.arrays for chain in chains]),
    ):
        middle = [ratio.median for ratio in ratios]
        spread = [
            [ratio.median - ratio.low for ratio in ratios],
            [ratio.high - ratio.median for ratio in ratios],
        ]
        panel.errorbar(orders, middle, yerr=spread, fmt=mark, color=colour, markersize=4, capsize=2, label=label)
    panel.axhline(1.0, color=_GREY, linewidth=1.0)
    panel.set(xscale="log", yscale="log", xlabel="QAM order", ylabel="Sionna's time over hardpath's, one thread")
    _label_orders(panel, orders)
    panel.legend(fontsize=8)
    return figure
