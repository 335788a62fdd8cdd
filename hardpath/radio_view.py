"""How `hardpath radio run` shows a run: a screen on a terminal, a line a second elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hardpath.live import clock
from hardpath.rates import sparkline
from hardpath.terminal import in_one_line, note, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from link.montecarlo import Proportion
    from link.radio.operation.figures import Moment, RunFigures, RunTally

_REFRESH_S: Final = 0.25
_LINE_S: Final = 1.0
_COLUMNS: Final = 41
_ROWS: Final = 21
_SHADES: Final = " .:+*#@"
_BARS: Final = 40
_SYMBOLS: Final = 2048
"""Of the picture: the last ones."""
_BESIDE: Final = 100
"""Columns of a terminal that has room for the picture."""


@contextmanager
def live_view(title: str, tally: RunTally, reach: Callable[[int], float]) -> Iterator[RunView]:
    """Show a run on stderr while the block lasts.

    Parameters
    ----------
    title : str
    tally : RunTally
    reach : callable
        Largest amplitude of I or Q in a constellation of an order.
    """
    if not sys.stderr.isatty():
        yield RunView(title, tally, reach, _LINE_S, lambda view: note(line(tally.figures, tally.moments)))
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True) as screen:
        yield RunView(
            title, tally, reach, _REFRESH_S, lambda view: screen.update(view.drawn(screen.console.width), refresh=True)
        )


class RunView:
    """Decides when a run is shown again.

    Parameters
    ----------
    title, tally, reach
        As for `live_view`.
    every_s : float
    show : callable
    """

    def __init__(
        self,
        title: str,
        tally: RunTally,
        reach: Callable[[int], float],
        every_s: float,
        show: Callable[[RunView], None],
    ) -> None:
        self._title = title
        self._tally = tally
        self._reach = reach
        self._every_s = every_s
        self._show = show
        self._shown = time.monotonic()
        self._trouble = ""

    def exchanged(self) -> None:
        """An exchange came through."""
        self._trouble = ""
        if time.monotonic() - self._shown >= self._every_s:
            self._shown = time.monotonic()
            self._show(self)

    def lost(self, error: Exception, wait_s: float) -> None:
        """The device was lost, and is opened again after a while."""
        self._trouble = f"{in_one_line(str(error), 120)}; opened again in {wait_s:.1f} s"
        if sys.stderr.isatty():
            self._show(self)
        else:
            note(self._trouble)

    def drawn(self, width: int) -> RenderableType:
        """What a terminal of so many columns shows; a narrow one has no room for the constellation."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        figures, moments = self._tally.figures, self._tally.moments
        numbers = Table.grid(padding=(0, 2))
        for name, value in rows(figures):
            numbers.add_row(Text(name, style="dim"), Text(value))
        numbers.add_row(Text("Es/N0 so far", style="dim"), Text(bars([moment.snr_db for moment in moments])))
        numbers.add_row(Text("CFO so far", style="dim"), Text(bars([moment.cfo for moment in moments])))
        beside = Table.grid(padding=(0, 3))
        order = self._tally.order
        if order and width >= _BESIDE:
            shown = self._tally.constellation[-_SYMBOLS:]
            beside.add_row(Text(constellation(shown, self._reach(order))), numbers)
        else:
            beside.add_row(numbers)
        head = Text(self._trouble or self._title, style="bold red" if self._trouble else "bold")
        return Group(head, Text(""), beside, Text(""), Text("Ctrl-C ends it with what is there", style="dim"))


def constellation(symbols: NDArray[Any], reach: float) -> str:
    """Symbols on a square of characters, the darker the more of them fall on one; what lies outside is at its edge.

    Examples
    --------
    >>> picture = constellation(np.array([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]]), 1.0).splitlines()
    >>> len(picture), len(picture[0]), picture[3].find("@"), picture[17].find("*")
    (21, 41, 34, 6)
    """
    limit = 1.4 * reach
    places = np.clip((symbols / limit + 1.0) / 2.0, 0.0, 1.0)
    columns = np.rint(places[:, 0] * (_COLUMNS - 1)).astype(np.int64)
    lines = np.rint((1.0 - places[:, 1]) * (_ROWS - 1)).astype(np.int64)
    counts = np.zeros((_ROWS, _COLUMNS), dtype=np.int64)
    np.add.at(counts, (lines, columns), 1)
    highest = max(int(counts.max(initial=0)), 1)
    shares = np.log1p(counts) / math.log1p(highest)
    steps = np.minimum(np.ceil((len(_SHADES) - 1) * shares), len(_SHADES) - 1).astype(np.int64)
    axes = [
        ["·" if row == _ROWS // 2 or column == _COLUMNS // 2 else " " for column in range(_COLUMNS)]
        for row in range(_ROWS)
    ]
    return "\n".join(
        "".join(_SHADES[step] if step else axes[row][column] for column, step in enumerate(steps[row]))
        for row in range(_ROWS)
    )


def bars(values: Sequence[float]) -> str:
    """The last values as bars between the least and the most of them."""
    last = [value for value in values[-_BARS:]]
    known = [value for value in last if math.isfinite(value)]
    if not known:
        return ""
    low, width = min(known), (max(known) - min(known)) or 1.0
    return sparkline([(value - low) / width + 0.05 if math.isfinite(value) else None for value in last])


def rows(figures: RunFigures) -> list[tuple[str, str]]:
    """Figures by name, as a table has them; what is not known is left out."""
    shown: list[tuple[str, str | None]] = [
        ("frames sent", f"{figures.frames:,} in {figures.exchanges:,} exchanges, {clock(figures.seconds)}"),
        ("lost", _share(figures.lost, figures.frames)),
        ("CRC failed", _share(figures.crc_failed, figures.frames - figures.lost)),
        ("Es/N0", _number(figures.snr_db, "{:.2f} dB")),
        ("EVM", _number(figures.evm, "{:.2%}")),
        ("CFO", _number(figures.cfo, "{:+.4e} cycles/sample")),
        ("clock", _number(figures.clock_ppm, "{:+.2f} ppm")),
        ("PAPR", _number(figures.papr_db, "{:.2f} dB")),
        ("BER", None if figures.ber is None else _proportion(figures.ber, figures.bit_errors, figures.bits)),
        ("accuracy", _accuracy(figures)),
        ("rate", _rate(figures)),
        ("throughput", f"{figures.frames_s:.1f} frames/s, {figures.samples_s:,.0f} samples/s"),
        ("gaps", f"{figures.gaps:,}" if figures.gaps else None),
        ("clipped", f"{figures.clipped:,} samples" if figures.clipped else None),
        ("preambles without header", f"{figures.headers_lost:,}" if figures.headers_lost else None),
        ("other versions", f"{figures.other_versions:,}" if figures.other_versions else None),
        ("opened again", f"{figures.reconnects:,} times" if figures.reconnects else None),
    ]
    return [(name, value) for name, value in shown if value is not None]


def line(figures: RunFigures, moments: Sequence[Moment]) -> str:
    """A run in one line: the counts of all of it, the rest of its last moment."""
    last = moments[-1] if moments else None
    parts = [
        f"{clock(figures.seconds)}: {figures.frames} frames, {figures.lost} lost, {figures.crc_failed} CRC failed",
        *([] if last is None or math.isnan(last.snr_db) else [
            f"Es/N0 {last.snr_db:.1f} dB", f"EVM {last.evm:.1%}", f"CFO {last.cfo:+.3e} cycles/sample",
            f"clock {last.clock_ppm:+.1f} ppm",
        ]),
        *([] if figures.ber is None else [f"BER {figures.ber.value:.2e}"]),
        *([] if figures.accuracy is None else [f"accuracy {percent(figures.accuracy.value)} %"]),
        f"{figures.frames_s:.1f} frames/s",
    ]  # fmt: skip
    return ", ".join(parts)


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.2%})" if total else f"{count:,}"


def _proportion(found: Proportion, errors: int, trials: int) -> str:
    return f"{found.value:.3g}, {found.low:.3g} .. {found.high:.3g} ({errors:,}/{trials:,})"


def _accuracy(figures: RunFigures) -> str | None:
    found = figures.accuracy
    if found is None:
        return None
    return (
        f"{percent(found.value)} %, {percent(found.low)} .. {percent(found.high)} "
        f"({figures.correct:,}/{figures.decisions:,})"
    )


def _rate(figures: RunFigures) -> str | None:
    if figures.bits_per_symbol is None or figures.bits_per_frame_symbol is None:
        return None
    air = "" if figures.air_bits_s is None else f", {figures.air_bits_s:,.0f} bits/s on the air"
    return f"{figures.bits_per_symbol:.3g} bits a symbol, {figures.bits_per_frame_symbol:.3g} with the frame's overhead{air}"
