"""Figures of a link: waterfall curves, constellations, LLR histograms.

Each function writes `path` with .png and .svg. Figures are built as objects, without pyplot, so no backend is chosen and no
global state is left behind. The SVG holds no date and no random identifier: the same data gives the same file.

Colours are those of Okabe and Ito (2008, "Color universal design"), told apart by all common forms of colour vision; curves
differ in marker and dash too, so that a grey print can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.constellation import points as constellation_points
from link.errors import ArgumentError, MissingExtra
from link.montecarlo import CONFIDENCE, Proportion
from link.results import SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK: Final = "#000000"
GREY: Final = "#666666"
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito without black, which is for theory, and yellow, which is too light for a line."""

_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_DASHES: Final = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_STYLE: Final = {
    "font.size": 9.0,
    "axes.labelsize": 10.0,
    "axes.titlesize": 10.0,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d0d0d0",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "hardpath",
}
_LABEL_LETTERS: Final = 36
"""Of the longest label that has room for another beside it."""
_BINS: Final = 80
_BAND: Final = 0.2
_SCATTER_MAX: Final = 20_000
SNR_LABEL: Final = r"$E_\mathrm{s}/N_0$ (dB)"
EBN0_LABEL: Final = r"$E_\mathrm{b}/N_0$ (dB)"
METRICS: Final = {
    "accuracy": "Accuracy",
    "ber": "Bit error rate",
    "bler": "Block error rate",
    "bleu": "BLEU",
    **{f"bleu-{order}": f"BLEU-{order}" for order in range(1, 5)},
}
_RATES: Final = ("ber", "bler")
"""Metrics of which less is better: on a logarithmic axis."""


class Measured(Protocol):
    """A point with an accuracy: of a sweep, or of its baseline."""

    @property
    def snr_db(self) -> float: ...
    @property
    def accuracy(self) -> Proportion: ...


@dataclass(frozen=True)
class Curve:
    """One line of a waterfall.

    Parameters
    ----------
    label : str
    snr_db : sequence of float
        Es/N0, dB.
    values : sequence of Proportion or float
        What was measured, with its interval; or floats, where there is none.
    kind : {"measured", "baseline", "theory"}
        Solid with markers and a band; dashed with open markers; thin and black, without markers.
    """

    label: str
    snr_db: Sequence[float]
    values: Sequence[Proportion | float]
    kind: Literal["measured", "baseline", "theory"] = "measured"

    @classmethod
    def of_accuracy(
        cls, label: str, points: Iterable[Measured], kind: Literal["measured", "baseline"] = "measured"
    ) -> Curve:
        """Accuracy over samples and noise."""
        ordered = sorted(points, key=lambda point: point.snr_db)
        return cls(label, [point.snr_db for point in ordered], [point.accuracy for point in ordered], kind)

    @classmethod
    def of_ber(cls, label: str, points: Iterable[SweepPoint]) -> Curve:
        """Bit error rate of hard decisions, where any were judged."""
        judged = {point.snr_db: point.ber for point in points if point.ber is not None}
        return cls(label, sorted(judged), [judged[snr_db] for snr_db in sorted(judged)])


def waterfall(
    curves: Sequence[Curve],
    path: Path,
    *,
    metric: str = "accuracy",
    over_ebn0: bool = False,
    confidence: float = CONFIDENCE,
    title: str = "",
) -> tuple[Path, Path]:
    """Accuracy or BLEU (linear) or an error rate (logarithmic) against Es/N0, each interval as a band.

    Where no error was counted there is no point on a logarithmic axis, and none is made up: an arrow hangs from the upper
    limit of the interval.

    Parameters
    ----------
    curves : sequence of Curve
    path : Path
        Without suffix.
    metric : str
        One of METRICS.
    over_ebn0 : bool
        Whether the curves are against Eb/N0.
    confidence : float
        What the legend says of the bands.
    title : str

    Returns
    -------
    (png, svg)

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    if not curves:
        raise ArgumentError("curves", "must hold at least one curve")
    if metric not in METRICS:
        raise ArgumentError("metric", f"must be one of {', '.join(METRICS)}, got {metric!r}")
    with styled_figure((5.4, 4.2)) as figure:
        rate = metric in _RATES
        axes = figure.add_subplot(yscale="log" if rate else "linear")
        drawn = [_draw(axes, curve, style) for curve, style in zip(curves, _styles(curves), strict=True)]
        handles = list({line.get_label(): line for line in reversed(drawn)}.values())[::-1]
        handles += _explain(axes, curves, confidence)
        axes.set_xlabel(EBN0_LABEL if over_ebn0 else SNR_LABEL)
        axes.set_ylabel(METRICS[metric])
        axes.set_ylim(*((_ber_floor(curves), 1.2) if rate else (_accuracy_floor(curves), 1.01)))
        axes.set_title(title)
        # Outside, so that it covers no data whatever the curves do.
        longest = max(len(handle.get_label()) for handle in handles)
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if longest <= _LABEL_LETTERS else 1)
        return save_figure(figure, path)


def constellation(y: ArrayLike, order: int, path: Path, snr_db: float) -> tuple[Path, Path]:
    """Received symbols over the ideal points, with the decision thresholds.

    Parameters
    ----------
    y : (..., 2) float
        Equalised symbols as (I, Q), Es = 1; leave out those that were not sent.
    order : int
        QAM order.
    path : Path
        Without suffix.
    snr_db : float
        Es/N0, dB, for the title.

    Returns
    -------
    (png, svg)
    """
    received = np.asarray(y, dtype=np.float64)
    if received.shape[-1:] != (2,) or not received.size:
        raise ArgumentError("y", f"must be (..., 2) with at least one symbol, got {received.shape}")
    received = received.reshape(-1, 2)
    # An even stride keeps a drawing of millions of symbols small, and the same each time.
    received = received[:: -(-len(received) // _SCATTER_MAX)]
    ideal = constellation_points(order)
    levels = np.unique(ideal[:, 0])
    limit = max(1.3 * float(levels[-1]), min(float(np.quantile(np.abs(received), 0.999)), 3.0 * float(levels[-1])))
    outside = int(np.any(np.abs(received) > limit, axis=-1).sum())
    with styled_figure((4.4, 4.8)) as figure:
        axes = figure.add_subplot()
        axes.grid(visible=False)
        for threshold in (levels[1:] + levels[:-1]) / 2.0:
            axes.axhline(threshold, color=GREY, linewidth=0.5, linestyle=(0, (4, 3)), zorder=0)
            axes.axvline(threshold, color=GREY, linewidth=0.5, linestyle=(0, (4, 3)), zorder=0)
        label = f"received ({len(received):,}" + (f", {outside:,} outside)" if outside else ")")
        shown = axes.scatter(
            received[:, 0],
            received[:, 1],
            s=5,
            alpha=0.35,
            color=PALETTE[0],
            linewidths=0,
            rasterized=True,
            label=label,
        )
        size = 30.0 if order <= 64 else 8.0
        marks = axes.scatter(
            ideal[:, 0], ideal[:, 1], s=size, marker="+", color=PALETTE[1], linewidths=1.4, label="ideal"
        )
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.set_xlabel(r"In-phase ($E_\mathrm{s} = 1$)")
        axes.set_ylabel("Quadrature")
        axes.set_title(rf"{order}-QAM, $E_\mathrm{{s}}/N_0$ = {snr_db:g} dB")
        figure.legend(handles=[shown, marks], loc="outside lower center", ncols=2, markerscale=2)
        return save_figure(figure, path)


def llr_histogram(llr: ArrayLike, bits: ArrayLike, path: Path, clip: float | None = None) -> tuple[Path, Path]:
    """How LLRs are distributed where a 0 and where a 1 was sent; what lies on the wrong side of 0 is a bit error.

    Parameters
    ----------
    llr : (...) float
        ln P(b = 1) / P(b = 0), nats.
    bits : (...) int
        Bits sent, of the same shape.
    path : Path
        Without suffix.
    clip : float, optional
        Where the receiver clips; marked, with the share of LLRs that lie there.

    Returns
    -------
    (png, svg)
    """
    values, sent = np.asarray(llr, dtype=np.float64), np.asarray(bits)
    if values.shape != sent.shape or not values.size:
        raise ArgumentError("bits", f"must have the shape of llr and hold at least one bit, got {sent.shape}")
    reach = float(np.abs(values).max()) if clip is None else clip
    # An even count of bins puts an edge on 0, so that no bar mixes right decisions with wrong ones.
    edges = np.linspace(-reach, reach, _BINS + 1) if reach else np.array([-0.5, 0.5])
    with styled_figure((5.4, 4.0)) as figure:
        axes = figure.add_subplot()
        for bit, color in ((0, PALETTE[0]), (1, PALETTE[1])):
            chosen = np.clip(values[sent == bit], -reach, reach)
            if chosen.size:
                shares = np.histogram(chosen, edges)[0] / chosen.size
                label = f"{bit} sent ({chosen.size:,} bits, {np.mean((chosen > 0) != bit):.2%} decided wrongly)"
                axes.stairs(shares, edges, color=color, fill=True, alpha=0.25)
                axes.stairs(shares, edges, color=color, linewidth=1.2, label=label)
        if clip is not None:
            share = float(np.mean(np.abs(values) >= clip))
            for sign in (-1, 1):
                axes.axvline(
                    sign * clip,
                    color=BLACK,
                    linewidth=0.9,
                    linestyle=(0, (4, 3)),
                    label=f"clipped at ±{clip:g} ({share:.1%} of all)" if sign > 0 else None,
                )
        axes.axvline(0.0, color=GREY, linewidth=0.6)
        axes.set_yscale("log")
        axes.set_xlabel("LLR = ln P(b=1)/P(b=0) (nats)")
        axes.set_ylabel(f"Share of bits per {edges[1] - edges[0]:.2g} nats")
        figure.legend(loc="outside lower center", ncols=1)
        return save_figure(figure, path)


@contextmanager
def styled_figure(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in the style of this module, whatever the user's matplotlibrc says."""
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "sweep") from None
    with style.context(["default", _STYLE]):
        yield Figure(figsize=size, layout="constrained")


def _styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Colour, marker and dash of each curve: theory is black, one dash a label, the others take the palette in turn."""
    styles: list[dict[str, Any]] = []
    theories = list(dict.fromkeys(curve.label for curve in curves if curve.kind == "theory"))
    others = baselines = 0
    for curve in curves:
        if curve.kind == "theory":
            dash = ("-", *_DASHES)[theories.index(curve.label) % 4]
            styles.append({"color": BLACK, "linewidth": 1.0, "linestyle": dash, "zorder": 1.9})
            continue
        style: dict[str, Any] = {"color": PALETTE[others % len(PALETTE)], "marker": _MARKERS[others % len(_MARKERS)]}
        if curve.kind == "baseline":
            style |= {"linestyle": _DASHES[baselines % len(_DASHES)], "markerfacecolor": "white"}
            baselines += 1
        others += 1
        styles.append(style)
    return styles


def _draw(axes: Axes, curve: Curve, style: dict[str, Any]) -> Any:
    """One curve with its band; the line, for the legend."""
    snr_db = np.asarray(curve.snr_db, dtype=np.float64)
    value, low, high = np.array([_bounds(value) for value in curve.values], dtype=np.float64).reshape(-1, 3).T
    shown = np.ones(len(value), dtype=bool) if axes.get_yscale() == "linear" else value > 0.0
    (line,) = axes.plot(snr_db, np.where(shown, value, np.nan), label=curve.label, **style)
    axes.fill_between(snr_db, low, high, where=shown.tolist(), color=style["color"], alpha=_BAND, linewidth=0, zorder=1)
    if curve.kind != "theory":
        _hang(axes, snr_db[~shown], high[~shown], style["color"])
    return line


def _hang(axes: Axes, snr_db: NDArray[np.float64], limits: NDArray[np.float64], color: str) -> Any:
    """Arrows down from upper limits, four tenths of a decade long on a logarithmic axis."""
    return axes.errorbar(
        snr_db, limits, yerr=(1.0 - 10.0**-0.4) * limits, uplims=True, fmt="_", color=color, elinewidth=1.0
    )


def _explain(axes: Axes, curves: Sequence[Curve], confidence: float) -> list[Any]:
    """Legend entries for the bands and the arrows, where there are any."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    intervals = [value for curve in curves for value in curve.values if isinstance(value, Proportion)]
    handles: list[Any] = []
    if intervals:
        handles.append(Patch(facecolor=GREY, alpha=_BAND, label=f"{confidence * 100:g}% interval"))
    if axes.get_yscale() == "log" and any(value.value == 0.0 for value in intervals):
        arrow = Line2D([], [], color=GREY, marker=r"$\downarrow$", linestyle="", label="no error counted: upper limit")
        handles.append(arrow)
    return handles


def _bounds(value: Proportion | float) -> tuple[float, float, float]:
    return (value.value, value.low, value.high) if isinstance(value, Proportion) else (value, value, value)


def _ber_floor(curves: Sequence[Curve]) -> float:
    """The decade below the least that was measured; theory goes on below it, out of sight."""
    measured = [_bounds(value) for curve in curves if curve.kind != "theory" for value in curve.values]
    least = [low if low > 0.0 else 0.25 * high for _, low, high in measured if high > 0.0]
    return float(10.0 ** np.floor(np.log10(min(least)))) if least else 1e-8


def _accuracy_floor(curves: Sequence[Curve]) -> float:
    """The tenth below the least that is shown: what differs at the top should not be lost in an empty half."""
    least = min(_bounds(value)[1] for curve in curves for value in curve.values)
    return float(np.floor(10.0 * max(least, 0.0) - 1e-9) / 10.0) if least > 0.1 else 0.0


def save_figure(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write `path` with .png and .svg, without a date."""
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    if stem.name in ("", ".."):
        raise ArgumentError("path", f"must name a file, got {str(path)!r}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (stem.with_name(stem.name + suffix) for suffix in (".png", ".svg"))
    try:
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None})
    except ValueError:
        raise ArgumentError("label", r"or title has no formula between its $; write \$ for a dollar sign") from None
    return png, svg
