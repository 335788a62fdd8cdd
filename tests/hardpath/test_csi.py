"""What the receiver knows of the channel, as options of sweep."""

import csv

import pytest

SWEEP = ("--channel", "rayleigh", "--snr-db", "6", "--draws", 1)
LMMSE = ("--csi", "lmmse", "--pilots", 2)


def test_pilots_and_a_wrong_noise_variance_reach_the_sweep(hardpath, bundle):
    known, estimated, misled = (
        hardpath("sweep", bundle, *SWEEP, *options, "--json").json
        for options in ((), LMMSE, (*LMMSE, "--no-offset-db", 6))
    )
    assert [found["spec"]["csi"] for found in (known, estimated)] == ["perfect", "lmmse"]
    assert misled["spec"]["no_offset_db"] == 6.0
    one, two, three = (found["points"][0] for found in (known, estimated, misled))
    assert two["symbols_per_sample"] == one["symbols_per_sample"] + 2
    assert one["bit_errors"] < two["bit_errors"]
    assert three["mean_abs_llr"] < two["mean_abs_llr"]


def test_table_and_plots_are_titled_with_it_and_the_folder_is_kept_for_it(hardpath, bundle, tmp_path):
    answer = hardpath("sweep", bundle, *SWEEP, *LMMSE, "--no-offset-db", -3, "--out", tmp_path)
    knowledge = "lmmse CSI from 2 pilots a block, noise variance told 3 dB too low"
    assert f"over rayleigh, {knowledge}, 8 symbols a sample" in " ".join(answer.out.split())
    for name in ("accuracy.svg", "ber.svg"):
        assert f"<!-- digits:1, {knowledge} -->" in (tmp_path / name).read_text()
    row = next(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert row["symbols_per_sample"] == "8.0"
    refused = hardpath("sweep", bundle, *SWEEP, "--csi", "ls", "--pilots", 2, "--out", tmp_path)
    assert refused.code == 4
    assert "spec.csi is lmmse there, ls here" in refused.err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--csi", "ls"), "pilots must be in [1, 1024] with csi ls, got 0"),
        (("--pilots", 3), "pilots must be 0 with perfect csi, got 3"),
        (("--csi", "oracle", "--pilots", 3), "csi must be one of perfect, ls, lmmse, got 'oracle'"),
        (("--csi", "ls", "--pilots", 3), "csi must be perfect over awgn"),
        (("--csi", "ls", "--pilots", 3, "--channel", "rician-fast"), "csi must be perfect where each symbol fades"),
        (("--no-offset-db", 40), "no_offset_db must be in [-30, 30], got 40"),
    ],
)
def test_each_mistake_gets_one_line(hardpath, bundle, options, part):
    answer = hardpath("sweep", bundle, *options)
    assert answer.code == 2
    assert answer.out == ""
    lines = [line for line in answer.err.splitlines() if line.startswith("hardpath: ")]
    assert len(lines) == 1
    assert part in lines[0]
