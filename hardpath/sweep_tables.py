"""What people see of a finished sweep: its table on stdout, its plots beside the results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hardpath.terminal import GOES_ON, INTERRUPTED, note, percent, say, say_json, say_table

if TYPE_CHECKING:
    from link.baseline import BaselinePoint
    from link.ber import BerPoint, BerResult
    from link.compare import Comparison, Difference
    from link.montecarlo import Proportion
    from link.results import RadioPoint, SweepPoint, SweepResult, TextPoint

_BER_HEAD: Final = (
    "Es/N0 dB", "Eb/N0 dB", "BER", "interval", "bit errors", "theory", "BLER", "its interval", "best code", "blocks",
    "stopped by",
)  # fmt: skip
_RADIO_HEAD: Final = ("measured dB", "frames lost", "CRC failed", "PAPR dB")
_TEXT_HEAD: Final = ("BLEU-1", "interval", "BLEU-4", "exact %", "symbols a word")


@contextmanager
def shown_where_interrupted(show: Callable[[Any], None], out: Path | None) -> Iterator[None]:
    """Show what a sweep had found where Ctrl-C ends it, and say whether it is kept."""
    from link.simulator import Interrupted

    try:
        yield
    except Interrupted as interrupted:
        show(interrupted.result)
        note(f"hardpath: interrupted{'; without --out nothing is kept' if out is None else GOES_ON}")
        sys.exit(INTERRUPTED)


def show_sweep(
    result: SweepResult, beside: Mapping[str, Sequence[BaselinePoint]], out: Path | None, *, as_json: bool
) -> None:
    """Of a bundle, with baselines by name."""
    if out is not None and result.points:
        with plots_are_extra():
            _plot_sweep(result, beside, out)
    if as_json:
        dumped = {name: [point.model_dump(mode="json") for point in points] for name, points in beside.items()}
        say_json(result.model_dump(mode="json") | ({"baselines": dumped} if beside else {}))
        return
    if not _all_there(result):
        return
    spec, first = result.spec, result.points[0]
    several = len(first.mode_samples) > 1
    ends = spec.rule.sequential or any(point.stopped_by != "limit" for point in result.points)
    rows = [
        (
            f"{point.snr_db:g}",
            percent(point.accuracy.value),
            f"{percent(point.accuracy.low)} .. {percent(point.accuracy.high)}",
            f"{point.correct}/{point.decisions}",
            "-" if point.ber is None else f"{point.ber.value:.3g}",
            f"{point.bit_errors}/{point.bits}",
            "-" if point.ber_theory is None else f"{point.ber_theory:.3g}",
            *(_header_cells(point) if several else ()),
            *(() if point.radio is None else _radio_cells(point.radio)),
            *(() if point.text is None else _text_cells(point.text, point.receptions)),
            *(percent(points[index].accuracy.value) for points in beside.values()),
            *((str(point.stopped_by),) if ends else ()),
        )
        for index, point in enumerate(result.points)
    ]
    counted = "headers and pilots counted" if spec.pilots else "headers counted"
    symbols = counted if several else f"{first.symbols_per_sample:g} symbols a sample"
    if first.radio is not None:
        payload = (first.symbols - first.pilot_symbols - first.header_symbols) / first.receptions
        symbols = f"{payload:g} symbols a sample, {first.symbols_per_sample:.4g} with headers and frames"
    about = ", ".join(filter(None, (spec.channel, spec.knowledge, symbols)))
    say_table(
        f"{result.provenance.bundle} over {about}, seed {spec.seed}",
        ("Es/N0 dB", "accuracy %", f"{100.0 * spec.confidence:g} % interval", "correct", "BER", "bit errors", "theory")
        + (("symbols", "modes %", "headers lost", "wrong") if several else ())
        + (() if spec.radio is None else _RADIO_HEAD)
        + (() if first.text is None else _TEXT_HEAD)
        + tuple(f"{name} %" for name in beside)
        + (("stopped by",) if ends else ()),
        rows,
    )


def _all_there(result: SweepResult | BerResult) -> bool:
    """Whether there is any point; what is missing is said."""
    missing = len(result.spec.snr_db) - len(result.points)
    if missing:
        of = len(result.spec.snr_db)
        note(f"{missing} of {of} points have no block yet, and are absent: with --out, run it again to go on")
    return bool(result.points)


def _plot_sweep(result: SweepResult, beside: Mapping[str, Sequence[BaselinePoint]], out: Path) -> None:
    from link.curves import curves_of
    from link.plot import Curve, waterfall

    spec = result.spec
    title = ", ".join(filter(None, (result.provenance.bundle, spec.knowledge)))
    rivals = [Curve.of_accuracy(f"decision, {name}", points, "baseline") for name, points in beside.items()]
    waterfall([*curves_of(result, spec.channel, "accuracy"), *rivals], out / "accuracy", title=title)
    if any(point.ber is not None for point in result.points):
        waterfall(curves_of(result, spec.channel, "ber"), out / "ber", metric="ber", title=title)


def _header_cells(point: SweepPoint) -> tuple[str, ...]:
    """Symbols a sample, shares of the modes, headers lost and wrong."""
    return (
        f"{point.symbols_per_sample:.2f}",
        " ".join(f"{100.0 * share:.0f}" for share in point.mode_shares),
        f"{point.headers_lost}/{point.headers}",
        f"{point.headers_wrong}/{point.headers}",
    )


def _text_cells(text: TextPoint, receptions: int) -> tuple[str, ...]:
    """How close the texts are, under _TEXT_HEAD."""
    return (
        f"{text.bleu_1.value:.3f}",
        f"{text.bleu_1.low:.3f} .. {text.bleu_1.high:.3f}",
        f"{text.bleu_4.value:.3f}",
        percent(text.exact / receptions),
        f"{text.symbols_per_word:.2f}",
    )


def _radio_cells(radio: RadioPoint) -> tuple[str, ...]:
    """What became of the frames, under _RADIO_HEAD."""
    measured, papr_db = radio.measured_snr_db, radio.papr_db
    return (
        "-" if measured is None else f"{measured:.2f}",
        f"{radio.frames_lost}/{radio.frames}",
        str(radio.crc_failed),
        "-" if papr_db is None else f"{papr_db:.1f}",
    )


def show_ber(result: BerResult, out: Path | None, *, as_json: bool, over_ebn0: bool = False) -> None:
    """Of a modem, plotted against the SNR that was asked for; columns in which no point has anything are left out."""
    spec = result.spec
    if out is not None and result.points:
        with plots_are_extra():
            _plot_ber(result, out, over_ebn0)
    if as_json:
        say(result.model_dump_json(indent=2))
        return
    if not _all_there(result):
        return
    rows = [_ber_cells(point) for point in result.points]
    shown = [index for index in range(len(_BER_HEAD)) if any(row[index] != "-" for row in rows)]
    say_table(
        f"{spec.title}, seed {spec.seed}; {100.0 * spec.confidence:g} % intervals",
        [_BER_HEAD[index] for index in shown],
        [[row[index] for index in shown] for row in rows],
    )


def _plot_ber(result: BerResult, out: Path, over_ebn0: bool) -> None:
    from link.curves import curves_of
    from link.plot import waterfall

    for metric in ("ber", "bler") if result.spec.coded else ("ber",):
        curves = curves_of(result, result.spec.title, metric, over_ebn0)
        waterfall(curves, out / metric, metric=metric, over_ebn0=over_ebn0)


@contextmanager
def plots_are_extra() -> Iterator[None]:
    """Figures are found, whether they can be drawn or not."""
    from link.errors import MissingExtra

    try:
        yield
    except MissingExtra as error:
        note(f"no plots: {error}")


def _ber_cells(point: BerPoint) -> tuple[str, ...]:
    blocks = point.bler
    return (
        f"{point.snr_db:.4g}",
        f"{point.ebn0_db:.4g}",
        _bounded(point.ber),
        f"{point.ber.low:.3e} .. {point.ber.high:.3e}",
        f"{_errors(point)}/{_bits(point):.3g}",
        "-" if point.ber_theory is None else f"{point.ber_theory:.3e}",
        "-" if blocks is None else _bounded(blocks),
        "-" if blocks is None else f"{blocks.low:.3e} .. {blocks.high:.3e}",
        "-" if point.bler_normal is None else f"{point.bler_normal:.2e}",
        str(point.blocks),
        str(point.stopped_by),
    )


def _errors(point: BerPoint) -> str:
    """Counted, or as many as weigh as much."""
    return f"~{point.effective_errors:.0f}" if point.bit_errors is None else str(point.bit_errors)


def _bits(point: BerPoint) -> float:
    """Sent, or as many as tell as much."""
    return point.bits if point.equivalent_bits is None else point.equivalent_bits


def _bounded(rate: Proportion) -> str:
    """A rate, or what it is known to be below."""
    return f"{rate.value:.3e}" if rate.value > 0.0 else f"< {rate.high:.1e}"


def show_comparison(found: Comparison, a: str, b: str, *, as_json: bool) -> None:
    """Of two sweeps by their names."""
    if as_json:
        say(found.model_dump_json(indent=2))
        return
    unit = " %" if found.metric == "accuracy" else ""
    if any(point.low is None for point in found.points):
        note("points of fewer than 6 blocks say nothing of a difference: run both with --blocks 20 or more")
    say_table(
        f"{found.metric}{unit} on the same noise, A: {a}, B: {b}",
        ("Es/N0 dB", "A", "B", "A - B", "95 % interval", "p", "gain"),
        [_difference_cells(point, found.metric) for point in (*found.points, found.overall)],
    )


def _difference_cells(point: Difference, metric: str) -> tuple[str, ...]:
    return (
        "all" if point.snr_db is None else f"{point.snr_db:g}",
        _rate(point.a, metric),
        _rate(point.b, metric),
        _signed(point.difference, metric),
        "-" if point.low is None or point.high is None else _between(point.low, point.high, metric),
        "-" if point.p_value is None else f"{point.p_value:.4f}",
        "-" if point.gain is None else f"{point.gain:.1f} x",
    )


def _between(low: float, high: float, metric: str) -> str:
    return f"{_signed(low, metric)} .. {_signed(high, metric)}"


def _rate(value: float, metric: str) -> str:
    return percent(value) if metric == "accuracy" else f"{value:.3e}"


def _signed(value: float, metric: str) -> str:
    return f"{100.0 * value:+.2f}" if metric == "accuracy" else f"{value:+.2e}"
