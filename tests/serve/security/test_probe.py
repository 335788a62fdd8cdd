import socket
import subprocess
import sys

import pytest

from serve.config.schema import ServerConfig
from serve.probe import main
from serve.security.tokens import new_token


def test_a_server_that_serves_is_0(serving):
    with serving(ServerConfig()) as server:
        assert main([server.address]) == 0


def test_a_server_that_is_not_there_is_1(capsys):
    with socket.socket() as taken:  # bound, not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        assert main([f"127.0.0.1:{taken.getsockname()[1]}"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_a_server_with_tls_and_tokens_is_asked_with_its_authority_and_without_a_token(files, serving, tmp_path):
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(new_token("camera").line)
    with serving(files.config(auth={"tokens": tokens})) as server:
        assert main([server.address, "--ca", str(files.ca)]) == 0
        assert main([server.address]) == 1


def test_a_servers_own_certificate_will_do_for_its_authority(files, serving, authority):
    files.write(authority.issue_cert("serve.example.org"))
    with serving(files.config()) as server:
        assert main([server.address, "--ca", str(files.certificate), "--name", "serve.example.org"]) == 0
        assert main([server.address, "--ca", str(files.certificate)]) == 1


def test_a_server_with_mutual_tls_is_asked_with_a_certificate(files, serving):
    with serving(files.config(tls={"client_ca": files.ca})) as server:
        pair = ["--certificate", str(files.certificate), "--key", str(files.key)]
        assert main([server.address, "--ca", str(files.ca), *pair]) == 0
        assert main([server.address, "--ca", str(files.ca)]) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["a", "b"], ["a:1", "--name", "x"], ["a:1", "--ca", "none.pem"], ["a:1", "--what"]]
)
def test_wrong_usage_is_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_it_is_a_command(serving):
    with serving(ServerConfig()) as server:
        assert subprocess.run([sys.executable, "-m", "serve.probe", server.address], timeout=60).returncode == 0
