"""Sweeps of bundles with several modes: what is counted, of what, and that chunks change nothing."""

import csv

import numpy as np
import pytest

from link import theory
from link.bundle import load_bundle
from link.chain import Link
from link.errors import ArgumentError
from link.randomness import Draws
from link.results import SweepPoint
from link.semantic import SemanticPasses
from link.sweep import SweepSpec, sweep

ROWS, DRAWS = 90, 3  # the last of the frames of 4 has two samples
SIZES = {"bits": np.array([9, 9, 4]), "tokens": np.array([3, 3, 2]), "symbols": np.array([3, 5, 2])}
SPEC = SweepSpec(snr_db=(-3.0, 9.0), seed=5, draws=DRAWS)


@pytest.fixture(scope="module")
def link(modes_bundle):
    return Link(load_bundle(modes_bundle))


@pytest.fixture(scope="module")
def routed(routed_bundle):
    return Link(load_bundle(routed_bundle))


@pytest.fixture(scope="module")
def data(latents_of):
    modes = np.random.default_rng(1).integers(3, size=ROWS)
    modes[:40] = np.repeat(modes[:10], 4)
    return latents_of(modes)


@pytest.mark.parametrize("kind", ["fixed", "routed"])
def test_counts_are_those_of_one_pass_over_the_chain(kind, link, routed, data, request):
    used = {"fixed": link, "routed": routed}[kind]
    for point in sweep(used, data.inputs, data.labels, SPEC).points:
        counted = dict.fromkeys(("correct", "bits", "bit_errors", "indices", "index_errors", "symbols"), 0)
        counted |= dict.fromkeys(("headers", "headers_lost", "headers_wrong", "header_symbols"), 0)
        sent_bits, abs_llr, modes = 0, 0.0, []
        for draw in range(DRAWS):
            draws = Draws(SPEC.seed, np.arange(ROWS), draw)
            result = used.transmit(data.inputs, SPEC.build_channel(), point.snr_db, draws)
            header, decoded, sent = result.header, result.decoded, result.sent
            counted["correct"] += int((decoded.decisions == data.labels).sum())
            for row in np.flatnonzero(~header.lost & (header.mode == sent.mode)):
                bits, tokens = SIZES["bits"][sent.mode[row]], SIZES["tokens"][sent.mode[row]]
                llr = decoded.llr[row, :bits]
                counted["bits"] += int(bits)
                counted["bit_errors"] += int(((llr > 0) != sent.bits[row, :bits]).sum())
                counted["indices"] += int(tokens)
                counted["index_errors"] += int((decoded.indices_hat[row, :tokens] != sent.indices[row, :tokens]).sum())
                abs_llr += float(np.abs(llr.astype(np.float64)).sum())
            for name in ("headers", "headers_lost", "headers_wrong", "header_symbols"):
                counted[name] += getattr(header, name)
            counted["symbols"] += int(SIZES["symbols"][sent.mode].sum()) + header.header_symbols
            sent_bits += int((SIZES["symbols"] * np.array([4, 2, 2]))[sent.mode].sum()) + 2 * header.header_symbols
            modes += sent.mode.tolist()
        assert {name: getattr(point, name) for name in counted} == counted
        assert point.mode_samples == tuple(np.bincount(modes, minlength=3).tolist())
        assert sum(point.mode_shares) == pytest.approx(1.0)
        assert point.symbols_per_sample == counted["symbols"] / (ROWS * DRAWS)
        assert point.bits_per_sample == sent_bits / (ROWS * DRAWS)
        assert point.ber.value == counted["bit_errors"] / counted["bits"]
        assert point.mean_abs_llr == pytest.approx(abs_llr / counted["bits"], rel=1e-6)  # sums of float32
        if point.snr_db == -3.0:
            assert point.headers_lost
            assert point.headers_wrong


@pytest.mark.parametrize("channel", ["awgn", "rayleigh", "rician-fast"])
def test_neither_chunks_nor_the_order_of_points_change_a_count(link, routed, data, channel):
    spec = SPEC.model_copy(update={"channel": channel})
    turned = spec.model_copy(update={"snr_db": SPEC.snr_db[::-1]})
    for used in (link, routed):
        whole = sweep(used, data.inputs, data.labels, spec, chunk_rows=ROWS * DRAWS)
        for rows in (1, 3, 4, 7, 50, 90, 91, 200):
            parts = sweep(used, data.inputs, data.labels, turned, chunk_rows=rows)
            assert parts.points[::-1] == whole.points, rows


def test_a_point_run_alone_is_the_point_of_the_grid(routed, data):
    grid = sweep(routed, data.inputs, data.labels, SPEC)
    alone = sweep(routed, data.inputs, data.labels, SPEC.model_copy(update={"snr_db": (9.0,)}))
    assert alone.points[0] == grid.points[1]


def test_chunks_hold_whole_frames_and_every_reception_once(link, data):
    frame, tensors = link.manifest.header.frame_samples, link.transmitter.tensors(data.inputs)
    for rows in (1, 3, 4, 7, 33, 90, 200):
        chunks = [range(ROWS)[place] for place in SemanticPasses(link, tensors, data.labels, SPEC, rows)._chunks(ROWS)]
        assert [row for chunk in chunks for row in chunk] == list(range(ROWS))
        for chunk in chunks:
            assert 0 < len(chunk) <= max(rows, frame)
            # A chunk ends where a draw does, or before a sample that begins a frame.
            assert chunk[-1] == ROWS - 1 or (chunk[-1] + 1) % frame == 0


def test_a_router_is_asked_at_each_point_and_a_fixed_bundle_once(link, routed, data, monkeypatch):
    asked = []
    run = type(link.transmitter).__call__

    def spy(self, x, *told):
        asked.append(told)
        return run(self, x, *told)

    monkeypatch.setattr(type(link.transmitter), "__call__", spy)
    spec = SPEC.model_copy(update={"snr_error_db": 3.0})
    sweep(routed, data.inputs, data.labels, spec)
    assert asked == [(0.0, None), (12.0, None)]
    asked.clear()
    sweep(link, data.inputs, data.labels, SPEC)
    assert asked == [(None, None)]


def test_a_routers_error_changes_the_modes_and_not_the_channel(routed, data):
    misled, led = (
        sweep(routed, data.inputs, data.labels, SweepSpec(snr_db=(9.0,), snr_error_db=error)).points[0]
        for error in (-3.0, 0.0)
    )
    assert misled.snr_db == led.snr_db == 9.0
    assert misled.mode_samples[0] == 0 < led.mode_samples[0]
    with pytest.raises(ArgumentError, match=r"^snr_error_db ") as caught:
        SweepSpec(snr_db=(9.0,), snr_error_db=99.0)
    assert caught.value.field == "snr_error_db"


def test_an_error_without_a_router_is_refused_before_anything_is_written(link, data, tmp_path):
    spec = SweepSpec(snr_db=(9.0,), snr_error_db=1.0)
    with pytest.raises(ArgumentError, match="snr_error_db must be 0 for a bundle without a router, got 1"):
        sweep(link, data.inputs, data.labels, spec, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_theory_is_given_where_all_is_sent_in_one_mode(link, latents_of):
    only = latents_of(np.full(40, 1))
    mixed = latents_of(np.arange(40) % 3)
    spec = SweepSpec(snr_db=(6.0,))
    assert sweep(link, only.inputs, only.labels, spec).points[0].ber_theory == pytest.approx(
        float(theory.ber_awgn(4, 6.0)), rel=1e-15
    )
    assert sweep(link, mixed.inputs, mixed.labels, spec).points[0].ber_theory is None


def test_where_no_header_is_right_no_bit_error_rate_is_made_up(link, latents_of, tmp_path):
    few = latents_of([2, 2, 0, 1])  # one frame
    spec = SweepSpec(snr_db=(-30.0, 20.0))
    result = sweep(link, few.inputs, few.labels, spec, out=tmp_path)
    lost, heard = result.points
    assert lost.headers_lost + lost.headers_wrong == 1
    assert (lost.bits, lost.ber, lost.index_error_rate, lost.mean_abs_llr) == (0, None, None, None)
    assert heard.ber.value == 0.0
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [rows[0][name] for name in ("ber", "ber_low", "ber_high", "mean_abs_llr")] == [""] * 4
    assert [rows[1][name] for name in ("ber", "ber_low", "mode_samples")] == ["0.0", "0.0", "1 1 2"]
    assert SweepPoint.model_validate_json((tmp_path / "points.jsonl").read_text().splitlines()[0]) == lost


def test_a_point_of_one_mode_sends_no_header(bundle):
    inputs = {"latent": np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)}
    (point,) = sweep(Link(bundle), inputs, np.zeros(6, dtype=int), SweepSpec(snr_db=(9.0,), draws=2)).points
    assert (point.headers, point.headers_lost, point.headers_wrong, point.header_symbols) == (0, 0, 0, 0)
    assert point.mode_samples == (12,)
    assert point.symbols == 3 * 12
