"""`python -m serve.probe HOST:PORT`: exit 0 where a server answers that it is serving; for container health checks.

Where the server has TLS, --ca names the authority that its certificate is held to (its own certificate will do), and --name
the name in the certificate where that is not HOST; --certificate and --key are the probe's own, for mTLS. Needs no token.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from link.errors import ArgumentError
from serve.client.credentials import channel_credentials

TIMEOUT_S: Final = 2.0


def main(arguments: Sequence[str]) -> int:
    """Ask the server's health service; 0 serving, 1 not, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m serve.probe", description="Ask a server whether it is serving.")
    parser.add_argument("address", metavar="HOST:PORT")
    for option in ("--ca", "--certificate", "--key"):
        parser.add_argument(option, type=Path, metavar="FILE")
    parser.add_argument("--name", help="name in the server's certificate")
    try:
        given = parser.parse_args(arguments)
        channel = _channel(given.address, given.ca, given.certificate, given.key, given.name)
    except SystemExit as error:  # argparse has said why, or shown the help
        return 2 if error.code else 0
    except ArgumentError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            sys.stderr.write(f"{given.address}: {error.code().name}\n")
            return 1
    return 0 if reply.status == health_pb2.HealthCheckResponse.SERVING else 1


def _channel(
    address: str, ca: Path | None, certificate: Path | None, key: Path | None, name: str | None
) -> grpc.Channel:
    if ca is None and (certificate or key or name):
        raise ArgumentError("--ca", "must be given beside --certificate, --key and --name")
    if ca is None:
        return grpc.insecure_channel(address)
    options = [] if name is None else [("grpc.ssl_target_name_override", name)]
    return grpc.secure_channel(address, channel_credentials(ca, certificate, key), options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
