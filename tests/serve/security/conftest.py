"""Certificates, and a small grpc.aio server with a method of each kind behind the security under test."""

import asyncio
import threading
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from serve.config.schema import ServerConfig
from serve.security.guard import Security

LINK, ADMIN, INFERENCE = "hardpath.v1.LinkService", "hardpath.v1.AdminService", "inference.GRPCInferenceService"


class Echo:
    """Answers with what it was sent, and remembers which methods were reached."""

    def __init__(self):
        self.reached = []

    def handlers(self, service, **kinds):
        make = {
            "unary": grpc.unary_unary_rpc_method_handler,
            "server_stream": grpc.unary_stream_rpc_method_handler,
            "client_stream": grpc.stream_unary_rpc_method_handler,
            "both_stream": grpc.stream_stream_rpc_method_handler,
        }
        found = {name: make[kind](self._answer(f"/{service}/{name}", kind)) for name, kind in kinds.items()}
        return grpc.method_handlers_generic_handler(service, found)

    def _answer(self, path, kind):
        async def one(request, context):
            self.reached.append(path)
            return request

        async def some(request, context):
            self.reached.append(path)
            yield request
            yield request

        async def joined(requests, context):
            self.reached.append(path)
            return b"".join([request async for request in requests])

        async def each(requests, context):
            self.reached.append(path)
            async for request in requests:
                yield request

        return {"unary": one, "server_stream": some, "client_stream": joined, "both_stream": each}[kind]


class Running:
    """A server that answers."""

    def __init__(self, security, port, echo, denied):
        self.security, self.port, self.echo, self.denied = security, port, echo, denied
        self.address = f"127.0.0.1:{port}"


@contextmanager
def running(config):
    """A grpc.aio server of that configuration, in a loop of its own."""
    denied = []
    security, echo, health = (
        Security(config, lambda method, code, context: denied.append((method, code))),
        Echo(),
        HealthServicer(),
    )
    ready, state = threading.Event(), {}

    async def main():
        server = grpc.aio.server(interceptors=security.interceptors)
        server.add_generic_rpc_handlers(
            (
                # Decode is none of requests in the protocol: here each kind has a method that needs `infer`.
                echo.handlers(
                    LINK, Encode="unary", Sweep="server_stream", Decode="client_stream", TransmitStream="both_stream"
                ),
                echo.handlers(ADMIN, ReloadModel="unary"),
                echo.handlers(INFERENCE, ModelInfer="unary", RepositoryModelLoad="unary", ServerLive="unary"),
                echo.handlers("hardpath.v1.Forgotten", Method="unary"),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        await health.set("", health_pb2.HealthCheckResponse.SERVING)
        state["port"] = security.add_port(server, "127.0.0.1:0")
        await server.start()
        state["stop"], state["loop"] = asyncio.Event(), asyncio.get_running_loop()
        ready.set()
        await state["stop"].wait()
        await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield Running(security, state["port"], echo, denied)
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(20)


@pytest.fixture
def serving():
    return running


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture(scope="session")
def foreign_authority():
    return trustme.CA()


class Files:
    """A folder with certificate.pem, key.pem and ca.pem, as an operator has it."""

    def __init__(self, folder: Path):
        self.certificate, self.key, self.ca = (folder / f"{name}.pem" for name in ("certificate", "key", "ca"))

    def write(self, certificate):
        """Put a new pair in place as a careful operator does: beside the old one, then renamed."""
        for target, content in (
            (self.certificate, chain(certificate)),
            (self.key, certificate.private_key_pem.bytes()),
        ):
            beside = target.with_suffix(".new")
            beside.write_bytes(content)
            beside.replace(target)

    def config(self, **sections):
        tls = {"certificate": self.certificate, "key": self.key}
        return ServerConfig.model_validate({"tls": tls | sections.pop("tls", {}), **sections})


def chain(certificate):
    return b"".join(part.bytes() for part in certificate.cert_chain_pems)


@pytest.fixture
def files(tmp_path, authority):
    found = Files(tmp_path)
    found.write(authority.issue_cert("127.0.0.1"))
    authority.cert_pem.write_to_path(found.ca)
    return found
