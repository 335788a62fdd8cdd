"""How `hardpath top` shows a server: a table on a terminal, lines elsewhere, JSON where asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hardpath.live import clock
from hardpath.rates import Rates, is_restart, rates, sparkline
from hardpath.terminal import in_one_line
from link.errors import ServerError
from serve.results import RadioState
from serve.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

HISTORY_S: Final = 60.0
_BARS: Final = 30
COLUMNS: Final = (
    "operation", "req/s", "rows/s", "rows/run", "waiting", "queue ms", "p50 ms", "p99 ms", "refused/s", "failed/s",
    "wasted %", "bits/s", "Es/N0 dB", "streams", "sweeps",
)  # fmt: skip
_PAST: Final = "req/s, last minute"
_LEAVE_OUT: Final = (
    _PAST, "Es/N0 dB", "rows/run", "queue ms", "bits/s", "rows/s", "wasted %", "streams", "sweeps", "waiting", "p50 ms",
    "failed/s", "refused/s",
)  # fmt: skip
"""Columns that a narrow terminal does without, one after the other."""
_WIDTH_MAX: Final = 10_000


class View(NamedTuple):
    """A server at one moment.

    Attributes
    ----------
    address : str
    time : datetime
    rates : tuple of Rates
        Over the time since the last answer; empty before the second one, and after a new start.
    snapshot : Snapshot
        The last one that was had.
    restarted : bool
        Whether the server started anew since the last answer.
    trouble : str
        Why it does not answer; empty where it does.
    away_s : float
        Since when.
    """

    address: str
    time: datetime
    rates: tuple[Rates, ...]
    snapshot: Snapshot
    restarted: bool = False
    trouble: str = ""
    away_s: float = 0.0


class Watch:
    """Looks at a server again and again.

    Parameters
    ----------
    address : str
    ask : callable
        AdminClient.statistics.
    now : callable
        Seconds, by a clock that is never set.

    Raises
    ------
    ServerError
        If the server does not answer the first time; later that is part of the view.
    """

    def __init__(self, address: str, ask: Callable[[], Snapshot], now: Callable[[], float]) -> None:
        self._address = address
        self._ask = ask
        self._now = now
        self._last = ask()
        self._answered = now()
        self._history: dict[str, deque[tuple[float, float]]] = {}

    def look(self) -> View:
        """How it is now."""
        time = datetime.now(UTC)
        try:
            found = self._ask()
        except ServerError as error:
            return View(self._address, time, (), self._last, trouble=str(error), away_s=self._now() - self._answered)
        before, self._last, self._answered = self._last, found, self._now()
        if is_restart(found, before):
            self._history.clear()
            return View(self._address, time, (), found, restarted=True)
        measured = rates(found, before)
        for operation in measured:
            past = self._history.setdefault(operation.name, deque())
            past.append((self._answered, operation.requests_s))
            while past[0][0] <= self._answered - HISTORY_S:
                past.popleft()
        return View(self._address, time, measured, found)

    def bars(self, operation: str) -> str:
        """Requests a second of the last minute, two seconds a bar."""
        bins: list[list[float]] = [[] for _ in range(_BARS)]
        for when, value in self._history.get(operation, ()):
            age = int((self._now() - when) / HISTORY_S * _BARS)
            if 0 <= age < _BARS:
                bins[_BARS - 1 - age].append(value)
        return sparkline([sum(values) / len(values) if values else None for values in bins])


def table(view: View, bars: Callable[[str], str], console: Console) -> Table:
    """The view of a terminal; where it is narrow columns are left out, since no figure may be cut."""
    rows = [(*cells(operation), bars(operation.name)) for operation in view.rates]
    left_out: set[str] = set()
    unbounded = console.options.update(width=_WIDTH_MAX)
    for name in (*_LEAVE_OUT, ""):
        drawn = _table(view, rows, left_out)
        if console.measure(drawn, options=unbounded).maximum <= console.width:
            break
        left_out.add(name)
    return drawn


def _table(view: View, rows: Sequence[Sequence[str]], left_out: Set[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=Text(title(view)),
        title_justify="left",
        title_style="bold red" if view.trouble else "bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=Text(caption(view.snapshot)),
        caption_justify="left",
    )
    shown = [index for index, name in enumerate((*COLUMNS, _PAST)) if name not in left_out]
    for index in shown:
        drawn.add_column(
            (*COLUMNS, _PAST)[index], justify="right" if 0 < index < len(COLUMNS) else "left", no_wrap=True
        )
    for row in rows:
        drawn.add_row(*(Text(row[index]) for index in shown))
    return drawn


def lines(view: View) -> list[str]:
    """The view where there is no terminal: a line for each operation, or one for what is the matter."""
    at = f"{view.time:%H:%M:%S}"
    if view.trouble or view.restarted or not view.rates:
        return [f"{at} {title(view)}"]
    rows = map(cells, view.rates)
    operations = [
        f"{at} {name}: "
        + ", ".join(f"{column} {figure or '-'}" for column, figure in zip(COLUMNS[1:], figures, strict=True))
        for name, *figures in rows
    ]
    return operations + ([f"{at} {radio_line(view.snapshot.radio)}"] if view.snapshot.radio is not None else [])


def as_json(view: View) -> dict[str, Any]:
    """The view as an object; a figure of nothing is null."""
    snapshot = view.snapshot
    return {
        "time": view.time.isoformat(timespec="milliseconds"),
        "address": view.address,
        "state": "away" if view.trouble else "restarted" if view.restarted else "answering",
        "away_s": view.away_s,
        "trouble": view.trouble,
        "uptime_s": snapshot.uptime_s,
        "in_flight_requests": snapshot.in_flight_requests,
        "in_flight_bytes": snapshot.in_flight_bytes,
        "models": [model._asdict() for model in snapshot.models],
        "operations": [operation._asdict() for operation in view.rates],
        "radio": None if snapshot.radio is None else snapshot.radio._asdict(),
    }


def title(view: View) -> str:
    """What is to be known first."""
    if view.trouble:
        return f"{view.address} is away for {clock(view.away_s)}: {in_one_line(view.trouble, 100)}"
    if view.restarted:
        return f"{view.address} started anew, up {clock(view.snapshot.uptime_s)}"
    if not view.rates:
        return f"{view.address}, up {clock(view.snapshot.uptime_s)}: no operation yet"
    return f"{view.address}, up {clock(view.snapshot.uptime_s)}"


def caption(snapshot: Snapshot) -> str:
    """Models, what is in flight, and the event loop; on a line of its own the radio, where there is one."""
    models = (
        f"{in_one_line(model.name)} version {model.version}"
        + (f", {_count(model.swaps, 'swap')}" if model.swaps else "")
        + (f", {model.refusals} refused" if model.refusals else "")
        for model in snapshot.models
    )
    lag = snapshot.loop_lag_ns.quantile(0.99)
    parts = [
        *models,
        f"{snapshot.in_flight_requests} in flight, {snapshot.in_flight_bytes:,} bytes",
        f"{_count(sum(operation.streams for operation in snapshot.operations), 'stream')}, "
        f"{_count(sum(operation.sweeps for operation in snapshot.operations), 'sweep')}",
        *([] if lag is None else [f"loop lag p99 {1e-6 * lag:.1f} ms since the start"]),
        *([f"{_count(sum(snapshot.failures), 'call')} refused at the door"] if any(snapshot.failures) else []),
    ]
    return "; ".join(parts) + ("" if snapshot.radio is None else f"\n{radio_line(snapshot.radio)}")


def radio_line(radio: RadioState) -> str:
    """How the radio is, and what it did since the server started."""
    return (
        f"radio ({in_one_line(radio.kind)}) {'there' if radio.up else 'gone'}: {_count(radio.exchanges, 'exchange')}, "
        f"{_count(radio.frames, 'frame')}, {radio.frames_lost:,} lost, {radio.crc_failed:,} not whole; "
        f"{_count(radio.errors, 'error')}; {radio.waiting} waiting"
    )


def cells(operation: Rates) -> tuple[str, ...]:
    """A row; empty where there is no figure."""
    return (
        in_one_line(operation.name),
        _figure(operation.requests_s),
        _figure(operation.rows_s),
        _figure(operation.rows_per_run),
        str(operation.waiting),
        _figure(operation.queue_ms),
        _figure(operation.p50_ms),
        _figure(operation.p99_ms),
        _figure(operation.refused_s),
        _figure(operation.failed_s),
        _figure(None if operation.wasted is None else 100.0 * operation.wasted),
        _figure(operation.bits_s),
        "" if operation.snr_db is None else f"{operation.snr_db:.1f}",
        str(operation.streams),
        str(operation.sweeps),
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _figure(value: float | None) -> str:
    """Three digits, or whole numbers."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100.0 or value == 0.0 else f"{value:.3g}"
