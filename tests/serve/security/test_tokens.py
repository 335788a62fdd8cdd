import hashlib
import hmac
import logging
import os

import pytest

from link.errors import ArgumentError, ServerError
from serve.config.schema import ServerConfig
from serve.security.guard import Security
from serve.security.tokens import Tokens, new_token


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.toml"


def write(file, *tokens):
    beside = file.with_suffix(".new")
    beside.write_text("".join(f"{token.line}\n" for token in tokens))
    beside.replace(file)


def test_a_new_token_is_of_256_bits_and_its_line_holds_its_hash_alone():
    found = new_token("camera", ["infer", "admin"])
    body = found.token.removeprefix("hardpath_")
    assert len(body) == 43  # 256 bits by six
    digest = hashlib.sha256(found.token.encode()).hexdigest()
    assert found.line == f'camera = {{ sha256 = "{digest}", permissions = ["infer", "admin"] }}'
    assert new_token("camera").token != found.token


@pytest.mark.parametrize("name", ["", "my camera", "-x", "_x", "a.b", "x\n", "é", "x" * 65])
def test_no_token_is_made_for_a_name_that_the_file_cannot_hold(name):
    with pytest.raises(ArgumentError, match=r"^name must be 1 to 64 letters"):
        new_token(name)


def test_a_token_is_found_with_its_owner_and_permissions(file):
    camera, operator = new_token("camera"), new_token("operator", ["infer", "admin"])
    write(file, camera, operator)
    tokens = Tokens(file, 60.0)
    assert tokens.find(camera.token) == ("camera", {"infer"})
    assert tokens.find(operator.token) == ("operator", {"infer", "admin"})
    assert tokens.find(camera.token[:-1]) is None
    assert tokens.find("") is None
    assert tokens.find("\udcff\xe9") is None


def test_every_entry_is_compared_in_constant_time_whichever_fits(file, monkeypatch):
    owners = [new_token(f"owner{number}") for number in range(5)]
    write(file, *owners)
    tokens = Tokens(file, 60.0)
    compared = []

    def compare(left, right):
        compared.append((left, right))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr("serve.security.tokens.hmac", type("Spied", (), {"compare_digest": staticmethod(compare)}))
    for token in [*(owner.token for owner in owners), "nobody's"]:
        compared.clear()
        tokens.find(token)
        assert len(compared) == 5
        assert {len(left) for pair in compared for left in pair} == {32}


def test_the_file_is_read_again_when_it_changes(file):
    first, second = new_token("first"), new_token("second")
    write(file, first)
    tokens = Tokens(file, 0.0)
    write(file, second)
    assert tokens.find(first.token) is None
    assert tokens.find(second.token) == ("second", {"infer"})


def test_the_file_is_read_at_once_where_that_is_asked_for(file):
    camera, operator = new_token("camera"), new_token("operator")
    write(file, camera)
    security = Security(
        ServerConfig.model_validate({"auth": {"tokens": file}, "lifecycle": {"watch_interval_s": 3600}})
    )
    tokens = security.interceptors[0]._tokens
    write(file, operator)
    assert tokens.find(operator.token) is None
    security.renew()
    assert tokens.find(operator.token) == ("operator", {"infer"})
    assert tokens.find(camera.token) is None


def test_the_file_is_looked_at_once_an_interval(file, monkeypatch):
    first, second = new_token("first"), new_token("second")
    write(file, first)
    now = [100.0]
    monkeypatch.setattr("serve.security.tokens.time.monotonic", lambda: now[0])
    tokens = Tokens(file, 5.0)
    write(file, second)
    now[0] = 104.0
    assert tokens.find(second.token) is None
    now[0] = 105.0
    assert tokens.find(second.token) is not None


@pytest.mark.parametrize("broken", ["x = [", "", "camera = 1", None])
def test_a_broken_new_file_is_refused_in_one_line_and_the_old_tokens_go_on(file, caplog, broken):
    first = new_token("first")
    write(file, first)
    tokens = Tokens(file, 0.0)
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    for _ in range(3):
        assert tokens.find(first.token) is not None
    refusals = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(refusals) == 1
    assert refusals[0].startswith("the new tokens are refused, the old ones go on: ")


HASH = "0" * 64


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no token, so that nobody could call; add a line"),
        ("camera = [", "is no TOML: Invalid value (at end of document)"),
        ("camera = 1", "camera: Input should be a valid dictionary or instance of Token"),
        ("camera = { sha256 = 'secret', permissions = ['infer'] }", "camera.sha256: String should match pattern"),
        (f"camera = {{ sha256 = '{HASH}' }}", "camera.permissions: Field required"),
        (
            f"camera = {{ sha256 = '{HASH}', permissions = ['all'] }}",
            "camera.permissions.0: Input should be 'infer' or",
        ),
        (f"camera = {{ sha256 = '{HASH}', permissions = [], token = 'secret' }}", "camera.token: Extra inputs are not"),
        (
            f"a = {{ sha256 = '{HASH}', permissions = [] }}\nb = {{ sha256 = '{HASH}', permissions = [] }}",
            "two names have one token; give each its own",
        ),
        (f"'a b' = {{ sha256 = '{HASH}', permissions = [] }}", "a b: String should match pattern"),
    ],
)
def test_a_wrong_file_is_one_line_at_the_start_and_says_no_secret(file, text, reason):
    file.write_text(text)
    with pytest.raises(ServerError) as error:
        Tokens(file, 60.0)
    assert str(error.value).startswith("cannot serve with tokens: ")
    assert reason in str(error.value)
    assert "secret" not in str(error.value).replace(str(file), "")
    assert "\n" not in str(error.value)


def test_a_file_that_others_may_write_is_refused_and_one_that_they_may_read_is_not(file):
    write(file, new_token("camera"))
    for mode in (0o600, 0o640, 0o644, 0o664):
        os.chmod(file, mode)
        Tokens(file, 60.0)
    os.chmod(file, 0o646)
    with pytest.raises(ServerError, match=r"can be written by every user of this machine: chmod o-w"):
        Tokens(file, 60.0)


def test_a_file_that_is_not_there_is_one_line(file):
    with pytest.raises(ServerError, match=r"tokens\.toml cannot be read: No such file or directory$"):
        Tokens(file, 60.0)
