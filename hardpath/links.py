"""Sub-command that serves a link: serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hardpath.options import (
    Bundle,
    ReceiverName,
)
from hardpath.terminal import say

if TYPE_CHECKING:
    pass

commands = typer.Typer()


@commands.command()
def serve(
    bundle: Bundle,
    receiver: ReceiverName = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reachable from here only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 50051,
) -> None:
    """Serve a bundle over gRPC until SIGINT or SIGTERM, then finish what is in flight."""
    from serve.config_layers import load_config
    from serve.server import serve as serve_bundles

    def ready(address: str) -> None:
        say(f"serving {bundle} on {address}")

    flags = {"bundles": (bundle,), "receiver": receiver, "listen.host": host, "listen.port": port}
    serve_bundles(load_config(None, {}, flags), ready=ready)
