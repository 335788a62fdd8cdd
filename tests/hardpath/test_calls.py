"""`hardpath call` beyond one transmission: encode, decode, sweep, files, tokens."""

import csv
import json

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.sweep import SweepSpec, sweep
from serve.server import Server


@pytest.fixture(scope="module")
def address(bundle):
    with Server(bundle, port=0, max_batch=64) as server:
        yield server.address


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    file = tmp_path_factory.mktemp("images") / "images.npz"
    random = np.random.default_rng(3)
    np.savez(
        file, image=random.integers(0, 17, size=(150, 8, 8)).astype(np.float32), labels=random.integers(10, size=150)
    )
    return file


def test_what_is_encoded_and_saved_can_be_decoded(hardpath, address, images, tmp_path):
    sent = hardpath(
        "call", address, "--inputs", images, "--rows", "0:100", "--encode", "--out", tmp_path / "sent.npz", "--json"
    )
    rows = sent.json["samples"]
    with np.load(tmp_path / "sent.npz") as saved:
        arrays = dict(saved)
    assert [row["bits"] for row in rows] == ["".join(map(str, bits)) for bits in arrays["bits"]]
    assert len(rows) == 100

    by_bits = hardpath("call", address, "--decode", tmp_path / "sent.npz", "--json").json["samples"]
    received = tmp_path / "received.npz"
    np.savez(received, symbols=arrays["symbols"], no=np.full(arrays["symbols"].shape[:2], 1e-3, np.float32))
    by_symbols = hardpath("call", address, "--decode", received, "--json").json["samples"]
    np.savez(received, llr_in=np.where(arrays["bits"] > 0, 20.0, -20.0).astype(np.float32))
    by_llr = hardpath("call", address, "--decode", received, "--json").json["samples"]
    assert len(by_bits) == 100
    for other in (by_symbols, by_llr):
        assert [row["decision"] for row in other] == [row["decision"] for row in by_bits]
    part = hardpath("call", address, "--decode", received, "--rows", "5:7", "--json").json["samples"]
    assert [row["row"] for row in part] == [5, 6]
    assert [row["decision"] for row in part] == [row["decision"] for row in by_llr[5:7]]


def test_a_transmission_is_saved_in_each_format(hardpath, address, images, tmp_path):
    for suffix in ("npz", "json", "csv"):
        answer = hardpath(
            "call",
            address,
            "--inputs",
            images,
            "--rows",
            "3:80",
            "--snr-db",
            4,
            "--out",
            tmp_path / f"found.{suffix}",
            "--json",
        )
        rows = answer.json["samples"]
    assert json.loads((tmp_path / "found.json").read_text()) == rows
    with (tmp_path / "found.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["row"], row["decision"]) for row in table] == [(str(row["row"]), row["decision"]) for row in rows]
    with np.load(tmp_path / "found.npz") as saved:
        assert saved["bit_errors"].tolist() == [row["bit_errors"] for row in rows]
        wrong = (saved["llr"] > 0) != saved["bits"].astype(bool)
        assert wrong.sum(axis=1).tolist() == saved["bit_errors"].tolist()
        assert saved["y"].shape == saved["symbols"].shape


def test_a_sweep_of_the_server_is_that_of_the_bundle(hardpath, address, bundle, images, tmp_path):
    found = hardpath(
        "call",
        address,
        "--inputs",
        images,
        "--rows",
        "0:64",
        "--sweep",
        "0:6:3",
        "--draws",
        3,
        "--seed",
        2,
        "--json",
        "--out",
        tmp_path / "s.csv",
    )
    with np.load(images) as saved:
        expected = sweep(
            Link(load_bundle(bundle)),
            {"image": saved["image"][:64]},
            saved["labels"][:64],
            SweepSpec(snr_db=(0.0, 3.0, 6.0), draws=3, seed=2),
        )
    points = found.json["points"]
    assert [(point["snr_db"], point["correct"], point["bit_errors"]) for point in points] == [
        (point.snr_db, point.correct, point.bit_errors) for point in expected.points
    ]
    assert points[0]["accuracy_low"] == expected.points[0].accuracy.low
    with (tmp_path / "s.csv").open() as file:
        assert [float(row["ber"]) for row in csv.DictReader(file)] == [point["ber"] for point in points]
    table = hardpath("call", address, "--inputs", images, "--sweep", "0,6", "--rows", "0:20")
    assert "95 % interval" in table.out
    assert "/20" in table.out


def test_rows_that_begin_past_the_end_are_refused_before_anything_is_sent(hardpath, address):
    for job in ((), ("--encode",), ("--sweep", "0")):
        line = hardpath("call", address, "--rows", "100000:100001", *job).refused(2)
        assert line.startswith("--rows names none of the ")


def test_a_model_is_called_by_its_name(hardpath, address):
    name = hardpath("call", address, "--rows", "0:1", "--model", "digits", "--json")
    assert name.code == 0
    assert hardpath("call", address, "--model", "cats").refused(2) == "model must be one of digits, got 'cats'"


def test_a_token_comes_from_a_file_or_the_environment_and_not_in_clear_text(hardpath, address, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("abc\n")
    assert hardpath("call", address, "--rows", "0:1", "--token-file", tmp_path / "token").code == 0
    for given in (("--token-file", tmp_path / "token"), ()):
        assert "clear text" in hardpath("call", "10.0.0.1:1", *given).refused(2)
        monkeypatch.setenv("HARDPATH_TOKEN", "abc")
    (tmp_path / "token").write_text("a b")
    assert "token must be of printable" in hardpath("call", address, "--token-file", tmp_path / "token").refused(2)
    assert (
        "token"
        not in hardpath("call", "--help").out.replace("token-file", "").replace("bearer token", "").lower().split()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--encode", "--sweep", "0"), "--sweep must be absent beside --encode"),
        (("--decode", "x.npz", "--encode"), "--decode must be absent beside --encode"),
        (("--sweep", "9:0:1"), "--sweep"),
        (("--out", "found.txt"), "--out must end with .npz, .json or .csv, got found.txt"),
        (("--sweep", "0", "--out", "found.npz"), "--out must end with .json or .csv, got found.npz"),
        (("--certificate", "a.pem"), "key is missing"),
        (("--timeout", "0"), "timeout"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(hardpath, address, options, message):
    assert message in hardpath("call", address, *options).refused(2)


def test_a_file_that_holds_nothing_to_decode_is_refused(hardpath, address, tmp_path):
    np.savez(tmp_path / "found.npz", symbols=np.zeros((1, 2, 2)))
    assert "must hold symbols and no, llr_in, or bits; it holds symbols" in hardpath(
        "call", address, "--decode", tmp_path / "found.npz"
    ).refused(2)
    (tmp_path / "found.npz").write_bytes(b"nothing")
    assert "found.npz is no .npz" in hardpath("call", address, "--decode", tmp_path / "found.npz").refused(2)
    assert hardpath("call", address, "--decode", tmp_path / "missing.npz").refused(5)
