"""`hardpath reload`: bundles are looked at anew, by whoever may."""

import json
import shutil

import pytest

from serve.config.schema import ServerConfig
from serve.security.tokens import new_token
from serve.server import Server


@pytest.fixture
def folder(steered_bundle, tmp_path):
    return shutil.copytree(steered_bundle, tmp_path / "bundle")


def raise_version(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": manifest["version"] + 1}))


def test_a_new_version_answers_once_it_is_asked_for(hardpath, folder):
    with Server(folder, port=0) as server:
        assert hardpath("reload", server.address).out == "rings: version 1 answers, as before\n"
        raise_version(folder)
        assert hardpath("reload", server.address, "--model", "rings").out == "rings: version 2 answers, in place of 1\n"
        raise_version(folder)
        (model,) = hardpath("reload", server.address, "--json").json["models"]
        assert model == {"name": "rings", "previous_version": 2, "version": 3, "changed": True}


def test_what_cannot_be_loaded_is_one_line_and_the_old_one_goes_on(hardpath, folder):
    with Server(folder, port=0) as server:
        (folder / "receiver.onnx").unlink()
        line = hardpath("reload", server.address).refused(5)
        assert line.endswith("FAILED_PRECONDITION: rings: receiver.onnx is missing; export the bundle again")
        assert "NOT_FOUND" in hardpath("reload", server.address, "--model", "other").refused(5)
        assert (
            hardpath("reload", f"{server.address},{server.address}").refused(2).startswith("HOST:PORT must be of one")
        )


def test_where_there_are_tokens_one_with_admin_is_needed(hardpath, folder, tmp_path):
    camera, operator = new_token("camera", ["infer"]), new_token("operator", ["admin"])
    (tmp_path / "tokens.toml").write_text(f"{camera.line}\n{operator.line}\n")
    with Server(folder, config=ServerConfig(listen={"port": 0}, auth={"tokens": tmp_path / "tokens.toml"})) as server:
        for name, made in (("camera", camera), ("operator", operator)):
            (tmp_path / name).write_text(made.token)
        assert "PERMISSION_DENIED" in hardpath("reload", server.address, "--token-file", tmp_path / "camera").refused(5)
        assert hardpath("reload", server.address, "--token-file", tmp_path / "operator").code == 0
