"""Sub-command that has a server look at its bundles anew: reload."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from hardpath.connection import Ca, Certificate, Key, ServerName, Tls, TokenFile, administration, connection
from hardpath.terminal import ends_with, say, say_json

commands = typer.Typer()

_TIMEOUT_S: Final = 300.0
"""A large bundle is hashed, loaded and warmed before the server answers."""


@commands.command()
@ends_with("; the server may go on with it")
def reload(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where a server listens.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Of this model alone.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    tls: Tls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    server_name: ServerName = None,
    token_file: TokenFile = None,
) -> None:
    """Have a server load the bundles whose files are new; where it asks for tokens, this needs one with `admin`.

    A bundle that is not good is refused, and the one before goes on.
    """
    reached = connection(
        tls=tls, ca=ca, certificate=certificate, key=key, server_name=server_name, token_file=token_file
    )
    with administration(address, reached, timeout_s=_TIMEOUT_S) as client:
        found = client.reload(model)
    if as_json:
        say_json({"address": address, "models": [one._asdict() for one in found]})
        return
    for one in found:
        what = f"in place of {one.previous_version}" if one.changed else "as before"
        say(f"{one.name}: version {one.version} answers, {what}")
