"""The commands on a bundle of several modes."""

import numpy as np
import pytest

from serve.server import Server


@pytest.fixture(scope="module")
def data(latents_of, tmp_path_factory):
    made = latents_of(np.arange(24) % 3)
    file = tmp_path_factory.mktemp("data") / "rings.npz"
    np.savez(file, **made.inputs, labels=made.labels)
    return file


def test_inspect_shows_every_mode_and_the_header(hardpath, routed_bundle):
    answer = hardpath("inspect", routed_bundle)
    assert answer.code == 0, answer.err
    for line in (
        "3 classes; one of 3 modes of 2 to 5 symbols, chosen by a router that is told the SNR and sent in a header",
        "mode 0       3 tokens of 3 bits, 9 bits in 3 symbols of 16-QAM",
        "mode 1       3 tokens of 3 bits, 9 bits in 5 symbols of 4-QAM, the default",
        "mode 2       2 tokens of 2 bits, 4 bits in 2 symbols of 4-QAM",
        "header       rm-1-5, 1 repeats, one for 4 samples, lost below 0.6",
    ):
        assert line in answer.out
    assert hardpath("inspect", routed_bundle, "--json").json["header"]["frame_samples"] == 4


def test_sweep_counts_headers_and_shares_of_the_modes(hardpath, modes_bundle, data, tmp_path):
    options = ("--snr-db", "-30,0,30", "--draws", "2", "--data", data, "--out", tmp_path / "out")
    points = hardpath("sweep", modes_bundle, *options, "--json").json["points"]
    assert [point["mode_samples"] for point in points] == [[16, 16, 16]] * 3
    assert points[2]["headers"] == 12
    assert (points[2]["headers_lost"], points[2]["headers_wrong"]) == (0, 0)
    # 12 headers of 3 blocks for 4 samples in modes that differ, and 16 samples in each mode.
    assert points[2]["header_symbols"] == 12 * 3 * 16
    assert points[2]["symbols"] == 12 * 3 * 16 + 16 * (3 + 5 + 2)
    table = hardpath("sweep", modes_bundle, *options).out
    assert "headers counted" in table
    assert "33 33 33" in table
    assert (tmp_path / "out" / "ber.png").is_file()


def test_a_routers_error_reaches_sweep_and_is_refused_without_a_router(hardpath, modes_bundle, routed_bundle, data):
    options = ("--snr-db", "9", "--draws", "1", "--data", data, "--snr-error-db", "-10", "--json")
    assert hardpath("sweep", routed_bundle, *options).json["points"][0]["mode_samples"] == [0, 0, 24]
    answer = hardpath("sweep", modes_bundle, *options)
    assert answer.code == 2
    assert "snr_error_db must be 0 for a bundle without a router, got -10" in answer.err


def test_call_shows_mode_and_header_of_each_sample(hardpath, routed_bundle, data):
    with Server(routed_bundle, port=0) as server:
        options = ("--inputs", data, "--rows", "0:4", "--snr-db", "20")
        samples = hardpath("call", server.address, *options, "--json").json["samples"]
        assert [sample["mode"] for sample in samples] == [0, 0, 1, 0]
        assert [sample["header"] for sample in samples] == ["right"] * 4
        assert [sample["header_symbols"] for sample in samples] == [12.0] * 4  # 3 blocks of 16 symbols for 4 samples
        assert "right" in hardpath("call", server.address, *options).out
        file = data.with_name("found.npz")
        lost = ("--inputs", data, "--snr-db", "-8", "--seed", 3, "--json")
        sent = hardpath("call", server.address, *lost, "--rows", "0:24", "--out", file).json["samples"]
        assert {sample["header"] for sample in sent} > {"right"}, "a header of each kind"
        again = hardpath("call", server.address, "--decode", file, "--json").json["samples"]
        assert [sample["probability"] for sample in again] == pytest.approx([row["probability"] for row in sent], 1e-5)
        misled = hardpath("call", server.address, *options, "--snr-error-db", "-30", "--json").json["samples"]
        assert [sample["mode"] for sample in misled] == [2, 2, 2, 2]


def test_call_sends_in_the_mode_that_it_is_told(hardpath, steered_bundle, data, tmp_path):
    with Server(steered_bundle, port=0) as server:
        call = ("call", server.address, "--inputs", data, "--rows", "0:4", "--snr-db", "20", "--json")
        for what in ((), ("--encode",)):
            for mode in (0, 1, 2):
                samples = hardpath(*call, *what, "--mode", mode).json["samples"]
                assert [sample["mode"] for sample in samples] == [mode] * 4
        assert [sample["mode"] for sample in hardpath(*call).json["samples"]] == [0, 0, 1, 0]
        answer = hardpath(*call, "--mode", "3")
        assert answer.code == 2
        assert "hardpath: mode must be in [0, 3), or -1 for the transmitter's own choice, got 3" in answer.err
        for other in (("--sweep", "0,6"), ("--decode", tmp_path / "sent.npz")):
            answer = hardpath("call", server.address, *other, "--mode", "1")
            assert answer.code == 2
            assert f"--mode must be absent beside {other[0]}" in answer.err


def test_inspect_says_who_may_choose(hardpath, steered_bundle):
    assert "chosen by a router that is told the SNR unless the caller does, and sent in a header" in (
        hardpath("inspect", steered_bundle).out
    )
