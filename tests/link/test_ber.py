"""Modem sweeps: counts, intervals and theory of every kind, and the same points however they are run."""

import csv
import json
import math

import numpy as np
import pyarrow.parquet
import pytest

from link import theory
from link.ber import BerResult, ModemSpec, ber, build_modem
from link.errors import ArgumentError, MissingExtra, ResultsError
from link.simulator import Ending

SMALL = {"frame_symbols": 64, "block_frames": 16}
SPEC = ModemSpec(snr_db=(0.0, 6.0, 12.0), order=16, target_errors=300, blocks=200, seed=3, **SMALL)


def but(**fields):
    return ModemSpec(**{**SPEC.model_dump(), **fields})


def test_a_point_is_the_sum_of_its_blocks():
    point = ber(SPEC).points[2]
    modem = build_modem(SPEC)
    counts = modem.count(12.0, 0, 16 * point.blocks)
    fewer = modem.count(12.0, 0, 16 * (point.blocks - 1))
    assert (point.bit_errors, point.unit_errors, point.frame_errors) == (
        counts.bit_errors, counts.symbol_errors, counts.frame_errors,
    )  # fmt: skip
    assert counts.symbol_errors >= 300 > fewer.symbol_errors
    assert point.frames == 16 * point.blocks
    assert (point.symbols, point.units, point.bits) == (1024 * point.blocks, 1024 * point.blocks, 4096 * point.blocks)
    assert point.ber.value == counts.bit_errors / point.bits
    assert point.effective_errors == counts.bit_errors**2 / counts.symbol_squares
    assert point.stopped_by is Ending.TARGET


@pytest.mark.parametrize("order", [4, 64, 1024])
@pytest.mark.parametrize("channel", ["awgn", "rayleigh-fast", "rayleigh", "rician"])
def test_theory_lies_within_four_standard_errors(order, channel):
    spec = but(order=order, channel=channel, snr_db=(0.0, 9.0), target_errors=None, blocks=60)
    for point in ber(spec).points:
        deviation = point.ber.value / math.sqrt(point.effective_errors)
        assert abs(point.ber.value - point.ber_theory) < 4 * deviation


def test_the_independent_unit_is_the_frame_where_its_symbols_share_a_gain():
    over = {name: ber(but(channel=name, blocks=20, target_errors=None)).points[1] for name in ("awgn", "rayleigh")}
    assert over["awgn"].units == over["awgn"].symbols
    assert over["rayleigh"].units == over["rayleigh"].frames
    assert over["awgn"].bler is None
    assert over["rayleigh"].bler.value == over["rayleigh"].frame_errors / over["rayleigh"].frames
    assert over["rayleigh"].effective_errors < 0.1 * over["rayleigh"].bit_errors


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_files(tmp_path, workers):
    ber(SPEC, out=tmp_path / "one")
    ber(SPEC, out=tmp_path / "several", workers=workers)
    for name in ("results.json", "results.csv", "results.parquet", "points.jsonl", "spec.json"):
        assert (tmp_path / "several" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_cluster_gives_the_same_file(tmp_path, backend):
    ber(SPEC, out=tmp_path / "one")
    ber(SPEC, out=tmp_path / "cluster", workers=2, backend=backend)
    assert (tmp_path / "cluster/results.json").read_bytes() == (tmp_path / "one/results.json").read_bytes()


def test_a_point_is_replayed_alone_by_its_blocks():
    whole = ber(SPEC).points[2]
    again = ber(but(snr_db=(12.0,), target_errors=None, blocks=whole.blocks)).points[0]
    for name in ("bit_errors", "unit_errors", "frame_errors", "bits"):
        assert getattr(again, name) == getattr(whole, name)
    assert again.stopped_by is Ending.LIMIT


def test_no_error_is_an_upper_bound_and_not_a_zero():
    point = ber(but(snr_db=(25.0,), blocks=4)).points[0]
    assert (point.bit_errors, point.ber.value, point.ber.low) == (0, 0.0, 0.0)
    assert point.ber.high == pytest.approx(1 - 0.025 ** (1 / point.units), rel=1e-9)
    assert point.stopped_by is Ending.LIMIT


def test_time_that_runs_out_leaves_points_absent_and_the_next_run_goes_on(tmp_path):
    cut = ber(SPEC, out=tmp_path, max_time=1e-9)
    assert cut.points == ()
    assert json.loads((tmp_path / "results.json").read_text())["points"] == []
    assert ber(SPEC, out=tmp_path) == ber(SPEC)


def test_the_tables_hold_what_was_returned(tmp_path):
    result = ber(SPEC, out=tmp_path)
    assert BerResult.model_validate_json((tmp_path / "results.json").read_text()) == result
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    columns = pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pydict()
    for index, point in enumerate(result.points):
        assert int(rows[index]["bit_errors"]) == columns["bit_errors"][index] == point.bit_errors
        assert float(rows[index]["ber_low"]) == columns["ber_low"][index] == point.ber.low
        assert rows[index]["bler"] == ""


def test_another_modem_in_the_same_folder_is_refused(tmp_path):
    ber(SPEC, out=tmp_path)
    for fields in ({"order": 64}, {"seed": 4}, {"block_frames": 17}, {"target_errors": 301}):
        with pytest.raises(ResultsError, match=rf"holds another sweep \(spec.{next(iter(fields))} is"):
            ber(but(**fields), out=tmp_path)


def test_eb_over_n0_is_by_information_bit():
    assert ber(but(blocks=1)).points[0].ebn0_db == pytest.approx(-10 * math.log10(4))
    coded = ModemSpec(snr_db=(0.0,), order=16, code="ldpc", code_k=100, code_n=201)
    assert coded.symbols_a_frame == 51  # the last one half full
    assert coded.ebn0_offset_db == pytest.approx(10 * math.log10(100 / 51))


def test_the_capacity_bounds_what_is_sent_and_fading_costs():
    over = {name: ber(but(channel=name, blocks=1)).points for name in ("awgn", "rayleigh", "rician")}
    for awgn, rayleigh, rician in zip(*over.values(), strict=True):
        assert rayleigh.capacity < awgn.capacity < 4.0
        assert rician.capacity is None


def test_importance_sampling_finds_what_plain_counting_finds_and_goes_on_below():
    spec = ModemSpec(snr_db=(12.0, 22.5), order=16, sampling="importance", rel_width=0.2)
    moderate, rare = ber(spec).points
    counted = ber(but(snr_db=(12.0,), target_errors=None, blocks=100)).points[0]
    spread = math.hypot(*(point.ber.value / math.sqrt(point.effective_errors) for point in (moderate, counted)))
    assert abs(moderate.ber.value - counted.ber.value) < 4 * spread
    assert rare.ber.high - rare.ber.low <= 0.2 * rare.ber.value
    assert abs(rare.ber.value - float(theory.ber_awgn(16, 22.5))) < 4 * rare.ber.value / math.sqrt(
        rare.effective_errors
    )
    assert rare.bit_errors is None
    assert rare.equivalent_bits > 1e5 * rare.bits


def test_importance_sampling_is_the_same_on_workers_and_after_a_resume(tmp_path):
    spec = ModemSpec(snr_db=(10.0, 20.0), order=64, sampling="importance", rel_width=0.02)
    ber(spec, out=tmp_path / "one")
    ber(spec, out=tmp_path / "two", workers=2)
    text = (tmp_path / "one/blocks.jsonl").read_bytes()
    (tmp_path / "one/blocks.jsonl").write_bytes(text[: len(text) // 2])
    once = (tmp_path / "one/results.json").read_bytes()
    ber(spec, out=tmp_path / "one")
    assert (tmp_path / "one/results.json").read_bytes() == (tmp_path / "two/results.json").read_bytes() == once


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"order": 8}, "order"),
        ({"order": 32}, "order"),
        ({"snr_db": (61.0,)}, "snr_db"),
        ({"channel": "cable"}, "channel"),
        ({"demapper": "soft"}, "demapper"),
        ({"frame_symbols": -1}, "frame_symbols"),
        ({"frame_symbols": 2**21}, "frame_symbols"),
        ({"blocks": 2**31}, "blocks"),
        ({"code_k": 5}, "code_k"),
        ({"code": "turbo"}, "code"),
        ({"code": "ldpc"}, "code_k"),
        ({"code": "ldpc", "code_k": 100, "code_n": 200}, "frame_symbols"),
        ({"target_errors": 0}, "target_errors"),
        ({"rel_width": 0.0}, "rel_width"),
        ({"sampling": "importance"}, "target_errors"),
        ({"sampling": "importance", "channel": "rayleigh"}, "sampling"),
    ],
)
def test_a_wrong_spec_names_its_field_in_one_line(fields, field):
    with pytest.raises(ArgumentError) as error:
        but(**fields)
    assert error.value.field == field
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ArgumentError, match=r"^device must be cpu, numpy, numba, torch, cuda or cuda:N, got 'tpu'"):
        ber(SPEC, device="tpu")


def test_torch_counts_as_numpy_does():
    # The normals of the two may differ in their last digits, and then a decision on a threshold; here none does.
    one, other = (ber(but(target_errors=None, blocks=2), device=device) for device in ("numpy", "torch"))
    assert one.points == other.points
    assert (one.provenance.generator, other.provenance.generator) == ("philox4x32-10 numpy", "philox4x32-10 torch")


def test_without_numba_numpy_counts_and_says_so(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else find(name))
    result = ber(but(target_errors=None, blocks=1))
    assert result.provenance.generator == "philox4x32-10 numpy"
    assert [point.bit_errors for point in result.points] == [
        point.bit_errors for point in ber(but(target_errors=None, blocks=1)).points
    ]


def test_a_code_without_sionna_names_its_extra(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "sionna"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "sionna", None)
    with pytest.raises(MissingExtra, match=r"sionna is not installed; .*hardpath\[sim\]"):
        ber(ModemSpec(snr_db=(0.0,), code="ldpc", code_k=100, code_n=200))


def test_a_code_turns_few_errors_into_none_and_stays_behind_the_best_code():
    spec = ModemSpec(snr_db=(-1.0, 2.0), order=4, code="ldpc", code_k=100, code_n=200, block_frames=32, blocks=4)
    low, high = ber(spec).points
    assert low.bler.value > high.bler.value
    assert low.bler.high > low.bler_normal
    assert (low.bits, low.frames, low.symbols) == (128 * 100, 128, 128 * 100)
    assert low.ber_theory is None
    assert np.isclose(low.ebn0_db, -1.0)  # one information bit a symbol
