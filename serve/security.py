"""Who may reach a server, and who may call what: TLS and tokens from the configuration, wired into gRPC.

    security = Security(config)
    server = grpc.aio.server(interceptors=security.interceptors)
    port = security.add_port(server, "127.0.0.1:0")

Certificates and tokens are read again when their files change; nothing else is to be done for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc

from link.errors import ArgumentError
from serve.config import ServerConfig
from serve.permissions import Authorization, Need
from serve.tls import Certificates
from serve.tokens import Tokens
from serve.watched import Unusable, read_file

logger = logging.getLogger(__name__)

_GRPC: Final = "grpc._cython.cygrpc"
_METADATA_BYTES: Final = "Invalid encoding on"


class Security:
    """What a configuration says of TLS and tokens.

    Parameters
    ----------
    config : ServerConfig
    denied : callable, optional
        Called for each call that is refused for its token, to be counted.

    Attributes
    ----------
    certificates : Certificates or None
        None without TLS.
    interceptors : tuple of Authorization
        For grpc.aio.server; empty without tokens.

    Raises
    ------
    ServerError
        If a certificate, its key, an authority or the file of tokens cannot be used.
    """

    def __init__(self, config: ServerConfig, denied: Callable[[], None] = lambda: None) -> None:
        logging.getLogger(_GRPC).addFilter(_without_metadata)
        self.certificates = Certificates.from_config(config.tls)
        self.interceptors: tuple[Authorization, ...] = ()
        if config.auth.tokens is not None:
            tokens = Tokens(config.auth.tokens, config.lifecycle.watch_interval_s)
            reflection: Need = "infer" if config.listen.reflection == "infer" else "free"
            self.interceptors = (Authorization(tokens, reflection, denied),)
        caution = _caution(config)
        if caution is not None:
            logger.warning(caution)

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Let the server listen on HOST:PORT, with TLS where there is a certificate; the port that it got."""
        if self.certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self.certificates.credentials())


def channel_credentials(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None, token: str | None = None
) -> grpc.ChannelCredentials:
    """A client's side of TLS, for grpc.secure_channel and grpc.aio.secure_channel.

    Parameters
    ----------
    ca : Path, optional
        Authorities that the server's certificate is held to, PEM; gRPC's own list where absent.
    certificate, key : Path, optional
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


def _pem(field: str, file: Path | None) -> bytes | None:
    try:
        return None if file is None else read_file(file)
    except Unusable as error:
        raise ArgumentError(field, f"must be a file that can be read: {error}") from None


def _without_metadata(record: logging.LogRecord) -> bool:
    """Drop gRPC's line, with traceback, for a peer's metadata that is no UTF-8: it repeats them, and a token with them."""
    return not (isinstance(record.msg, str) and record.msg.startswith(_METADATA_BYTES))


def _caution(config: ServerConfig) -> str | None:
    """What an operator should know of a server that listens beyond this machine."""
    if config.listen.is_loopback or config.tls.certificate is not None:
        return None
    open_to = "whoever reaches it may call everything" if config.auth.tokens is None else "tokens travel readable"
    return f"listening on {config.listen.host} without TLS: {open_to}; give tls.certificate and tls.key"
