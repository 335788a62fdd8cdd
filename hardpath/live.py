"""A sweep as it runs: one line a point, on a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hardpath.terminal import note

if TYPE_CHECKING:
    from rich.table import Table

    from link.simulator import Watch
    from link.simulator.run import State
    from link.stopping import Tally

_REFRESH_SECONDS: Final = 0.25
_ROWS: Final = 24
"""Points shown at once; of a longer grid, those around the ones under way."""


@contextmanager
def live_table(title: str, metric: str, workers: int = 1) -> Iterator[Watch]:
    """A table of points, errors, intervals, rates and time left on stderr while the block runs.

    Where stderr is no terminal, the title is written once and nothing else.

    Parameters
    ----------
    title : str
    metric : str
        What errors are counted of: "bit errors", "wrong decisions".
    workers : int
        They share the work that is left.
    """
    if not sys.stderr.isatty():
        note(title)
        yield lambda states: None
        return
    from rich.console import Console
    from rich.live import Live

    begun = shown = time.monotonic()
    with Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True) as screen:

        def watch(states: Sequence[State]) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= _REFRESH_SECONDS or all(state.ending for state in states):
                shown = now
                screen.update(_table(title, metric, states, now - begun, workers), refresh=True)

        yield watch


def _table(title: str, metric: str, states: Sequence[State], elapsed: float, workers: int) -> Table:
    from rich import box
    from rich.table import Table

    done = sum(state.ending is not None for state in states)
    left = sum(filter(None, map(seconds_left, states))) / workers
    unknown = any(state.ending is None and seconds_left(state) is None for state in states)
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=f"{done} of {len(states)} points, {clock(elapsed)} gone, "
        f"{'at least ' if unknown else 'about '}{clock(left)} left; Ctrl-C ends it with what is there",
        caption_justify="left",
    )
    for index, column in enumerate(("Es/N0 dB", metric, "rate", "95 % interval, roughly", "bits/s", "done", "left")):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for state in _shown(states):
        table.add_row(*_cells(state))
    return table


def _shown(states: Sequence[State]) -> Sequence[State]:
    """A window around the points that are under way."""
    running = [index for index, state in enumerate(states) if state.ending is None and state.blocks]
    middle = running[0] if running else 0
    first = max(0, min(middle - _ROWS // 2, len(states) - _ROWS))
    return states[first : first + _ROWS]


def _cells(state: State) -> tuple[str, ...]:
    tally = state.tally
    if not tally.trials:
        return f"{state.snr_db:g}", *("",) * 4, "waiting" if not state.blocks else "...", ""
    left = seconds_left(state)
    return (
        f"{state.snr_db:g}",
        *_found(tally),
        f"{tally.trials / state.seconds:.2g}" if state.seconds > 0.0 else "",
        state.ending.value if state.ending is not None else f"{100.0 * state.fraction:.0f} %",
        "" if state.ending is not None or left is None else clock(left),
    )


def _found(tally: Tally) -> tuple[str, str, str]:
    """Errors, rate and interval so far, as if the point ended here."""
    from link.stopping import effective_errors, error_rate

    if tally.errors and not tally.unit_errors:
        # Weights of importance sampling, in a unit of their own: what is known is how much they tell.
        effective = effective_errors(tally)
        return f"~{effective:,.0f}", "", f"+-{196.0 / math.sqrt(effective):.2g} %"
    interval = error_rate(tally, tally.units, None)
    return (
        f"{tally.errors:,}",
        f"{interval.value:.3g}" if tally.errors else f"< {interval.high:.2g}",
        f"{interval.low:.2g} .. {interval.high:.2g}",
    )


def seconds_left(state: State) -> float | None:
    """Computing that a point still takes, by what it took so far; None where nothing is known."""
    if state.ending is not None:
        return 0.0
    if not state.fraction or not state.seconds:
        return None
    return state.seconds * (1.0 - state.fraction) / state.fraction


def clock(seconds: float) -> str:
    """Seconds as people read them.

    Examples
    --------
    >>> clock(7.4), clock(75), clock(7300)
    ('7 s', '1:15', '2:01:40')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
