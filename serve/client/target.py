"""Where a client connects to, and how: addresses, load balancing, TLS and the token.

    "host:port"                    one server
    "host1:port,host2:port"        several: calls go to them in turn
    "dns:///name:port"             all that the name stands for, asked again when one goes away; in turn
    "unix:/path"                   a socket of this machine

In turn means gRPC's round robin: of the servers that can be reached, those whose health service says SERVING (or that have
none). A server that drains says NOT_SERVING first, so calls go elsewhere before it stops.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from link.errors import ArgumentError
from serve.security.tls import check_client
from serve.security.watched import Unusable

_OPTIONS: Final = (
    # The server bounds what it is sent; its replies are as large as they were asked to be.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that starts, or comes back, is found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A peer that vanished is noticed on a stream without deadline. Servers take pings every five minutes as abuse if they
    # come sooner, by gRPC's defaults.
    ("grpc.keepalive_time_ms", 310_000),
)
_IN_TURN: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})


class Target(NamedTuple):
    """What a channel is made of, with threads and with asyncio alike.

    Attributes
    ----------
    address : str
        As the caller gave it, for messages.
    uri : str
        As gRPC takes it.
    credentials : grpc.ChannelCredentials or None
        None where there is no TLS.
    options : tuple of (str, value)
    metadata : tuple of (str, str)
        What goes with each call: the token.
    """

    address: str
    uri: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[tuple[str, Any], ...]
    metadata: tuple[tuple[str, str], ...]


def target_of(
    address: str,
    *,
    token: str | None = None,
    tls: bool = False,
    ca: Path | str | None = None,
    certificate: Path | str | None = None,
    key: Path | str | None = None,
    server_name: str | None = None,
) -> Target:
    """Read what names a server.

    Parameters
    ----------
    address : str
        As above.
    token : str, optional
        Sent with each call; without TLS to this machine only.
    tls : bool
        Whether to speak TLS with the system's authorities. With `ca` or `certificate` it is spoken anyhow.
    ca : path, optional
        Certificates of the authorities that are trusted in place of the system's, PEM.
    certificate, key : path, optional
        The client's own, PEM, for mutual TLS.
    server_name : str, optional
        Name that the servers' certificate is for, where that is not the host, or of several hosts not the first.

    Raises
    ------
    ArgumentError
        If the address or the token cannot be used, a file cannot be read, or holds no certificate or key in PEM.
    """
    if (certificate is None) != (key is None):
        missing = "key" if key is None else "certificate"
        raise ArgumentError(missing, "is missing: certificate and key go together")
    credentials = None
    if tls or ca is not None or certificate is not None:
        pem = {name: _read(name, path) for name, path in (("ca", ca), ("key", key), ("certificate", certificate))}
        _check("ca", ca)
        _check("certificate", None, certificate, key)
        credentials = grpc.ssl_channel_credentials(pem["ca"], pem["key"], pem["certificate"])
    elif server_name is not None:
        raise ArgumentError("server_name", "must be absent without TLS: give tls or ca")
    uri, hosts = _resolve(address)
    options: list[tuple[str, Any]] = list(_OPTIONS)
    if uri.startswith(("ipv4:", "ipv6:", "dns:")):
        options.append(("grpc.service_config", _IN_TURN))
    if credentials is not None and (server_name is not None or uri.startswith(("ipv4:", "ipv6:"))):
        options.append(("grpc.ssl_target_name_override", server_name or hosts[0]))
    return Target(address, uri, credentials, tuple(options), _metadata(token, credentials is not None, hosts))


def open_channel(target: Target, options: Mapping[str, Any] | None = None) -> grpc.Channel:
    """A channel for threads, with options of gRPC in place of the target's own."""
    chosen = list((dict(target.options) | dict(options or {})).items())
    if target.credentials is None:
        return grpc.insecure_channel(target.uri, options=chosen)
    return grpc.secure_channel(target.uri, target.credentials, options=chosen)


def _resolve(address: str) -> tuple[str, list[str]]:
    """The URI that gRPC takes, and the hosts in it; none where it is a socket of this machine."""
    if address.startswith("unix:"):
        return address, []
    if address.startswith("dns:"):
        return address, [_host_and_port(address.rpartition("/")[2].removeprefix("dns:"), address)[0]]
    parts = [part.strip() for part in address.split(",")]
    named = [_host_and_port(part, address) for part in parts]
    hosts = [host for host, _ in named]
    if len(named) == 1:
        return parts[0], hosts
    # gRPC takes several addresses as numbers of one family.
    for scheme, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)):
        found = [_numbers(host, port, family) for host, port in named]
        if all(found):
            return f"{scheme}:{','.join(dict.fromkeys(number for numbers in found for number in numbers))}", hosts
    unknown = next((host for host, port in named if not _numbers(host, port, socket.AF_UNSPEC)), None)
    raise ArgumentError(
        "address",
        f"names a host that cannot be found, {unknown}" if unknown else "must not mix hosts of IPv4 and IPv6 alone",
    )


def _host_and_port(part: str, address: str) -> tuple[str, int]:
    host, colon, port = part.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ArgumentError("address", f"must be HOST:PORT, several with commas, or dns:///NAME:PORT, got {address!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _numbers(host: str, port: int, family: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except OSError:
        return []
    numbers = [str(entry[4][0]) for entry in found]
    return [f"[{number}]:{port}" if ":" in number else f"{number}:{port}" for number in numbers]


def _metadata(token: str | None, encrypted: bool, hosts: list[str]) -> tuple[tuple[str, str], ...]:
    if token is None:
        return ()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ArgumentError("token", "must be of printable ASCII characters without blanks")
    if not encrypted and not all(map(_is_here, hosts)):
        raise ArgumentError("token", "must not travel in clear text: use TLS (tls, or ca), or a server on this machine")
    return (("authorization", f"Bearer {token}"),)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(
    name: str, ca: Path | str | None, certificate: Path | str | None = None, key: Path | str | None = None
) -> None:
    try:
        check_client(*(None if path is None else Path(path) for path in (ca, certificate, key)))
    except Unusable as error:
        raise ArgumentError(name, f"cannot be used: {error}") from None


def _read(name: str, path: Path | str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ArgumentError(name, f"cannot be read: {path}: {error.strerror or error}") from None
