import logging
import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key

from link.errors import ArgumentError, ServerError
from serve.client.credentials import channel_credentials
from serve.config.schema import ServerConfig
from serve.security.guard import Security
from serve.security.tls import Certificates

ENCODE = "/hardpath.v1.LinkService/Encode"
NOW, DAY = datetime.now(UTC), timedelta(days=1)


def served_serial(port, authority):
    """Serial number of the certificate that a new connection is shown, by Python's own TLS."""
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted,
    ):
        return int(encrypted.getpeercert()["serialNumber"], 16)


def serial_in(file):
    from cryptography import x509

    return x509.load_pem_x509_certificate(file.read_bytes()).serial_number


def test_a_call_over_tls_is_answered_and_one_without_is_not(files, serving):
    with serving(files.config()) as server:
        with grpc.secure_channel(server.address, channel_credentials(files.ca)) as channel:
            assert channel.unary_unary(ENCODE)(b"x", timeout=20) == b"x"
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(ENCODE)(b"x", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_trusts_no_server_of_another_authority(files, serving, foreign_authority, tmp_path):
    other = tmp_path / "other.pem"
    foreign_authority.cert_pem.write_to_path(other)
    with (
        serving(files.config()) as server,
        grpc.secure_channel(server.address, channel_credentials(other)) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        channel.unary_unary(ENCODE)(b"x", timeout=20)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.echo.reached == []


@pytest.fixture
def client_files(tmp_path):
    def write(name, issuer):
        certificate = issuer.issue_cert("client@example.org")
        (tmp_path / f"{name}.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        return tmp_path / f"{name}.pem", tmp_path / f"{name}.key"

    return write


def test_mutual_tls_lets_in_its_authoritys_clients_and_nobody_else(
    files, serving, client_files, authority, foreign_authority
):
    known, foreign = client_files("known", authority), client_files("foreign", foreign_authority)
    with serving(files.config(tls={"client_ca": files.ca})) as server:
        with grpc.secure_channel(server.address, channel_credentials(files.ca, *known)) as channel:
            assert channel.unary_unary(ENCODE)(b"x", timeout=20) == b"x"
        for pair in ((), foreign):
            with grpc.secure_channel(server.address, channel_credentials(files.ca, *pair)) as channel:
                with pytest.raises(grpc.RpcError) as error:
                    channel.unary_unary(ENCODE)(b"x", timeout=20)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.echo.reached == [ENCODE]


def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_live_on(files, serving, authority):
    with serving(files.config()) as server:
        first = serial_in(files.certificate)
        with grpc.secure_channel(server.address, channel_credentials(files.ca)) as old:
            assert old.unary_unary(ENCODE)(b"1", timeout=20) == b"1"
            requests = iter([b"2"])
            stream = old.stream_stream("/hardpath.v1.LinkService/TransmitStream")(_held(requests), timeout=20)
            assert next(stream) == b"2"
            assert served_serial(server.port, authority) == first

            files.write(authority.issue_cert("127.0.0.1"))
            second = serial_in(files.certificate)
            assert second != first
            assert served_serial(server.port, authority) == second
            assert old.unary_unary(ENCODE)(b"3", timeout=20) == b"3"
            stream.cancel()


def _held(requests):
    yield from requests
    threading.Event().wait(20)


def test_certificates_change_under_load_without_a_failed_call(files, serving, authority):
    stop, failures, calls = threading.Event(), [], [0]

    def load():
        while not stop.is_set():
            try:
                # A pool of its own for each, or channels to one address would share a connection.
                options = [("grpc.use_local_subchannel_pool", 1)]
                with grpc.secure_channel(server.address, channel_credentials(files.ca), options) as channel:
                    for _ in range(3):
                        channel.unary_unary(ENCODE)(b"x", timeout=20)
                        calls[0] += 1
            except grpc.RpcError as error:
                failures.append(error)

    with serving(files.config()) as server:
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        seen = set()
        for _ in range(5):
            files.write(authority.issue_cert("127.0.0.1"))
            assert served_serial(server.port, authority) == serial_in(files.certificate)
            seen.add(serial_in(files.certificate))
        stop.set()
        for thread in threads:
            thread.join(20)
    assert (len(seen), failures) == (5, [])
    assert calls[0] > 0


@pytest.mark.parametrize("broken", ["junk", "gone", "mismatch", "expired"])
def test_a_broken_new_certificate_is_refused_in_one_line_and_the_old_one_goes_on(
    files, serving, authority, caplog, broken
):
    with serving(files.config()) as server:
        first = serial_in(files.certificate)
        assert served_serial(server.port, authority) == first
        caplog.clear()
        if broken == "junk":
            files.certificate.write_text("junk")
        elif broken == "gone":
            files.key.unlink()
        elif broken == "mismatch":
            beside = files.key.with_suffix(".new")
            authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(beside)
            beside.replace(files.key)
        else:
            files.write(authority.issue_cert("127.0.0.1", not_before=NOW - 2 * DAY, not_after=NOW - DAY))
        assert [served_serial(server.port, authority) for _ in range(3)] == [first] * 3
        refusals = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(refusals) == 1
        assert "refused, the old one goes on" in refusals[0]
        assert "\n" not in refusals[0]

        files.write(authority.issue_cert("127.0.0.1"))
        assert served_serial(server.port, authority) == serial_in(files.certificate) != first


def test_a_certificate_that_was_refused_is_tried_again_and_told_once(files, authority, monkeypatch, caplog):
    certificates = Certificates(files.certificate, files.key)
    files.write(authority.issue_cert("127.0.0.1"))
    with monkeypatch.context() as refusing:
        refusing.setattr("serve.security.tls._check_pair", _refuse)
        refusing.setattr("serve.security.tls.RETRY_S", 0.0)
        assert [certificates.refresh() for _ in range(3)] == [False] * 3
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert certificates.refresh()  # it has become valid


def test_a_certificate_that_was_refused_is_not_read_at_each_handshake(files, authority, monkeypatch):
    certificates = Certificates(files.certificate, files.key)
    files.write(authority.issue_cert("127.0.0.1"))
    with monkeypatch.context() as refusing:
        refusing.setattr("serve.security.tls._check_pair", _refuse)
        assert not certificates.refresh()
    assert not certificates.refresh()
    monkeypatch.setattr("serve.security.tls.time.monotonic", lambda: float("inf"))
    assert certificates.refresh()


def test_a_certificate_that_was_refused_is_tried_at_once_where_that_is_asked_for(files, authority, monkeypatch, caplog):
    security = Security(files.config())
    ends = security.certificates.not_after
    files.write(authority.issue_cert("127.0.0.1", not_after=NOW + 2 * DAY))
    with monkeypatch.context() as refusing:
        refusing.setattr("serve.security.tls._check_pair", _refuse)
        for _ in range(2):
            security.renew()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 2
    security.renew()
    assert security.certificates.not_after != ends


def _refuse(*_):
    from serve.security.watched import Unusable

    raise Unusable("not yet valid")


def encrypted(key):
    return load_key(key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def spoil(files, authority, how):
    if how == "missing":
        files.certificate.unlink()
    elif how == "folder":
        files.key.unlink()
        files.key.mkdir()
    elif how == "pipe":
        files.key.unlink()
        os.mkfifo(files.key)
    elif how == "junk":
        files.certificate.write_bytes(b"\xff\x00junk")
    elif how == "key as certificate":
        files.certificate.write_bytes(files.key.read_bytes())
    elif how == "certificate as key":
        files.key.write_bytes(files.certificate.read_bytes())
    elif how == "other key":
        authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(files.key)
    elif how == "key of another kind":
        authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA).private_key_pem.write_to_path(files.key)
    elif how == "password":
        files.key.write_bytes(encrypted(files.key.read_bytes()))
    elif how == "expired":
        files.write(authority.issue_cert("127.0.0.1", not_before=NOW - 2 * DAY, not_after=NOW - DAY))
    elif how == "future":
        files.write(authority.issue_cert("127.0.0.1", not_before=NOW + DAY, not_after=NOW + 2 * DAY))
    elif how == "large":
        files.certificate.write_bytes(b"x" * (2**20 + 1))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", r"certificate\.pem cannot be read: No such file or directory"),
        ("folder", r"key\.pem is no regular file"),
        ("pipe", r"key\.pem is no regular file"),
        ("junk", r"certificate\.pem holds no certificate in PEM"),
        ("key as certificate", r"certificate\.pem holds no certificate in PEM"),
        ("certificate as key", r"key\.pem holds no private key in PEM"),
        ("other key", r"the key .*key\.pem does not belong to the certificate .*certificate\.pem"),
        ("key of another kind", r"the key .*key\.pem does not belong to the certificate .*certificate\.pem"),
        ("password", r"key\.pem has a password; save it without one"),
        ("expired", r"certificate\.pem is no certificate for a server today: certificate has expired"),
        ("future", r"certificate\.pem is no certificate for a server today: certificate is not yet valid"),
        ("large", r"certificate\.pem holds more than 1048576 bytes"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_one_clear_line_at_the_start(files, authority, how, reason):
    spoil(files, authority, how)
    with pytest.raises(ServerError, match=rf"^cannot serve with TLS: .*{reason}$"):
        Security(files.config())


def test_an_authority_that_could_let_nobody_in_is_refused_at_the_start(files):
    for content in (b"", files.key.read_bytes(), files.certificate.read_bytes()):
        files.ca.write_bytes(content)
        with pytest.raises(ServerError, match=r"ca\.pem holds no certificate authority in PEM$"):
            Security(files.config(tls={"client_ca": files.ca}))


def test_a_private_key_that_every_user_can_read_is_told(files, caplog):
    files.key.chmod(0o644)
    Security(files.config())
    assert "can be read by every user" in caplog.text
    caplog.clear()
    files.key.chmod(0o600)
    Security(files.config())
    assert caplog.text == ""


def test_when_the_certificate_ends_is_known(files, authority):
    ends = (NOW + 3 * DAY).replace(microsecond=0)
    files.write(authority.issue_cert("127.0.0.1", not_after=ends))
    assert Certificates(files.certificate, files.key).not_after == ends


@pytest.mark.parametrize(
    ("host", "words"), [("127.0.0.1", None), ("0.0.0.0", "whoever reaches it may call everything")]
)
def test_listening_beyond_loopback_without_tls_is_told_in_one_line(caplog, host, words):
    Security(ServerConfig.model_validate({"listen": {"host": host}}))
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == (words is not None)
    assert all(words in line and "\n" not in line for line in found)


def test_half_of_a_clients_certificate_is_refused(files):
    with pytest.raises(ArgumentError, match=r"^key must be given beside the other"):
        channel_credentials(files.ca, certificate=files.certificate)
    with pytest.raises(ArgumentError, match=r"^ca must be a file that can be read: .*none\.pem cannot be read"):
        channel_credentials(files.ca.with_name("none.pem"))
