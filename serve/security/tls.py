"""TLS of the server, with certificates that are renewed while it runs.

gRPC asks before each handshake for a new certificate. The files are looked at then, and read again where they changed: new
connections get the new certificate, old ones live on. What cannot be used is told in one line of the log, and the last good
one goes on. Before files are used, a handshake in memory holds the key to the certificate, and the certificate to today's
date and to its purpose, as a client would.
"""

from __future__ import annotations

import logging
import ssl
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from link.errors import ServerError
from serve.config.schema import TlsConfig
from serve.security.watched import FileState, Unusable, read_file, state_of

logger = logging.getLogger(__name__)

RETRY_S: Final = 60.0
"""Seconds after which refused files are tried again: a certificate may not be valid yet."""

_NO_MATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_FLIGHTS: Final = 4
"""Turns of client and server that a handshake takes at most."""


class _Loaded(NamedTuple):
    configuration: Any
    not_after: datetime


class Certificates:
    """The server's certificate, key and client authorities.

    Parameters
    ----------
    certificate, key : Path
        The server's chain, its own certificate first, and its private key; PEM.
    client_ca : Path, optional
        Authorities whose clients are let in; where absent, clients show no certificate.

    Raises
    ------
    ServerError
        If a file cannot be read, the key does not belong to the certificate, or the certificate is not valid today.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._lock = threading.Lock()
        self._refused: str | None = None
        self._retry_at = 0.0
        self._seen = self._state()
        try:
            self._loaded = self._load()
        except Unusable as error:
            raise ServerError(f"cannot serve with TLS: {error}") from None
        logger.info("the TLS certificate %s is valid until %s", certificate, self.not_after)
        if key.stat().st_mode & stat.S_IROTH:
            logger.warning("the private key %s can be read by every user of this machine", key)

    @classmethod
    def from_config(cls, config: TlsConfig) -> Certificates | None:
        """Those that a configuration names; None without TLS. Raises as the class does."""
        if config.certificate is None or config.key is None:
            return None
        return cls(config.certificate, config.key, config.client_ca)

    @property
    def not_after(self) -> datetime:
        """When the certificate in use ends."""
        return self._loaded.not_after

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`; clients need a certificate where there are authorities for them."""
        given = self._loaded.configuration

        def renewed() -> Any:
            """What gRPC asks before each handshake, in a thread of its own; None where nothing changed."""
            nonlocal given
            try:
                self.refresh()
            except Exception:  # a defect here must not cost a handshake
                logger.exception("looking for a new TLS certificate failed")
            if self._loaded.configuration is given:
                return None
            given = self._loaded.configuration
            return given

        return grpc.dynamic_ssl_server_credentials(
            given, renewed, require_client_authentication=self._client_ca is not None
        )

    def refresh(self, *, now: bool = False) -> bool:
        """Read the files again where they changed since they were last read; whether there is a new certificate.

        Parameters
        ----------
        now : bool
            Whether files that were refused are tried again now, and what is wrong with them is told again.
        """
        with self._lock:
            state = self._state()
            if state == self._seen and (self._refused is None or (not now and time.monotonic() < self._retry_at)):
                return False
            if now:
                self._refused = None
            self._seen = state
            try:
                self._loaded = self._load()
            except Unusable as error:
                self._refuse(str(error))
                return False
            self._refused = None
        logger.info("the TLS certificate %s is renewed, valid until %s", self._certificate, self.not_after)
        return True

    def _refuse(self, reason: str) -> None:
        if reason != self._refused:
            logger.error("the new TLS certificate is refused, the old one goes on: %s", reason)
        self._refused, self._retry_at = reason, time.monotonic() + RETRY_S

    def _state(self) -> tuple[FileState, ...]:
        return tuple(state_of(file) for file in (self._certificate, self._key, self._client_ca) if file is not None)

    def _load(self) -> _Loaded:
        before = self._state()
        certificate, key = read_file(self._certificate), read_file(self._key)
        authorities = None if self._client_ca is None else read_file(self._client_ca)
        if self._client_ca is not None and authorities is not None:
            _check_authorities(self._client_ca, authorities)
        not_after = _check_pair(self._certificate, certificate, self._key, key)
        if self._state() != before:
            raise Unusable(f"{self._certificate} and {self._key} changed while they were read")
        configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authorities)
        return _Loaded(configuration, not_after)


def check_client(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Hold a client's files to what they are for, which gRPC would tell its log alone.

    Raises
    ------
    Unusable
        If one cannot be read, `ca` or `certificate` holds no certificate, or the key does not belong to the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        _trust(context, read_file(ca), ca, "certificate")
    if certificate is not None and key is not None:
        _trust(context, read_file(certificate), certificate, "certificate")
        secret = read_file(key)
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except OSError as error:  # as ssl.SSLError is
            raise Unusable(_why(error, certificate, key, secret)) from None


def _check_pair(certificate: Path, chain: bytes, key: Path, secret: bytes) -> datetime:
    """Hold certificate and key to each other and to today; when the certificate ends."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # The server's own certificate is trust enough here: who issued it is for clients to judge.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _trust(client, chain, certificate, "certificate")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:  # as ssl.SSLError is
        raise Unusable(_why(error, certificate, key, secret)) from None
    try:
        ends = _handshake(client, server)["notAfter"]
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or error.reason or error
        raise Unusable(f"{certificate} is no certificate for a server today: {reason}") from None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(ends)), UTC)


def _why(error: OSError, certificate: Path, key: Path, secret: bytes) -> str:
    """Why OpenSSL takes no key for a certificate that it can read."""
    reason = getattr(error, "reason", None)
    if reason in _NO_MATCH:
        return f"the key {key} does not belong to the certificate {certificate}"
    if b"ENCRYPTED" in secret:
        return f"the key {key} has a password; save it without one"
    if b"PRIVATE KEY-----" not in secret:
        return f"{key} holds no private key in PEM"
    return f"the key {key} and the certificate {certificate} cannot be used: {reason or error}"


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """Shake hands in memory; the server's certificate as the client has it."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_FLIGHTS):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.getpeercert() or {}


def _check_authorities(file: Path, authorities: bytes) -> None:
    """Refuse a file without an authority that is valid today: no client could be let in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _trust(context, authorities, file, "certificate authority")
    ends = [ssl.cert_time_to_seconds(str(found["notAfter"])) for found in context.get_ca_certs()]
    if not ends:
        raise Unusable(f"{file} holds no certificate authority in PEM")
    if max(ends) < time.time():
        raise Unusable(f"the certificate authorities in {file} have expired")


def _trust(context: ssl.SSLContext, certificates: bytes, file: Path, what: str) -> None:
    try:
        context.load_verify_locations(cadata=certificates.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise Unusable(f"{file} holds no {what} in PEM") from None
