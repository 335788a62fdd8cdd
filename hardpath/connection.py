"""Options that say how a server is reached, of every sub-command that calls one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hardpath.options import path_of
from link.errors import ArgumentError

if TYPE_CHECKING:
    from serve.client.admin import AdminClient

TOKEN_VARIABLE: Final = "HARDPATH_TOKEN"
CONNECTION_PANEL: Final = "Connection"


def _option(flag: str, text: str, *, path: bool = False) -> Any:
    return typer.Option(flag, help=text, parser=path_of if path else None, rich_help_panel=CONNECTION_PANEL)


Tls = Annotated[bool, _option("--tls", "Speak TLS; --ca and --certificate imply it.")]
Ca = Annotated[Path | None, _option("--ca", "Authorities to trust in place of the system's, PEM.", path=True)]
Certificate = Annotated[Path | None, _option("--certificate", "One's own certificate, PEM, for mutual TLS.", path=True)]
Key = Annotated[Path | None, _option("--key", "Its key, PEM.", path=True)]
ServerName = Annotated[
    str | None, _option("--server-name", "Name in the server's certificate, where it is not the host.")
]
TokenFile = Annotated[
    Path | None,
    _option("--token-file", f"File with the bearer token; where absent, {TOKEN_VARIABLE} is taken.", path=True),
]


def connection(
    *,
    tls: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    server_name: str | None,
    token_file: Path | None,
) -> dict[str, Any]:
    """These options as serve.client.Client and serve.client.target.target_of take them.

    Raises
    ------
    ArgumentError
        If the file of the token is no text.
    """
    return {
        "tls": tls,
        "ca": ca,
        "certificate": certificate,
        "key": key,
        "server_name": server_name,
        "token": _token(token_file),
    }


@contextmanager
def administration(
    address: str, reached: Mapping[str, Any], *, timeout_s: float, options: Mapping[str, Any] | None = None
) -> Iterator[AdminClient]:
    """A server's administration, as long as the block runs.

    Parameters
    ----------
    address : str
        Of one server.
    reached : mapping
        As `connection` has it.
    timeout_s : float
        Seconds that a call may take.
    options : mapping, optional
        Of gRPC's channel.

    Raises
    ------
    ArgumentError
        If the address is of several servers, or an option of the connection cannot be used.
    """
    from serve.client.admin import AdminClient
    from serve.client.target import open_channel, target_of

    if "," in address or address.startswith("dns:"):
        raise ArgumentError("HOST:PORT", f"must be of one server, got {address!r}")
    target = target_of(address, **reached)
    with open_channel(target, options) as channel:
        yield AdminClient(channel, address, timeout_s=timeout_s, metadata=target.metadata)


def _token(file: Path | None) -> str | None:
    """A token is never an option's value: the list of processes shows those."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ArgumentError("--token-file", f"{file} is no text") from None
