"""Who may reach a server, and who may call what: TLS and tokens from the configuration, wired into gRPC.

    security = Security(config)
    server = grpc.aio.server(interceptors=security.interceptors)
    port = security.add_port(server, "127.0.0.1:0")

Certificates and tokens are read again when their files change; nothing else is to be done for it.
"""

from __future__ import annotations

import logging
from typing import Final

import grpc

from link.errors import ArgumentError
from serve.config.schema import TOKENS_NEED_TLS, ServerConfig
from serve.security.permissions import Authorization, Denied, Need
from serve.security.tls import Certificates
from serve.security.tokens import Tokens

logger = logging.getLogger(__name__)

_GRPC: Final = "grpc._cython.cygrpc"
_METADATA_BYTES: Final = "Invalid encoding on"


class Security:
    """What a configuration says of TLS and tokens.

    Parameters
    ----------
    config : ServerConfig
    denied : callable, optional
        Called for each call that is refused for its token, see Authorization.

    Attributes
    ----------
    certificates : Certificates or None
        None without TLS.
    interceptors : tuple of Authorization
        For grpc.aio.server; empty without tokens.

    Raises
    ------
    ArgumentError
        If tokens would travel readable, and it is not said that they may.
    ServerError
        If a certificate, its key, an authority or the file of tokens cannot be used.
    """

    def __init__(self, config: ServerConfig, denied: Denied = lambda *call: None) -> None:
        # Looked at again here: model_copy, with which programs change a configuration, checks nothing.
        if config.tokens_readable and not config.auth.allow_plaintext:
            raise ArgumentError("auth.tokens", TOKENS_NEED_TLS.partition(" ")[2])
        logging.getLogger(_GRPC).addFilter(_without_metadata)
        self.certificates = Certificates.from_config(config.tls)
        self.interceptors: tuple[Authorization, ...] = ()
        self._tokens: Tokens | None = None
        if config.auth.tokens is not None:
            self._tokens = tokens = Tokens(config.auth.tokens, config.lifecycle.watch_interval_s)
            reflection: Need = "infer" if config.listen.reflection == "infer" else "free"
            self.interceptors = (Authorization(tokens, reflection, denied),)
        caution = _caution(config)
        if caution is not None:
            logger.warning(caution)

    def renew(self) -> None:
        """Read the files again now; what cannot be used is told in the log, and the old goes on."""
        if self.certificates is not None:
            self.certificates.refresh(now=True)
        if self._tokens is not None:
            self._tokens.refresh()

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Let the server listen on HOST:PORT, with TLS where there is a certificate; the port that it got."""
        if self.certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self.certificates.credentials())


def _without_metadata(record: logging.LogRecord) -> bool:
    """Drop gRPC's line, with traceback, for a peer's metadata that is no UTF-8: it repeats them, and a token with them."""
    return not (isinstance(record.msg, str) and record.msg.startswith(_METADATA_BYTES))


def _caution(config: ServerConfig) -> str | None:
    """What an operator should know of a server that listens beyond this machine."""
    if config.listen.is_loopback or config.tls.certificate is not None:
        return None
    open_to = "whoever reaches it may call everything" if config.auth.tokens is None else "tokens travel readable"
    return f"listening on {config.listen.host} without TLS: {open_to}; give tls.certificate and tls.key"
