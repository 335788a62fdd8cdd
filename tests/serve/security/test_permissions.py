import importlib
import socket
import struct
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

import serve.pb
from link.errors import ArgumentError
from serve.client.credentials import call_metadata, channel_credentials, read_token
from serve.config.schema import ServerConfig
from serve.security.guard import Security
from serve.security.permissions import PERMISSIONS
from serve.security.tokens import new_token

LINK = "/hardpath.v1.LinkService"
ENCODE = f"{LINK}/Encode"
RELOAD_MODEL = "/hardpath.v1.AdminService/ReloadModel"
OF_TOKENS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@pytest.fixture(scope="module")
def camera():
    return new_token("camera", ["infer"])


@pytest.fixture(scope="module")
def operator():
    return new_token("operator", ["infer", "admin"])


@pytest.fixture(scope="module")
def warden():
    return new_token("warden", ["admin"])


@pytest.fixture
def config(tmp_path, camera, operator, warden):
    file = tmp_path / "tokens.toml"
    file.write_text("\n".join([camera.line, operator.line, warden.line]) + "\n")
    return ServerConfig.model_validate({"auth": {"tokens": file}})


@pytest.fixture
def server(config, serving):
    with serving(config) as running:
        yield running


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address) as connected:
        yield connected


def refusal(call, *arguments, metadata=()):
    with pytest.raises(grpc.RpcError) as error:
        list(call(*arguments, metadata=metadata, timeout=20))  # a stream of replies is refused when it is read
    status = rpc_status.from_call(error.value)
    info = error_details_pb2.ErrorInfo()
    assert [detail.Unpack(info) for detail in status.details] == [True]
    assert info.domain == "hardpath"
    return error.value.code(), info.reason, error.value.details()


def test_a_token_with_the_permission_is_let_through(channel, server, camera):
    assert channel.unary_unary(ENCODE)(b"x", metadata=call_metadata(camera.token), timeout=20) == b"x"
    assert server.echo.reached == [ENCODE]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_the_scheme_is_known_in_any_case(channel, camera, scheme):
    metadata = (("authorization", f"{scheme} {camera.token}"),)
    assert channel.unary_unary(ENCODE)(b"x", metadata=metadata, timeout=20) == b"x"


def near(token):
    return token[:-1] + ("A" if token[-1] != "A" else "B")


def missing_of(token):
    return [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", token),),
        (("authorization", f"Basic {token}"),),
        (("authorization", f"Bearer{token}"),),
        (("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")),
        (("x-authorization", f"Bearer {token}"),),
        (("authorization-bin", f"Bearer {token}".encode()),),
    ]


def test_a_call_without_exactly_one_bearer_token_is_unauthenticated(channel, server, camera):
    for metadata in missing_of(camera.token):
        code, reason, _ = refusal(channel.unary_unary(ENCODE), b"x", metadata=metadata)
        assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"), metadata
    assert server.echo.reached == []


def test_a_wrong_token_is_unauthenticated_and_learns_nothing_of_how_near_it_was(channel, server, camera):
    wrong = [near(camera.token), camera.token[:-1], camera.token + "x", "x", "hardpath_", camera.token.swapcase()]
    answers = {
        refusal(channel.unary_unary(ENCODE), b"x", metadata=(("authorization", f"Bearer {token}"),)) for token in wrong
    }
    assert answers == {(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN", "the token is not one of this server's")}
    assert len(server.denied) == len(wrong)
    assert server.echo.reached == []


def test_administration_needs_its_own_permission(channel, server, camera, operator, warden):
    for method in (RELOAD_MODEL, "/inference.GRPCInferenceService/RepositoryModelLoad"):
        code, reason, details = refusal(channel.unary_unary(method), b"x", metadata=call_metadata(camera.token))
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_LACKING")
        assert details == "needs a token that may admin"
        for token in (operator.token, warden.token):
            assert channel.unary_unary(method)(b"x", metadata=call_metadata(token), timeout=20) == b"x"
    code, reason, _ = refusal(channel.unary_unary(ENCODE), b"x", metadata=call_metadata(warden.token))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_LACKING")


def test_administration_is_logged_with_the_owner_of_the_token(channel, operator, caplog):
    caplog.set_level("INFO")
    channel.unary_unary(RELOAD_MODEL)(b"x", metadata=call_metadata(operator.token), timeout=20)
    assert f"operator calls {RELOAD_MODEL}" in caplog.text
    assert operator.token not in caplog.text


KINDS = {
    f"{LINK}/Encode": ("unary_unary", b"ab", [b"ab"]),
    f"{LINK}/Sweep": ("unary_stream", b"ab", [b"ab", b"ab"]),
    f"{LINK}/Decode": ("stream_unary", [b"a", b"b"], [b"ab"]),
    f"{LINK}/TransmitStream": ("stream_stream", [b"a", b"b"], [b"a", b"b"]),
}


@pytest.mark.parametrize("method", KINDS)
def test_every_kind_of_call_is_answered_with_a_token_and_refused_without(channel, server, camera, method):
    kind, request, expected = KINDS[method]
    call = getattr(channel, kind)(method)

    def argument():
        return iter(request) if kind.startswith("stream") else request

    reply = call(argument(), metadata=call_metadata(camera.token), timeout=20)
    assert (list(reply) if kind.endswith("stream") else [reply]) == expected
    assert server.echo.reached == [method]
    code, reason, _ = refusal(call, argument())
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert server.echo.reached == [method]


def test_a_stream_that_never_sends_is_refused_all_the_same(channel):
    def never():
        channel_closed.recv(1)
        yield b""

    near_end, channel_closed = socket.socketpair()
    with near_end, channel_closed:
        for kind in ("stream_stream", "stream_unary"):
            assert refusal(getattr(channel, kind)(f"{LINK}/TransmitStream"), never())[0] in OF_TOKENS
        near_end.close()


def test_health_and_what_the_inference_protocol_has_for_it_are_free(channel):
    health = health_pb2_grpc.HealthStub(channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == health_pb2.HealthCheckResponse.SERVING
    assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=20)).status
    assert channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=20) == b""


def test_a_method_that_nobody_serves_is_unimplemented_and_one_that_no_table_lists_is_refused(
    channel, server, operator, caplog
):
    for method, code in (
        ("/hardpath.v1.Nobody/Method", grpc.StatusCode.UNIMPLEMENTED),
        ("/hardpath.v1.Forgotten/Method", grpc.StatusCode.PERMISSION_DENIED),
    ):
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(method)(b"x", metadata=call_metadata(operator.token), timeout=20)
        assert error.value.code() is code
    assert server.echo.reached == []
    assert "/hardpath.v1.Forgotten/Method is in no table" in caplog.text


def registered_methods():
    """Every method of every service whose stubs are in serve.pb, of health and of both reflections."""
    stubs = Path(serve.pb.__file__).parent
    names = [".".join(file.relative_to(stubs).with_suffix("").parts) for file in stubs.rglob("*_pb2.py")]
    modules = [importlib.import_module(f"serve.pb.{name}") for name in names]
    files = [module.DESCRIPTOR for module in (*modules, health_pb2, reflection_pb2)]
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert ENCODE in methods
    return methods | {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}


def test_every_method_of_every_service_is_in_the_table_of_permissions():
    registered = registered_methods()
    services = {path.split("/")[1] for path in registered}
    assert registered - set(PERMISSIONS) == set()
    assert {path for path in PERMISSIONS if path.split("/")[1] in services} - registered == set()


def test_what_changes_the_server_needs_admin():
    changing = [path for path in PERMISSIONS if "/hardpath.v1.AdminService/" in path or "RepositoryModel" in path]
    assert changing
    assert {PERMISSIONS[path] for path in changing} == {"admin"}


def test_reflection_is_free_or_needs_infer_as_configured(config):
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    for wanted in ("free", "infer"):
        chosen = config.model_copy(update={"listen": config.listen.model_copy(update={"reflection": wanted})})
        (interceptor,) = Security(chosen).interceptors
        assert interceptor._needs[path] == wanted


def test_tokens_do_not_travel_readable_however_the_configuration_was_put_together(config):
    beyond = config.model_copy(update={"listen": config.listen.model_copy(update={"host": "0.0.0.0"})})
    with pytest.raises(ArgumentError, match=r"^auth\.tokens must have tls\.certificate"):
        Security(beyond)
    allowed = beyond.model_copy(update={"auth": beyond.auth.model_copy(update={"allow_plaintext": True})})
    assert Security(allowed).interceptors


def test_a_server_without_tokens_has_no_interceptor():
    assert Security(ServerConfig()).interceptors == ()


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header field without indexing and without Huffman's code (RFC 7541, 6.2.2); each text under 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def raw_call(port, path, authorization, message=b"\x00\x00\x00\x00\x01x"):
    """What a server answers to headers that no gRPC client would send: everything up to the end of the stream."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"authorization", authorization),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        connection.sendall(frame(1, 4, 1, b"".join(literal(*header) for header in headers)))
        if message is not None:
            connection.sendall(frame(0, 1, 1, message))
        stream, received = connection.makefile("rb"), []
        while True:
            length, kind, flags, number = struct.unpack(">3sBBI", stream.read(9))
            payload = stream.read(int.from_bytes(length, "big"))
            received.append(payload)
            if (number == 1 and (flags & 1 or kind == 3)) or kind == 7:
                return b"".join(received)


@pytest.mark.parametrize("value", [b"Bearer \xff\xfe\x80", b"Bearer caf\xc3\xa9", b"\xff", b"Bearer \x7f", b"Bearer\t"])
def test_metadata_that_is_no_ascii_reaches_nothing_and_stays_out_of_the_log(server, camera, value, caplog, capfd):
    secret = camera.token.encode()
    answer = raw_call(server.port, ENCODE, value + secret)
    assert server.echo.reached == []
    assert secret not in answer
    assert camera.token not in caplog.text + capfd.readouterr().err
    assert raw_call(server.port, ENCODE, b"Bearer " + secret)  # and the server goes on
    assert server.echo.reached == [ENCODE]


def test_a_call_is_refused_by_its_headers_before_a_message_is_there(server):
    assert raw_call(server.port, ENCODE, b"Basic x", message=None)
    assert server.denied == [(ENCODE.removeprefix("/"), grpc.StatusCode.UNAUTHENTICATED)]


@pytest.fixture
def secured(files, config):
    return files.config(auth={"tokens": config.auth.tokens})


def test_a_client_sends_its_token_over_tls_and_never_without(secured, serving, files, camera):
    credentials = channel_credentials(files.ca, token=camera.token)
    with serving(secured) as server:
        with grpc.secure_channel(server.address, credentials) as channel:
            assert channel.unary_unary(ENCODE)(b"x", timeout=20) == b"x"
        with grpc.secure_channel(server.address, channel_credentials(files.ca)) as channel:
            assert refusal(channel.unary_unary(ENCODE), b"x")[:2] == (
                grpc.StatusCode.UNAUTHENTICATED,
                "TOKEN_MISSING",
            )


def test_a_token_is_read_from_a_file_and_one_that_is_none_is_refused(tmp_path, camera):
    file = tmp_path / "token"
    file.write_text(camera.token + "\n")
    assert read_token(file) == camera.token
    for text in ("", "two words", "caf\xe9", "two\nlines"):
        file.write_text(text)
        with pytest.raises(ArgumentError, match=r"^token must be of printable ASCII characters without spaces$"):
            read_token(file)
    assert call_metadata(None) == ()
