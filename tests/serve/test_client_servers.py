"""Where a client connects to: several servers, names, TLS and tokens."""

import asyncio
import time
from collections import Counter
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from link.errors import ArgumentError, ServerError
from serve.client import AsyncClient, Client, Retries, failures
from serve.client.target import target_of
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc


class Named(link_pb2_grpc.LinkServiceServicer):
    """A server that answers ListModels with its own name."""

    def __init__(self, name, pause_s=0.0):
        self.name, self.pause_s, self.asked = name, pause_s, 0

    def ListModels(self, request, context):
        self.asked += 1
        self.metadata = dict(context.invocation_metadata())
        time.sleep(self.pause_s)
        return pb.ListModelsResponse(models=[pb.ModelSummary(name=self.name)])


class Running:
    """Its server, which can be killed and said to drain."""

    def __init__(self, servicer, credentials=None, port=0):
        self.server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        link_pb2_grpc.add_LinkServiceServicer_to_server(servicer, self.server)
        self.health = health.HealthServicer()
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        where = f"127.0.0.1:{port}"
        self.port = (
            self.server.add_insecure_port(where)
            if credentials is None
            else self.server.add_secure_port(where, credentials)
        )
        self.address = f"127.0.0.1:{self.port}"
        self.server.start()

    def kill(self):
        self.server.stop(0).wait()

    def drain(self):
        self.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)


@contextmanager
def three(pause_s=0.0):
    named = [Named(name, pause_s) for name in "abc"]
    running = [Running(servicer) for servicer in named]
    try:
        yield ",".join(server.address for server in running), named, running
    finally:
        for server in running:
            server.kill()


def who(client):
    return client.models()[0].name


def seen_by(client, names, calls=3000):
    """Call until each of these, and nobody else, has answered three times in turn; whether it came to that."""
    late = []
    for _ in range(calls):
        late = [*late, who(client)][-3 * len(names) :]
        if Counter(late) == Counter({name: 3 for name in names}):
            return True
    return False


def test_calls_go_to_several_servers_in_turn():
    with three() as (addresses, _, _), Client(addresses) as client:
        assert seen_by(client, "abc")


def test_a_server_that_says_that_it_drains_gets_no_more_calls():
    with three() as (addresses, _, running), Client(addresses) as client:
        assert seen_by(client, "abc")
        running[1].drain()
        assert seen_by(client, "ac")


def test_a_server_that_comes_back_is_asked_again():
    with three() as (addresses, named, running), Client(addresses) as client:
        assert seen_by(client, "abc")
        running[0].kill()
        assert seen_by(client, "bc")
        running[0] = Running(named[0], port=running[0].port)
        deadline = time.monotonic() + 20
        while who(client) != "a":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_nothing_is_lost_where_one_of_three_servers_is_killed_in_the_middle_of_calls():
    with three(pause_s=0.005) as (addresses, named, running), Client(addresses) as client:
        assert seen_by(client, "abc")
        with futures.ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(who, client) for _ in range(300)]
            before = named[1].asked
            while named[1].asked < before + 10:
                time.sleep(0.001)
            running[1].kill()
            answers = Counter(call.result(30) for call in calls)
    assert answers.total() == 300
    assert answers["a"] > 0
    assert answers["c"] > 0


def test_nothing_is_lost_with_asyncio_either():
    async def run(addresses, named, running):
        async with AsyncClient(addresses) as client:
            while not all(servicer.asked for servicer in named):
                await client.models()
            before = named[1].asked
            tasks = [asyncio.create_task(client.models()) for _ in range(200)]
            while named[1].asked < before + 5:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(running[1].kill)
            return [models[0].name for models in await asyncio.gather(*tasks)]

    with three(pause_s=0.005) as (addresses, named, running):
        assert len(asyncio.run(run(addresses, named, running))) == 200


def test_no_server_of_several_is_told_with_all_addresses():
    with three() as (addresses, _, running):
        for server in running:
            server.kill()
        with Client(addresses, retries=Retries(attempts=1)) as client, pytest.raises(failures.Unreachable) as gone:
            client.models()
        assert addresses in str(gone.value)


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("[::1]:50051", "[::1]:50051"),
        ("127.0.0.1:1, 127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
        ("dns:///links.example:50051", "dns:///links.example:50051"),
        ("unix:/run/hardpath", "unix:/run/hardpath"),
    ],
)
def test_an_address_becomes_what_grpc_takes(address, uri):
    target = target_of(address)
    assert target.uri == uri
    several = uri.startswith(("ipv4:", "ipv6:", "dns:"))
    assert ("grpc.service_config" in dict(target.options)) is several


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "host:", "host:x", "host:0", "host:65536", "a:1,,b:2", "dns:///host"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ArgumentError, match=r"^address must be HOST:PORT"):
        target_of(address)


def test_hosts_that_grpc_cannot_take_together_are_refused():
    with pytest.raises(ArgumentError, match=r"names a host that cannot be found, nowhere.invalid"):
        target_of("127.0.0.1:1,nowhere.invalid:1")
    with pytest.raises(ArgumentError, match="must not mix hosts"):
        target_of("127.0.0.1:1,[::1]:1")


@pytest.mark.parametrize(
    "address", ["10.0.0.1:1", "127.0.0.1:1,10.0.0.1:2", "dns:///links.example:1", "links.example:1"]
)
def test_a_token_does_not_travel_in_clear_text(address):
    with pytest.raises(ArgumentError, match=r"^(token must not travel in clear text|address names a host)"):
        target_of(address, token="abc")
    if "," not in address:
        assert target_of(address, token="abc", tls=True).metadata == (("authorization", "Bearer abc"),)


@pytest.mark.parametrize("token", ["", "a b", "a\n", "\N{BLACK HEART SUIT}"])
def test_a_token_that_no_header_holds_is_refused(token):
    with pytest.raises(ArgumentError, match=r"^token must be of printable ASCII"):
        target_of("127.0.0.1:1", token=token)


def test_options_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"^key is missing"):
        target_of("127.0.0.1:1", certificate=tmp_path / "a")
    with pytest.raises(ArgumentError, match=r"^certificate is missing"):
        target_of("127.0.0.1:1", key=tmp_path / "a")
    with pytest.raises(ArgumentError, match=r"^ca cannot be read: .*No such file"):
        target_of("127.0.0.1:1", ca=tmp_path / "a")
    with pytest.raises(ArgumentError, match=r"^server_name must be absent without TLS"):
        target_of("127.0.0.1:1", server_name="a")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def files(authority, tmp_path):
    """The authority's certificate, and a client's certificate and key, as files."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine = authority.issue_cert("somebody", key_type=trustme.KeyType.ECDSA)
    mine.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


@contextmanager
def encrypted(authority, names=("127.0.0.1",), *, mutual=False):
    own = authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes() if mutual else None, mutual)
    with ExitStack() as stack:
        servicers = [Named("a"), Named("b")]
        running = [Running(servicer, credentials) for servicer in servicers]
        for server in running:
            stack.callback(server.kill)
        yield running, servicers


def test_tls_and_a_token(authority, files):
    with encrypted(authority) as (running, servicers):
        with Client(running[0].address, ca=files / "ca.pem", token="abc") as client:
            assert who(client) == "a"
        assert servicers[0].metadata["authorization"] == "Bearer abc"

        async def run():
            async with AsyncClient(running[0].address, ca=files / "ca.pem", token="abc") as client:
                return (await client.models())[0].name

        assert asyncio.run(run()) == "a"
        once = Retries(attempts=1)
        for options in ({"tls": True}, {}):  # an authority that nobody trusts; clear text
            with Client(running[0].address, retries=once, **options) as client, pytest.raises(failures.Unreachable):
                client.models()


def test_mutual_tls(authority, files):
    own = {"certificate": files / "certificate.pem", "key": files / "key.pem"}
    with encrypted(authority, mutual=True) as (running, _):
        with Client(running[0].address, ca=files / "ca.pem", **own) as client:
            assert who(client) == "a"
        with (
            Client(running[0].address, ca=files / "ca.pem", retries=Retries(attempts=1)) as client,
            pytest.raises(failures.Unreachable),
        ):
            client.models()


@pytest.mark.parametrize(
    ("names", "mutual", "options", "why"),
    [
        (("127.0.0.1",), False, {}, "what listens there closed the connection at once: it may speak TLS"),
        (("127.0.0.1",), True, {"ca": "ca.pem"}, "what listens there closed the connection at once: .* certificate of"),
        (
            ("127.0.0.1",),
            False,
            {"tls": True},
            "its certificate is not trusted, unable to get local issuer certificate",
        ),
        (("links.example",), False, {"ca": "ca.pem"}, "its certificate is for another name .* given as server_name"),
        (None, False, {"ca": "ca.pem"}, "what listens there speaks no TLS"),
    ],
)
def test_a_mistake_with_tls_is_told_in_plain_words(authority, files, names, mutual, options, why):
    options = {name: files / value if name == "ca" else value for name, value in options.items()}
    with ExitStack() as stack:
        if names is None:
            address = stack.enter_context(three())[2][0].address
        else:
            address = stack.enter_context(encrypted(authority, names, mutual=mutual))[0][0].address
        client = stack.enter_context(Client(address, retries=Retries(attempts=1), **options))
        with pytest.raises(failures.Unreachable, match=f"^no server can be reached at {address}: {why}") as error:
            client.models()
    assert not any(word in str(error.value) for word in ("SSL", "OPENSSL", "addresses", "UNKNOWN"))


def test_files_that_hold_something_else_are_refused_before_anybody_is_called(files, authority):
    (files / "text.pem").write_text("hello")
    other = authority.issue_cert("another", key_type=trustme.KeyType.ECDSA)
    other.private_key_pem.write_to_path(files / "other.pem")
    good = {"certificate": files / "certificate.pem", "key": files / "key.pem"}
    for options, line in (
        ({"ca": files / "text.pem"}, "ca cannot be used: .*text.pem holds no certificate in PEM"),
        (
            good | {"certificate": files / "text.pem"},
            "certificate cannot be used: .*text.pem holds no certificate in PEM",
        ),
        (good | {"key": files / "text.pem"}, "certificate cannot be used: .*text.pem holds no private key in PEM"),
        (good | {"key": files / "other.pem"}, "certificate cannot be used: the key .*other.pem does not belong to"),
    ):
        with pytest.raises(ArgumentError, match=f"^{line}"):
            Client("127.0.0.1:1", **options)
    assert target_of("127.0.0.1:1", **good).credentials is not None


def test_servers_that_share_a_certificate(authority, files):
    with encrypted(authority, ["links.example"]) as (running, _):
        addresses = ",".join(server.address for server in running)
        with Client(addresses, ca=files / "ca.pem", server_name="links.example") as client:
            assert seen_by(client, "ab")
        with Client(addresses, ca=files / "ca.pem", retries=Retries(attempts=1)) as client, pytest.raises(ServerError):
            client.models()
