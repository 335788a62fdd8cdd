"""`python -m serve.probe HOST:PORT`: exit 0 where a server answers that it is serving; for container health checks."""

from __future__ import annotations

import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S: Final = 2.0


def main(arguments: list[str]) -> int:
    """Ask the server's health service; 0 serving, 1 not, 2 wrong usage."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m serve.probe HOST:PORT\n")
        return 2
    with grpc.insecure_channel(arguments[0]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            sys.stderr.write(f"{arguments[0]}: {error.code().name}\n")
            return 1
    return 0 if reply.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
