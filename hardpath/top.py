"""Sub-command that watches a server: top."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hardpath.connection import Ca, Certificate, Key, ServerName, Tls, TokenFile, administration, connection
from hardpath.terminal import ends_with, say, say_json, say_json_line, say_table

if TYPE_CHECKING:
    from serve.telemetry.snapshot import Snapshot

commands = typer.Typer()

_TIMEOUT_S: Final = 2.0
_RECONNECT: Final = {"grpc.initial_reconnect_backoff_ms": 1000, "grpc.max_reconnect_backoff_ms": 1000}
"""Soon after it is back a server that was away is to be seen again."""


@commands.command()
@ends_with("")
def top(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where a server listens.")],
    interval: Annotated[float, typer.Option(min=0.1, max=3600.0, metavar="SECONDS", help="Between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one interval and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON to stdout: an object, or without --once an object a line.")
    ] = False,
    tls: Tls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    server_name: ServerName = None,
    token_file: TokenFile = None,
) -> None:
    """Watch a running server: requests, batches, waiting, latency, refusals, bits and SNR, until Ctrl-C."""
    reached = connection(
        tls=tls, ca=ca, certificate=certificate, key=key, server_name=server_name, token_file=token_file
    )
    with administration(address, reached, timeout_s=_TIMEOUT_S, options=_RECONNECT) as client:
        try:
            watch_server(address, client.statistics, interval, once=once, as_json=as_json)
        except KeyboardInterrupt:  # the way to end it
            if sys.stdout.isatty():
                say("")


def watch_server(address: str, ask: Callable[[], Snapshot], interval: float, *, once: bool, as_json: bool) -> None:
    """Show a server to stdout, every `interval` seconds or once.

    Raises
    ------
    ServerError
        If the server does not answer the first time, or with `once` the second.
    """
    from hardpath import top_view
    from link.errors import ServerError

    watch = top_view.Watch(address, ask, time.monotonic)
    if once:
        time.sleep(interval)
        view = watch.look()
        if view.trouble:
            raise ServerError(view.trouble)
        if as_json:
            say_json(top_view.as_json(view))
        else:
            say_table(top_view.title(view), top_view.COLUMNS, map(top_view.cells, view.rates))
            say(top_view.caption(view.snapshot))
    elif as_json:
        _repeat(watch, interval, lambda view: say_json_line(top_view.as_json(view)))
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=sys.stdout), auto_refresh=False) as screen:
            _repeat(
                watch,
                interval,
                lambda view: screen.update(top_view.table(view, watch.bars, screen.console), refresh=True),
            )
    else:
        _repeat(watch, interval, lambda view: say("\n".join(top_view.lines(view))))


def _repeat(watch: Any, interval: float, show: Callable[[Any], None]) -> None:
    """For ever, at times that do not drift."""
    due = time.monotonic()
    while True:
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        show(watch.look())
