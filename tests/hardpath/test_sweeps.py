"""Sweeps through the command: what they print and write, how they go on, and what is said of each mistake."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import hardpath as package
from hardpath.terminal import say_table
from link.ber import ModemSpec, ber
from link.errors import WorkerError

TINY = ("--frame-symbols", 64, "--block-frames", 16)
BER = ("ber", "--order", 16, *TINY, "--snr-db", "6,9", "--blocks", 3, "--seed", 5)
SPEC = {"order": 16, "frame_symbols": 64, "block_frames": 16, "blocks": 3, "seed": 5}
FILES = {
    "ber.png",
    "ber.svg",
    "blocks.jsonl",
    "points.jsonl",
    "results.csv",
    "results.json",
    "results.parquet",
    "spec.json",
}
LONG = (
    "ber", "--order", "4", "--demapper", "app", "--frame-symbols", "64", "--block-frames", "256", "--snr-db", "6,7",
    "--blocks", "100000",
)  # fmt: skip
"""Minutes of work in blocks of some milliseconds."""


def cells(table):
    """Rows of a printed table, by runs of two spaces."""
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def counted(hardpath, tmp_path_factory):
    """A finished sweep of a modem: its folder, and what was said."""
    folder = tmp_path_factory.mktemp("ber") / "counted"
    return folder, hardpath(*BER, "--out", folder, "--json")


@pytest.fixture
def copy_of(counted, tmp_path):
    """A copy of that folder that a test may break."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in counted[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_ber_prints_the_object_that_scripts_expect(counted):
    answer = counted[1]
    assert answer.code == 0
    assert answer.err == "counting errors of 16-QAM, awgn\n"
    direct = ber(ModemSpec(snr_db=(6.0, 9.0), **SPEC))
    assert answer.json == direct.model_dump(mode="json")
    for point in answer.json["points"]:
        assert set(point["ber"]) == {"value", "low", "high"}
        assert (
            point["ber"]["low"] <= point["ber"]["value"] == point["bit_errors"] / point["bits"] <= point["ber"]["high"]
        )
        assert point["bits"] == 3 * 16 * 64 * 4
        assert point["stopped_by"] == "limit"


def test_ber_leaves_its_figures_as_json_tables_and_plots(counted):
    folder, answer = counted
    assert {file.name for file in folder.iterdir()} == FILES | {".lock"}
    assert json.loads((folder / "results.json").read_text()) == answer.json
    assert (folder / "ber.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "<svg" in (folder / "ber.svg").read_text()
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    columns = pyarrow.parquet.read_table(folder / "results.parquet").to_pydict()
    for index, point in enumerate(answer.json["points"]):
        assert float(rows[index]["ber"]) == columns["ber"][index] == point["ber"]["value"]
        assert int(rows[index]["bit_errors"]) == columns["bit_errors"][index] == point["bit_errors"]


def test_the_same_command_again_says_the_same_and_counts_nothing_again(hardpath, counted, monkeypatch):
    folder, answer = counted
    before = (folder / "blocks.jsonl").read_bytes()
    monkeypatch.setattr("link.modem.Modem.count", lambda *arguments: pytest.fail("counted again"))
    assert hardpath(*BER, "--out", folder, "--json").out == answer.out
    assert (folder / "blocks.jsonl").read_bytes() == before


def test_the_table_shows_every_point_with_its_theory(hardpath, counted):
    folder, answer = counted
    title, head, _, *rows = cells(hardpath(*BER, "--out", folder).out)
    assert title == ["16-QAM, awgn, seed 5; 95 % intervals"]
    assert head == [
        "Es/N0 dB", "Eb/N0 dB", "BER", "interval", "bit errors", "theory", "blocks", "stopped by",
    ]  # fmt: skip
    for row, point in zip(rows, answer.json["points"], strict=True):
        assert row[:3] == [f"{point['snr_db']:g}", f"{point['ebn0_db']:.4g}", f"{point['ber']['value']:.3e}"]
        assert row[3] == f"{point['ber']['low']:.3e} .. {point['ber']['high']:.3e}"
        assert row[4:] == [
            f"{point['bit_errors']}/{point['bits']:.3g}", f"{point['ber_theory']:.3e}", "3", "limit",
        ]  # fmt: skip


def test_no_number_is_cut_on_a_terminal_that_is_too_narrow(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    say_table("wide", ("a", "b"), [("1" * 30, "2" * 30)])
    assert "1" * 30 in terminal.getvalue()
    assert "2" * 30 in terminal.getvalue()


def test_eb_over_n0_is_turned_into_es_over_n0(hardpath):
    answer = hardpath("ber", "--order", 16, *TINY, "--blocks", 1, "--ebn0-db", "0:4:2", "--json")
    assert [point["ebn0_db"] for point in answer.json["points"]] == pytest.approx([0.0, 2.0, 4.0], abs=1e-12)
    # 4 bits a symbol: 10 log10 4 dB
    assert answer.json["spec"]["snr_db"] == pytest.approx([6.0206, 8.0206, 10.0206], abs=1e-4)


def test_every_option_of_the_channel_and_the_receiver_reaches_the_spec(hardpath):
    options = {
        "channel": "rician", "block_symbols": 8, "k_factor_db": 3.0, "csi": "lmmse", "pilots": 2, "no_offset_db": -1.0,
        "demapper": "app", "frame_symbols": 32, "seed": 9, "blocks": 2, "block_frames": 4, "target_errors": 7,
        "rel_width": 3.0, "delay_spread_ns": 30.0, "speed_kmh": 5.0, "carrier_ghz": 2.0, "spacing_khz": 15,
        "resource_blocks": 25, "iterations": 5, "order": 64,
    }  # fmt: skip
    given = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    found = hardpath("ber", "--snr-db", "9", *given, "--json").json
    assert {name: found["spec"][name] for name in options} == options
    assert found["points"] == ber(ModemSpec(snr_db=(9.0,), **options)).model_dump(mode="json")["points"]


@pytest.mark.parametrize(
    ("options", "target", "width"),
    [
        ((), 200, None),
        (("--rel-width", 5.0), None, 5.0),
        (("--target-errors", 3), 3, None),
        (("--blocks", 1), None, None),
    ],
)
def test_without_any_target_a_point_is_ended_by_200_errors(hardpath, options, target, width):
    spec = hardpath("ber", *TINY, "--snr-db", "0", *options, "--json").json["spec"]
    assert (spec["target_errors"], spec["rel_width"]) == (target, width)


def test_a_target_ends_points_where_it_is_met(hardpath):
    answer = hardpath("ber", *TINY, "--snr-db", "0,6", "--target-errors", 300, "--blocks", 50)
    rows = cells(answer.out)[3:]
    assert [row[-1] for row in rows] == ["target", "target"]
    assert int(rows[0][-2]) < int(rows[1][-2]) < 50


def test_an_ldpc_code_has_block_errors_and_the_best_code_beside_them(hardpath, tmp_path):
    options = ("--ldpc", "100/200", "--snr-db", "0", "--blocks", 2, "--block-frames", 8, "--out", tmp_path)
    answer = hardpath("ber", *options)
    assert answer.code == 0, answer
    title, head, _, row = cells(answer.out)
    assert title == ["4-QAM, LDPC (100, 200), awgn, seed 0; 95 % intervals"]
    assert {"BLER", "best code"} <= set(head)
    assert "theory" not in head
    point = json.loads((tmp_path / "results.json").read_text())["points"][0]
    assert (point["bits"], point["frames"], point["ebn0_db"]) == (1600, 16, 0.0)
    assert row[head.index("best code")] == f"{point['bler_normal']:.2e}"
    assert {"ber.svg", "bler.svg", "bler.png"} < {file.name for file in tmp_path.iterdir()}


def test_importance_sampling_weighs_what_cannot_be_counted(hardpath, tmp_path):
    answer = hardpath("ber", "--importance", "--order", 16, "--snr-db", "22", "--out", tmp_path, "--json")
    (point,) = answer.json["points"]
    assert (answer.json["spec"]["sampling"], answer.json["spec"]["rel_width"]) == ("importance", 0.2)
    assert (point["bit_errors"], point["stopped_by"]) == (None, "target")
    assert 0.0 < point["ber"]["low"] < point["ber"]["value"] < point["ber"]["high"] < 1e-8
    assert point["ber"]["high"] - point["ber"]["low"] <= 0.2 * point["ber"]["value"]
    row = cells(hardpath("ber", "--importance", "--order", 16, "--snr-db", "22", "--out", tmp_path).out)[-1]
    assert row[4] == f"~{point['effective_errors']:.0f}/{point['equivalent_bits']:.3g}"


def test_where_no_error_was_counted_the_table_says_below_what_the_rate_lies(hardpath):
    row = cells(hardpath("ber", *TINY, "--snr-db", "25", "--blocks", 1).out)[-1]
    # Of 1,024 symbols none was wrong: 1 - 0.025^(1/1024)
    assert row[2] == "< 3.6e-03"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--channel", "cable"), "channel must be one of awgn, rayleigh,"),
        (("--order", 8), "order must be one of 4, 16, 64, 256, 1024, 4096, got 8"),
        (("--snr-db", 99), "snr_db must be in [-30, 60], got 99"),
        (("--snr-db", "0:10"), "snr_db must be first:last:step or points with commas between"),
        (("--snr-db", "3,3"), "snr_db must hold each point once"),
        (("--snr-db", ",".join(["1"] * 10_000)), "snr_db must hold each point once (to 0.001 dB), got 1 twice"),
        (("--snr-db", "0:60:0.001"), "snr_db must have at most 10000 points, got '0:60:0.001'"),
        (("--snr-db", ",".join(str(i) for i in range(10_001))), "got (0.0, 1.0, 2.0,"),
        (("--snr-db", "x," * 9_000), "got 'x,x,x,"),
        (("--snr-db", 6, "--ebn0-db", 3), "--ebn0-db must be absent beside --snr-db"),
        (("--ebn0-db", "x"), "ebn0_db must be first:last:step or points with commas between"),
        (("--demapper", "soft"), "demapper should be 'max-log' or 'app', got 'soft'"),
        (("--ldpc", "512"), "--ldpc takes K/N, such as 512/1024, got '512'"),
        (("--ldpc", "a/b"), "--ldpc takes K/N, such as 512/1024, got 'a/b'"),
        (("--ldpc", "1/2/3"), "--ldpc takes K/N, such as 512/1024, got '1/2/3'"),
        (("--ldpc", "10/20"), "code_k must be in [12, 8448], got 10"),
        (("--ldpc", "9000/20000"), "code_k must be in [12, 8448], got 9000"),
        (("--ldpc", "200/100"), "code_n must be in [217, 1000] for code_k = 200, got 100"),
        (("--ldpc", "100/2000"), "code_n must be in [109, 500] for code_k = 100, got 2000"),
        (("--ldpc", "100/200", "--frame-symbols", 64), "frame_symbols must be 0 with a code, got 64"),
        (("--ldpc", "100/200", "--device", "cuda"), "device must be "),
        (("--ldpc", "100/200", "--iterations", 0), "iterations should be greater than or equal to 1, got 0"),
        (("--importance", "--target-errors", 5), "target_errors means nothing where errors are weighed"),
        (("--importance", "--channel", "rayleigh"), "sampling by importance is for uncoded QAM over awgn alone"),
        (("--importance", "--device", "torch"), "device must be cpu with importance sampling, got 'torch'"),
        (("--rel-width", 0), "rel_width must be in [0.001, 10], got 0"),
        (("--target-errors", 0), "Invalid value for '--target-errors'"),
        (("--blocks", 0), "Invalid value for '--blocks'"),
        (("--workers", 0), "Invalid value for '--workers'"),
        (("--workers", 5000), "workers must be in [1, 4096], got 5000"),
        (("--backend", "mpi"), "backend must be one of loky, dask, ray, got 'mpi'"),
        (("--max-time", 0), "max_time must be above 0 seconds, got 0"),
        (("--device", "tpu"), "device must be cpu, numpy, numba, torch, cuda or cuda:N, got 'tpu'"),
        (("--device", "cuda:99"), "device must be on a device that is there, torch sees "),
    ],
)
def test_each_mistake_of_ber_gets_one_line_and_leaves_nothing(hardpath, tmp_path, options, part):
    assert part in hardpath("ber", *options, "--out", tmp_path / "out").refused(2)
    assert list(tmp_path.iterdir()) == []


def test_another_sweep_in_the_same_folder_is_refused_with_4(hardpath, counted):
    line = hardpath(*BER, "--order", 64, "--out", counted[0]).refused(4)
    assert "holds another sweep (spec.order is 16 there, 64 here); use another folder" in line


def test_a_line_that_a_crash_cut_is_dropped_with_a_warning_and_counted_again(hardpath, copy_of, counted, caplog):
    journal = copy_of / "blocks.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-30])
    assert hardpath(*BER, "--out", copy_of, "--json").out == counted[1].out
    assert "the last line was cut short by a crash; dropped, its blocks are run again" in caplog.text
    assert sorted(map(json.dumps, blocks_of(journal))) == sorted(
        map(json.dumps, blocks_of(counted[0] / "blocks.jsonl"))
    )


def blocks_of(journal):
    """Each block's numbers by its point and number."""
    found = []
    for line in map(json.loads, journal.read_text().splitlines()):
        columns = zip(*line["blocks"].values(), strict=True)
        found += [(line["snr_db"], line["first"] + offset, numbers) for offset, numbers in enumerate(columns)]
    return found


def test_a_digit_that_was_changed_is_refused_with_4_and_left_alone(hardpath, copy_of):
    journal = copy_of / "blocks.jsonl"
    changed = re.sub(
        r'("bit_errors": \[\d*)(\d)', lambda found: f"{found[1]}{9 - int(found[2])}", journal.read_text(), count=1
    )
    journal.write_text(changed)
    for arguments in ((*BER, "--out", copy_of), ("compare", copy_of, copy_of)):
        assert "line 1 cannot be read: its checksum is wrong; use another folder" in hardpath(*arguments).refused(4)
    assert journal.read_text() == changed


def test_a_backend_that_is_not_installed_is_named_with_5(hardpath, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = hardpath(*BER, "--workers", 2, "--backend", "ray").refused(5)
    assert line == "ray is not installed; install it with: pip install 'hardpath[ray]'"


def test_workers_that_died_twice_end_the_command_with_5(hardpath, monkeypatch):
    def died(*arguments, **options):
        raise WorkerError("two workers died at 6 dB, block 0")

    monkeypatch.setattr("link.ber.conduct", died)
    assert hardpath(*BER).refused(5) == "two workers died at 6 dB, block 0"


def test_time_that_runs_out_before_any_block_is_said_and_the_folder_goes_on(hardpath, tmp_path, counted):
    answer = hardpath(*BER, "--max-time", 1e-9, "--out", tmp_path)
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines()[-1] == (
        "2 of 2 points have no block yet, and are absent: with --out, run it again to go on"
    )
    assert not (tmp_path / "ber.png").exists()
    assert hardpath(*BER, "--out", tmp_path, "--json").out == counted[1].out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few images and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    file = tmp_path_factory.mktemp("data") / "digits.npz"
    images = (digits.images[:40] / 16.0).astype(np.float32)
    np.savez(file, image=images, labels=digits.target[:40])
    return file


@pytest.fixture(scope="module")
def swept(hardpath, bundle, data, tmp_path_factory):
    """A bundle's sweep with its receiver as it is, and one that is told too much noise: their folders."""
    folders = [tmp_path_factory.mktemp("sweep") / name for name in ("right", "misled")]
    for folder, offset in zip(folders, (0.0, 20.0), strict=True):
        options = ("--snr-db", "0,6", "--draws", 3, "--data", data, "--no-offset-db", offset, "--out", folder)
        assert hardpath("sweep", bundle, *options).code == 0
    return folders


def test_a_target_ends_a_sweep_early_and_workers_change_nothing(hardpath, bundle, data, tmp_path):
    options = ("--snr-db", "-6,0", "--draws", 40, "--data", data, "--target-errors", 30, "--json")
    alone = hardpath("sweep", bundle, *options, "--out", tmp_path / "alone")
    shared = hardpath("sweep", bundle, *options, "--out", tmp_path / "shared", "--workers", 2)
    assert shared.out == alone.out
    for point in alone.json["points"]:
        assert (point["stopped_by"], point["draws"] < 40) == ("target", True)
        assert point["decisions"] - point["correct"] >= 30
    for name in ("results.json", "results.csv", "results.parquet", "points.jsonl"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    table = hardpath("sweep", bundle, *options[:-1], "--out", tmp_path / "alone").out
    assert cells(table)[1][-1] == "stopped by"
    assert cells(table)[-1][-1] == "target"


def test_a_relative_width_reaches_a_sweep(hardpath, bundle, data):
    options = ("--snr-db", "-6", "--draws", 40, "--data", data, "--rel-width", 0.5, "--json")
    (point,) = hardpath("sweep", bundle, *options).json["points"]
    errors = {name: 1.0 - value for name, value in point["accuracy_noise"].items()}
    assert point["stopped_by"] == "target"
    assert errors["low"] - errors["high"] <= 0.5 * errors["value"]


def test_time_that_runs_out_leaves_a_sweep_to_go_on(hardpath, bundle, data, tmp_path):
    options = ("--snr-db", "0", "--draws", 2, "--data", data)
    cut = hardpath("sweep", bundle, *options, "--out", tmp_path, "--max-time", 1e-9, "--baseline", "uncoded", "--json")
    assert (cut.code, cut.json["points"]) == (0, [])
    whole = hardpath("sweep", bundle, *options, "--out", tmp_path, "--json")
    assert whole.out == hardpath("sweep", bundle, *options, "--json").out


def test_baselines_stand_beside_a_sweep(hardpath, bundle, data, tmp_path):
    options = ("--snr-db", "0,6", "--draws", 2, "--data", data, "--baseline", "repetition", "--baseline", "uncoded")
    answer = hardpath("sweep", bundle, *options, "--out", tmp_path, "--json")
    beside = answer.json["baselines"]
    assert beside == json.loads((tmp_path / "baselines.json").read_text())
    assert list(beside) == ["repetition", "uncoded"]
    for own, repeated, uncoded in zip(answer.json["points"], *beside.values(), strict=True):
        assert own["snr_db"] == repeated["snr_db"] == uncoded["snr_db"]
        assert own["decisions"] == repeated["decisions"] == uncoded["decisions"]
        assert repeated["symbols_per_sample"] == own["symbols_per_sample"]
        assert uncoded["symbols_per_sample"] == 2.0  # 4 bits of a class in QPSK
        assert repeated["correct"] >= uncoded["correct"]
    assert "decision, repetition" in (tmp_path / "accuracy.svg").read_text()
    head = cells(hardpath("sweep", bundle, *options, "--out", tmp_path).out)[1]
    assert head[-2:] == ["repetition %", "uncoded %"]


def test_a_baseline_spends_what_a_router_spends_at_each_point(hardpath, routed_bundle, latents_of, tmp_path):
    made = latents_of(np.arange(24) % 3)
    np.savez(tmp_path / "rings.npz", **made.inputs, labels=made.labels)
    options = (
        "--snr-db",
        "-5,20",
        "--draws",
        1,
        "--data",
        tmp_path / "rings.npz",
        "--baseline",
        "repetition",
        "--json",
    )
    found = hardpath("sweep", routed_bundle, *options).json
    own, beside = found["points"], found["baselines"]["repetition"]
    assert own[0]["symbols_per_sample"] != own[1]["symbols_per_sample"]
    for point, rival in zip(own, beside, strict=True):
        assert rival["symbols_per_sample"] == round(point["symbols_per_sample"])


def test_an_unknown_baseline_is_refused(hardpath, bundle):
    answer = hardpath("sweep", bundle, "--baseline", "turbo")
    assert "Invalid value for '--baseline'" in answer.refused(2)


def test_plot_lays_sweeps_side_by_side(hardpath, counted, tmp_path):
    other = tmp_path / "other"
    assert hardpath(*BER, "--channel", "rayleigh", "--out", other).code == 0
    answer = hardpath("plot", counted[0], other, "--out", tmp_path / "both", "--title", "two")
    assert answer.out.splitlines() == [str(tmp_path / "both.png"), str(tmp_path / "both.svg")]
    text = (tmp_path / "both.svg").read_text()
    for part in ("two", "awgn", "rayleigh", "theory"):
        assert f"<!-- {part} -->" in text
    named = ("--label", "flat", "--label", "faded", "--metric", "ber", "--ebn0", "--out", tmp_path / "named")
    assert hardpath("plot", counted[0], other, *named).code == 0
    text = (tmp_path / "named.svg").read_text()
    assert "<!-- faded -->" in text
    assert "E_\\mathrm{b}" in text
    assert "E_\\mathrm{s}" not in text


def test_folders_that_are_called_alike_are_told_apart_by_their_paths(hardpath, counted, tmp_path, monkeypatch):
    for folder in (tmp_path / "one" / "ber", tmp_path / "two" / "ber", tmp_path / "three"):
        folder.mkdir(parents=True)
        for file in ("results.json", "blocks.jsonl"):
            (folder / file).write_bytes((counted[0] / file).read_bytes())
    monkeypatch.chdir(tmp_path / "three")
    assert "A: three, B: ber" in hardpath("compare", ".", "../one/ber").out
    assert "A: ../one/ber, B: ../two/ber" in hardpath("compare", "../one/ber", "../two/ber").out


def test_plot_shows_accuracies_of_bundles(hardpath, swept, tmp_path):
    assert hardpath("plot", *swept, "--out", tmp_path / "plot.png").code == 0
    assert "noise variance told 20 dB too high" in (tmp_path / "plot.svg").read_text()


def test_compare_tells_receivers_apart_by_the_noise_that_they_share(hardpath, swept):
    found = hardpath("compare", *swept, "--json").json
    assert found["metric"] == "accuracy"
    assert [point["snr_db"] for point in found["points"]] == [0.0, 6.0]
    results = [json.loads((folder / "results.json").read_text())["points"] for folder in swept]
    for point, a, b in zip(found["points"], *results, strict=True):
        assert point["difference"] == pytest.approx((a["correct"] - b["correct"]) / a["decisions"], abs=1e-12)
        assert point["low"] <= point["difference"] <= point["high"]
    title, head, _, *rows = cells(hardpath("compare", *swept).out)
    assert title == ["accuracy % on the same noise, A: right, B: misled"]
    assert head == ["Es/N0 dB", "A", "B", "A - B", "95 % interval", "p", "gain"]
    assert [row[0] for row in rows] == ["0", "6", "all"]
    assert rows[2][3] == f"{100 * found['overall']['difference']:+.2f}"


def test_compare_of_a_sweep_with_itself_finds_nothing(hardpath, counted):
    answer = hardpath("compare", counted[0], counted[0])
    row = cells(answer.out)[-1]
    assert row[0] == "all"
    assert row[3:] == ["+0.00e+00", "-", "-", "-"]
    assert "points of fewer than 6 blocks say nothing of a difference" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("plot", "no-such-folder"), 2, "no-such-folder does not exist"),
        (("compare", "counted", "no-such-folder"), 2, "no-such-folder does not exist"),
        (("plot", "empty"), 4, "holds no finished sweep: it has no results.json"),
        (("compare", "counted", "empty"), 4, "holds no finished sweep: it has no results.json"),
        (("compare", "counted", "swept"), 2, "b is a sweep of another kind: a bundle and a modem cannot be compared"),
        (
            ("plot", "counted", "--metric", "evm"),
            2,
            "metric must be one of accuracy, ber, bler, bleu, bleu-1, bleu-2, bleu-3, bleu-4, got 'evm'",
        ),
        (("plot", "counted", "--metric", "accuracy"), 2, "metric accuracy was not measured for 16-QAM, awgn"),
        (("plot", "swept", "--ebn0"), 2, "is a bundle, whose bits are not information bits"),
        (("plot", "counted", "swept", "--label", "one"), 2, "label must be given once for each of 2 folders, got 1"),
        (("plot",), 2, "Missing argument 'FOLDER...'"),
    ],
)
def test_each_mistake_of_plot_and_compare_gets_one_line(hardpath, counted, swept, tmp_path, arguments, code, part):
    (tmp_path / "empty").mkdir()
    folders = {"counted": counted[0], "swept": swept[0], "empty": tmp_path / "empty"}
    given = [folders.get(argument, argument) for argument in arguments]
    if arguments[0] == "plot":
        given += ["--out", tmp_path / "plot"]
    assert part in hardpath(*given).refused(code)
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("command", ["sweep", "ber"])
def test_the_help_is_in_groups_and_names_the_extras(hardpath, command):
    text = hardpath(command, "--help").out
    for part in ("Channel", "How long", "Where to run", "Output", "hardpath[sim]"):
        assert part in text


def start(*arguments):
    """The command in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "hardpath", *map(str, arguments)],
        cwd=Path(package.__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_lines(file, lines, process):
    while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < lines):
        time.sleep(0.01)


def names_in_group(group):
    """Command lines of a group's processes; empty where one has ended and was not asked for yet."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except (ProcessLookupError, FileNotFoundError):  # ended since
            continue
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_with_what_is_there_and_the_same_command_goes_on(hardpath, tmp_path, workers):
    folder = tmp_path / "out"
    with start(*LONG, "--out", folder, "--workers", workers, "--json") as process:
        wait_for_lines(folder / "blocks.jsonl", 3, process)
        assert sum("LokyProcess" in name for name in names_in_group(process.pid)) == (workers if workers > 1 else 0)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers hear it too
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines() == [
        "counting errors of 4-QAM, exact LLRs, awgn",
        "hardpath: interrupted; what was finished is kept: run the same command again to go on",
    ]
    assert [name for name in names_in_group(process.pid) if "hardpath" in name or "Loky" in name] == []
    found = json.loads((folder / "results.json").read_text())
    assert found == json.loads(out)
    point = found["points"][0]
    assert point["stopped_by"] == "interrupt"
    assert {"ber.png", "results.csv", "results.parquet"} < {file.name for file in folder.iterdir()}

    replay = list(LONG)
    replay[replay.index("6,7")], replay[replay.index("100000")] = "6", point["blocks"]
    (again,) = hardpath(*replay, "--json").json["points"]
    assert (again.pop("stopped_by"), point.pop("stopped_by")) == ("limit", "interrupt")
    assert again == point

    more = hardpath(*LONG, "--out", folder, "--max-time", 0.2, "--json").json["points"][0]
    assert more["stopped_by"] == "max-time"
    assert more["blocks"] >= point["blocks"]


def test_ctrl_c_without_a_folder_shows_what_is_there_and_says_that_nothing_is_kept(hardpath, monkeypatch):
    from link.modem import Modem

    count, calls = Modem.count, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return count(*arguments)

    monkeypatch.setattr(Modem, "count", interrupted)
    monkeypatch.setattr("link.simulator.points.TASK_SECONDS", 0.0)  # a block a task
    answer = hardpath(*BER)
    assert answer.code == 130
    assert answer.err.splitlines()[-1] == "hardpath: interrupted; without --out nothing is kept"
    rows = cells(answer.out)[3:]
    assert [row[-2:] for row in rows] == [["2", "interrupt"]]


def test_an_interrupted_sweep_of_a_bundle_shows_what_is_there(hardpath, bundle, data, tmp_path, monkeypatch):
    from link.semantic import SemanticPasses

    run = SemanticPasses.run

    def interrupted(passes, snr_db, block):
        if block == 2:
            raise KeyboardInterrupt
        return run(passes, snr_db, block)

    options = ("--snr-db", "6", "--draws", 5, "--data", data, "--baseline", "uncoded", "--out", tmp_path)
    monkeypatch.setattr(SemanticPasses, "run", interrupted)
    monkeypatch.setattr("link.simulator.points.TASK_SECONDS", 0.0)
    answer = hardpath("sweep", bundle, *options)
    assert answer.code == 130
    assert "interrupted; what was finished is kept: run the same command again to go on" in answer.err
    head, _, row = cells(answer.out)[1:]
    assert (head[-1], row[-1], row[3]) == ("stopped by", "interrupt", row[3])
    monkeypatch.setattr(SemanticPasses, "run", run)
    assert hardpath("sweep", bundle, *options, "--json").json["points"][0]["draws"] == 5


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_the_caller_closed_is_done_without(closed):
    descriptor = {"stdout": 1, "stderr": 2}[closed]
    options = ["ber", *map(str, TINY), "--snr-db", "0", "--blocks", "1", "--json"]
    command = [sys.executable, "-m", "hardpath", *options]
    call = f"import os; os.close({descriptor}); os.execv({sys.executable!r}, {command!r})"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "unforeseen" not in done.stderr


def test_without_matplotlib_the_figures_are_there_and_the_plots_are_not(hardpath, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = hardpath(*BER, "--out", tmp_path)
    assert answer.code == 0
    assert "no plots: matplotlib is not installed; install it with: pip install 'hardpath[sweep]'" in answer.err
    assert len(cells(answer.out)) == 5
    assert (tmp_path / "results.json").exists()
    assert not (tmp_path / "ber.png").exists()


def test_where_numba_may_not_compile_numpy_counts(hardpath, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert hardpath(*BER, "--json").json["provenance"]["generator"] == "philox4x32-10 numpy"
