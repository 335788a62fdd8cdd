"""What a client shows a server: certificates over TLS, and a bearer token."""

from __future__ import annotations

from pathlib import Path

import grpc

from link.errors import ArgumentError
from serve.security.watched import Unusable, read_file


def channel_credentials(
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
    token: str | None = None,
) -> grpc.ChannelCredentials:
    """A client's side of TLS, for grpc.secure_channel and grpc.aio.secure_channel.

    Parameters
    ----------
    ca : path, optional
        Authorities that the server's certificate is held to, PEM; gRPC's own list where absent.
    certificate, key : path, optional
        The client's certificate chain and private key, PEM, where the server asks for them (mTLS).
    token : str, optional
        Sent with each call as `authorization: Bearer TOKEN`; never without TLS.

    Raises
    ------
    ArgumentError
        If a file cannot be read, or one of certificate and key is missing.
    """
    if (certificate is None) != (key is None):
        raise ArgumentError("certificate" if certificate is None else "key", "must be given beside the other, got none")
    channel = grpc.ssl_channel_credentials(_pem("ca", ca), _pem("key", key), _pem("certificate", certificate))
    if token is None:
        return channel
    call_metadata(token)
    return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(token))


def call_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """A token as a call's metadata, for connections without TLS: on this machine, or to a proxy that adds it.

    Raises
    ------
    ArgumentError
        If the token holds what no token does: gRPC would say so without naming it.
    """
    if token is None:
        return ()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ArgumentError("token", "must be of printable ASCII characters without spaces")
    return (("authorization", f"Bearer {token}"),)


def read_token(file: Path) -> str:
    """The token that a file holds, on one line; so that it need not stand on a command line, where others see it.

    Raises
    ------
    ArgumentError
        If the file cannot be read, or holds no token.
    """
    content = _pem("token", file) or b""
    token = content.decode("ascii", "replace").strip()
    call_metadata(token)
    return token


def _pem(field: str, file: Path | str | None) -> bytes | None:
    try:
        return None if file is None else read_file(Path(file))
    except Unusable as error:
        raise ArgumentError(field, f"must be a file that can be read: {error}") from None
