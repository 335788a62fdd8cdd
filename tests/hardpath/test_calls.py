"""`hardpath call` beyond one transmission: encode, decode, sweep, files, tokens."""

import csv
import json
import shutil

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.sweep import SweepSpec, sweep
from serve.client import Client
from serve.config.schema import ServerConfig
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


def test_rows_that_reach_past_the_end_are_told_where_they_were_asked_for(hardpath, address, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8), np.float32))
    asked = hardpath("call", address, "--inputs", tmp_path / "x.npy", "--rows", "1:9")
    assert "rows 1:9 reach past the end: 2 are sent" in asked.err
    assert "reach past" not in hardpath("call", address, "--inputs", tmp_path / "x.npy").err


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
        (("--sweep", "0", "--rel-width", "0"), "--rel-width must be in [0.001, 10], got 0"),
        (("--sweep", "0", "--confidence", "0"), "--confidence must be in (0, 1), got 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(hardpath, address, options, message):
    assert message in hardpath("call", address, *options).refused(2)


LINK = {
    "--channel": "rician", "--block-symbols": 2, "--k-factor-db": 3, "--csi": "ls", "--pilots": 2, "--no-offset-db": 1,
    "--seed": 4, "--snr-error-db": 0,
}  # fmt: skip
STOP = {"--draws": 2, "--target-errors": 5, "--rel-width": 0.5, "--confidence": 0.9}
SAMPLES = {"--inputs": "images.npz", "--text": "a", "--texts": "texts.txt"}
OTHERS = {
    (): STOP,
    ("--encode",): LINK | STOP,
    ("--decode", "sent.npz"): LINK | STOP | SAMPLES | {"--snr-db": 12},
    ("--sweep", "0"): {"--snr-db": 12},
}


@pytest.mark.parametrize(
    ("job", "option", "value"), [(job, *option) for job, options in OTHERS.items() for option in options.items()]
)
def test_an_option_that_the_job_has_no_use_for_is_refused_even_with_its_default(hardpath, job, option, value):
    line = hardpath("call", "127.0.0.1:1", *job, option, value).refused(2)
    assert line == f"{option} must be absent {f'beside {job[0]}' if job else 'without --sweep'}"


@pytest.mark.parametrize("job", [(), ("--sweep", "6")])
def test_options_that_the_job_has_a_use_for_are_taken_all_together(hardpath, address, images, job):
    options = LINK | (STOP if job else {"--snr-db": 3})
    flat = [part for option in options.items() for part in option]
    answer = hardpath("call", address, "--inputs", images, "--rows", "0:20", *job, *flat, "--json")
    assert answer.code == 0, answer.err
    told = {f"--{name.replace('_', '-')}": value for name, value in answer.json.items()}
    assert {name: told[name] for name in options} == options
    assert (answer.json["model"], answer.json["version"]) == ("digits", 1)


@pytest.mark.parametrize(
    ("channel", "option"),
    [
        *((channel, "--k-factor-db") for channel in ("awgn", "rayleigh", "rayleigh-fast", "tdl-a", "cdl-e")),
        *((channel, "--block-symbols") for channel in ("awgn", "rayleigh-fast", "rician-fast", "tdl-a")),
    ],
)
def test_an_option_that_the_channel_has_no_use_for_is_refused(hardpath, channel, option):
    line = hardpath("call", "127.0.0.1:1", "--channel", channel, option, 0).refused(2)
    assert line.startswith(f"{option} must be absent over {channel}: it is for r")


def test_help_names_every_channel(hardpath):
    text = " ".join(hardpath("call", "--help").out.replace("│", " ").split())
    for name in (
        "awgn",
        "rayleigh",
        "rician",
        "rayleigh-fast",
        "rician-fast",
        "tdl-a to tdl-e",
        "cdl-a to cdl-e",
        "or radio",
    ):
        assert name in text


def test_the_snr_is_told_to_a_transmitter_that_looks_at_it_alone(hardpath, address, images):
    line = hardpath("call", address, "--inputs", images, "--encode", "--snr-db", 12).refused(2)
    assert line == "snr_db must be absent: this bundle's transmitter does not look at the channel"


def test_where_a_server_holds_several_models_the_option_that_names_one_is_told(hardpath, bundle, images, tmp_path):
    other = shutil.copytree(bundle, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"name": "other"}))
    with Server(config=ServerConfig(bundles=(bundle, other), listen={"port": 0})) as server:
        for job in ((), ("--encode",), ("--sweep", "0"), ("--decode", images_of_bits(tmp_path))):
            line = hardpath("call", server.address, *job).refused(2)
            assert line == "--model must name one of the models that the server holds: digits, other"
        assert hardpath("call", server.address, "--model", "other", "--inputs", images, "--rows", "0:1").code == 0
        wrong = hardpath("call", server.address, "--model", "cats").refused(2)
        assert wrong == "model must be one of digits, other, got 'cats'"


def images_of_bits(folder):
    np.savez(folder / "bits.npz", bits=np.zeros((1, 24), np.uint8))
    return folder / "bits.npz"


def test_what_a_transmission_saved_is_decoded_as_it_was_received(hardpath, address, images, tmp_path):
    file, again = tmp_path / "found.npz", tmp_path / "again.npz"
    options = ("--inputs", images, "--rows", "0:100", "--snr-db", "-3", "--channel", "rayleigh")
    rows = hardpath("call", address, *options, "--out", file, "--json").json["samples"]
    decoded = hardpath("call", address, "--decode", file, "--out", again, "--json").json["samples"]
    assert [row["decision"] for row in decoded] == [row["decision"] for row in rows]
    with np.load(file) as first, np.load(again) as second:
        np.testing.assert_allclose(second["llr"], first["llr"], rtol=1e-5, atol=1e-5)
        sent = {"symbols": first["symbols"], "no": first["no"]}
    np.savez(file, **sent)
    clean = hardpath("call", address, "--decode", file, "--json").json["samples"]
    assert [row["decision"] for row in clean] != [row["decision"] for row in rows], "noise that changes nothing"


@pytest.mark.parametrize("content", ["text", "nothing", "half", "damaged", "objects", "texts", "a number", "no rows"])
def test_a_file_that_cannot_be_decoded_is_one_line_without_advice_to_trust_it(hardpath, tmp_path, content):
    file = tmp_path / "bits.npz"
    bits = np.random.default_rng(1).integers(0, 2, size=(500, 24)).astype(np.uint8)
    arrays = {"objects": np.array([{}]), "texts": np.array(["a"]), "a number": np.array(1), "no rows": bits[:0]}
    np.savez_compressed(file, bits=arrays.get(content, bits))
    whole = file.read_bytes()
    if content in ("text", "nothing", "half"):
        file.write_bytes({"text": b"# A title\n", "nothing": b"", "half": whole[: len(whole) // 2]}[content])
    elif content == "damaged":
        file.write_bytes(whole[:200] + bytes(256) + whole[456:])
    line = hardpath("call", "127.0.0.1:1", "--decode", file).refused(2)
    assert line.startswith(f"--decode {file}")
    assert "pickle" not in line


@pytest.mark.parametrize("content", [b"# A title\n", b""])
def test_inputs_that_are_no_array_are_refused_without_advice_to_trust_them(hardpath, address, tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    line = hardpath("call", address, "--inputs", tmp_path / "x.npy").refused(2)
    assert line == f"--inputs {tmp_path / 'x.npy'} is neither .npz nor .npy, is damaged, or holds Python objects"


@pytest.mark.parametrize(
    ("labels", "row"), [(np.array([3, 99, 4, -1]), "99"), (np.array(["3", "cat", " 4", "?"]), "cat")]
)
def test_labels_that_are_no_class_are_told_and_are_neither_right_nor_wrong(hardpath, address, tmp_path, labels, row):
    np.savez(tmp_path / "x.npz", image=np.zeros((4, 8, 8), np.float32), labels=labels)
    found = hardpath("call", address, "--inputs", tmp_path / "x.npz", "--json").json["samples"]
    assert [sample["correct"] for sample in found] == [
        None if known is None else sample["decision"] == known
        for known, sample in zip(("3", None, "4", None), found, strict=True)
    ]
    answer = hardpath("call", address, "--inputs", tmp_path / "x.npz")
    assert answer.err.endswith(
        f"2 of 4 labels are none that the model can answer, so neither right nor wrong; the first, row 1: {row}\n"
    )
    assert sum(line.split()[-1:] == ["-"] for line in answer.out.splitlines()) == 2
    # From the row that is named on.
    assert "1 of 2 labels" in hardpath("call", address, "--inputs", tmp_path / "x.npz", "--rows", "2:4").err
    np.savez(tmp_path / "x.npz", image=np.zeros((4, 8, 8), np.float32), labels=np.zeros((4, 2), np.int64))
    line = hardpath("call", address, "--inputs", tmp_path / "x.npz").refused(2)
    assert line == "labels must have shape (4), got (4, 2)"


def test_rows_there_must_be(hardpath, address, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 8, 8), np.float32))
    assert hardpath("call", address, "--inputs", tmp_path / "x.npy").refused(2) == "--inputs must hold at least one row"


def test_a_file_that_cannot_be_written_costs_no_answer(hardpath, address, images, tmp_path):
    too_long = tmp_path / f"{'x' * 250}.npz"  # as a draft, it has more than the 255 characters that names may have
    answer = hardpath("call", address, "--inputs", images, "--rows", "0:2", "--json", "--out", too_long)
    assert (answer.code, len(answer.json["samples"]), answer.err.count("\n")) == (5, 2, 1)
    (tmp_path / "folder.npz").mkdir()
    assert "is a folder" in hardpath("call", address, "--out", tmp_path / "folder.npz").refused(2)
    (tmp_path / "plain.csv").touch()
    line = hardpath("call", "127.0.0.1:1", "--out", tmp_path / "plain.csv" / "deep" / "found.json").refused(2)
    assert line == f"--out {tmp_path}/plain.csv/deep/found.json cannot be written: {tmp_path}/plain.csv is a file"


def test_ctrl_c_says_that_no_answer_is_kept(hardpath, address, images, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "transmit", interrupt)
    line = hardpath("call", address, "--inputs", images).refused(130)
    assert line == "interrupted before the answer was there; nothing is kept"


def test_ctrl_c_leaves_the_points_of_a_sweep_that_came(hardpath, address, images, tmp_path, monkeypatch):
    whole = Client.sweep

    def interrupted(*arguments, **options):
        yield next(whole(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "sweep", interrupted)
    file = tmp_path / "points.json"
    answer = hardpath("call", address, "--inputs", images, "--sweep", "0,6", "--json", "--out", file)
    assert answer.code == 130
    assert [point["snr_db"] for point in answer.json["points"]] == [0.0]
    assert json.loads(file.read_text()) == answer.json["points"]
    assert answer.err.splitlines()[-1] == "hardpath: interrupted after 1 of 2 points"


def test_a_file_that_holds_nothing_to_decode_is_refused(hardpath, address, tmp_path):
    np.savez(tmp_path / "found.npz", symbols=np.zeros((1, 2, 2)))
    assert "must hold symbols and no, llr_in, or bits; it holds symbols" in hardpath(
        "call", address, "--decode", tmp_path / "found.npz"
    ).refused(2)
    (tmp_path / "found.npz").write_bytes(b"nothing")
    assert "found.npz is no .npz" in hardpath("call", address, "--decode", tmp_path / "found.npz").refused(2)
    assert hardpath("call", address, "--decode", tmp_path / "missing.npz").refused(5)


@pytest.fixture(scope="module")
def radio_address(bundle, tmp_path_factory):
    file = tmp_path_factory.mktemp("radio") / "radio.toml"
    file.write_text("[frontend]\nkind = 'loopback'\n")
    with Server(bundle, port=0, config=ServerConfig(radio={"file": file})) as server:
        yield server.address


def test_a_call_over_the_servers_radio_tells_what_became_of_its_frames(hardpath, radio_address, images):
    call = ("call", radio_address, "--inputs", images, "--channel", "radio")
    answer = hardpath(*call, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["channel"], answer.json["snr_db"]) == ("radio", None)
    assert (answer.json["radio"]["frames"], answer.json["radio"]["frames_lost"]) == (1, 0)
    assert answer.json["radio"]["measured_snr_db"] > 30.0
    assert sum(row["bit_errors"] for row in answer.json["samples"]) == 0
    shown = hardpath(*call)
    assert "radio, seed 0" in shown.out
    assert "radio: 0 of 1 frames lost, 0 not whole; Es/N0 " in shown.err
    assert hardpath(*call, "--snr-db", 9).refused(2).startswith("snr_db must be absent: this radio (loopback)")


@pytest.mark.parametrize("option", ["--k-factor-db", "--block-symbols", "--pilots", "--no-offset-db", "--csi"])
def test_an_option_of_simulated_channels_is_refused_over_a_radio(hardpath, option):
    line = hardpath("call", "127.0.0.1:1", "--channel", "radio", option, "ls" if option == "--csi" else 0).refused(2)
    assert line == f"{option} must be absent over a radio: it is for simulated channels"


def test_a_server_whose_radio_is_described_wrongly_does_not_start(hardpath, bundle, tmp_path):
    file = tmp_path / "radio.toml"
    file.write_text("[frontend]\nkind = 'mirror'\n")
    line = hardpath("serve", bundle, "--port", 0, "--radio", file).refused(2)
    assert line.startswith(f"{file}: kind must be one of loopback")
