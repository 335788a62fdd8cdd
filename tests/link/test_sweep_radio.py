"""Sweeps of bundles over a radio: what is counted, what a lost frame costs, and what the folder holds."""

import csv
import json

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel.frames import FrameCounts
from link.errors import ArgumentError, RadioError, ResultsError
from link.radio.channel import RadioChannel
from link.radio.frontend import Block
from link.radio.frontends.loopback import Loopback
from link.radio.spec import RadioSpec
from link.randomness import Draws
from link.results import SweepResult
from link.sweep import SweepSpec, sweep

ROWS = 80
FRAME = RadioSpec(frontend={"kind": "loopback"}).modem.frame
LOOPBACK = SweepSpec(snr_db=(60.0,), radio=RadioSpec(frontend={"kind": "loopback"}))


def impaired(snr_db=(6.0, 15.0), draws=2, **options):
    return SweepSpec(snr_db=snr_db, seed=5, draws=draws, radio=RadioSpec(frontend={"kind": "impaired", **options}))


@pytest.fixture(scope="module")
def link(bundle):
    return Link(bundle)


@pytest.fixture(scope="module")
def inputs():
    return {"latent": np.random.default_rng(3).normal(size=(ROWS, 3, 2)).astype(np.float32)}


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(4).integers(3, size=ROWS)


@pytest.fixture(scope="module")
def several(modes_bundle, latents_of):
    """A link of three modes, which samples share headers of, and its data."""
    return Link(load_bundle(modes_bundle)), latents_of(np.random.default_rng(1).integers(3, size=ROWS))


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "blocks.jsonl"}


def test_over_a_loopback_nothing_is_lost_and_every_symbol_is_counted(link, inputs, labels):
    (point,) = sweep(link, inputs, labels, LOOPBACK).points
    payload = 3 * ROWS  # nine bits in three symbols of 16-QAM
    assert point.bit_errors == point.index_errors == 0
    assert point.bits == 9 * ROWS
    assert point.symbols == FRAME.frame_symbols(payload)
    assert point.pilot_symbols == point.symbols - payload
    assert point.symbols_per_sample == point.symbols / ROWS
    assert point.bits_per_sample == 12
    radio = point.radio
    assert (radio.frames, radio.frames_lost, radio.crc_failed, radio.gaps, radio.clipped) == (1, 0, 0, 0, 0)
    assert radio.measured_snr_db > 30
    assert point.ber_theory is None


def test_counts_are_those_of_one_pass_over_the_chain(link, inputs, labels):
    spec = impaired(snr_db=(9.0,), cfo=1e-3)
    (point,) = sweep(link, inputs, labels, spec).points
    correct = bit_errors = symbols = 0
    counts = FrameCounts()
    for draw in range(2):
        with spec.build_channel() as radio:
            result = link.transmit(inputs, radio, 9.0, Draws(5, np.arange(ROWS), draw))
        correct += int((result.decoded.decisions == labels).sum())
        bit_errors += int(((result.decoded.llr > 0) != result.sent.bits).sum())
        symbols += 3 * ROWS + result.received.pilot_symbols
        counts = counts.plus(result.received.frames)
    assert (point.correct, point.bit_errors, point.symbols) == (correct, bit_errors, symbols)
    assert bit_errors > 0
    assert (point.radio.frames, point.radio.crc_failed) == (2, counts.crc_failed)
    assert point.radio.measured_snr_db == pytest.approx(counts.snr_db, rel=1e-12)
    assert point.radio.evm == pytest.approx(counts.evm, rel=1e-12)
    assert point.radio.papr_db == pytest.approx(counts.papr_db, rel=1e-12)


def test_each_draw_and_each_point_has_its_own_noise(link, inputs, labels):
    once, other = (sweep(link, inputs, labels, impaired((snr_db,), 1)).points[0] for snr_db in (6.0, 6.001))
    twice = sweep(link, inputs, labels, impaired((6.0,), 2)).points[0]
    assert once.mean_abs_llr != other.mean_abs_llr
    assert twice.mean_abs_llr != once.mean_abs_llr


def test_rows_of_lost_frames_are_decided_by_chance_and_their_bits_not_judged(link, inputs, labels):
    every = 6 * FRAME.frame_symbols(24)  # a gap in each second frame, of 8 rows, or so
    radio = {"frontend": {"kind": "impaired", "gap_every": every, "gap_samples": 200}}
    spec = SweepSpec(snr_db=(20.0,), radio=radio | {"modem": {"frame": {"payload_symbols": 24}}})
    (point,) = sweep(link, inputs, labels, spec).points
    radio = point.radio
    assert radio.frames == 10
    assert 0 < radio.frames_lost < 10
    assert radio.gaps > 0
    assert point.bits == 9 * 8 * (10 - radio.frames_lost)
    assert point.bit_errors == 0
    assert (point.decisions, point.symbols) == (ROWS, 10 * FRAME.frame_symbols(24))


def test_frames_of_headers_are_counted_with_those_of_the_payload(several, monkeypatch):
    used, data = several
    sent = []
    drop = RadioChannel.drop

    def spy(self, payloads, snr_db, draws):
        found = drop(self, payloads, snr_db, draws)
        sent.append((draws.within, len(found.burst.headers), found.burst.symbols, sum(map(len, payloads))))
        return found

    monkeypatch.setattr(RadioChannel, "drop", spy)
    (point,) = sweep(used, data.inputs, data.labels, impaired((12.0,), 1)).points
    assert [within is not None for within, *_ in sent] == [False, True]
    assert point.radio.frames == sum(frames for _, frames, _, _ in sent)
    assert sent[0][1] == 2, "16-QAM and QPSK go in frames of their own"
    assert point.symbols == sum(symbols for _, _, symbols, _ in sent)
    assert point.header_symbols == sent[1][3]
    assert (point.headers, point.headers_lost, point.headers_wrong) == (ROWS // 4, 0, 0)
    assert point.ber.value < 0.05


def test_a_lost_frame_of_headers_loses_the_headers(several, monkeypatch):
    used, data = several
    drop = RadioChannel.drop

    def deaf_to_headers(self, payloads, snr_db, draws):
        found = drop(self, payloads, snr_db, draws)
        return found if draws.within is None else found._replace(frames={})

    monkeypatch.setattr(RadioChannel, "drop", deaf_to_headers)
    (point,) = sweep(used, data.inputs, data.labels, impaired((20.0,), 1)).points
    assert point.headers_lost == point.headers == ROWS // 4
    assert (point.bits, point.ber) == (0, None)
    assert point.radio.frames_lost == 1


def test_any_number_of_workers_gives_the_same_points_over_a_simulation(link, inputs, labels, tmp_path):
    spec = impaired((6.0,), 3, cfo=1e-3)
    sweep(link, inputs, labels, spec, out=tmp_path / "one")
    sweep(link, inputs, labels, spec, out=tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_device_has_one_worker(link, inputs, labels, tmp_path):
    with pytest.raises(ArgumentError, match="workers must be 1 for a loopback radio, which is one, got 2"):
        sweep(link, inputs, labels, LOOPBACK, workers=2, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_sweep_ends_with_the_same_files_as_one_that_was_not(link, inputs, labels, tmp_path):
    def stop(point, done, total):
        raise KeyboardInterrupt

    spec = impaired()
    sweep(link, inputs, labels, spec, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep(link, inputs, labels, spec, out=tmp_path / "cut", progress=stop)
    assert len((tmp_path / "cut/points.jsonl").read_text().splitlines()) == 1
    sweep(link, inputs, labels, spec, out=tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_device_that_dies_in_the_middle_keeps_what_was_finished(link, inputs, labels, tmp_path):
    """It takes the samples of a point and some; each time it is opened it takes as many again."""
    one_point = 2 * ((FRAME.frame_symbols(3 * ROWS) - 1) * 4 + 81 + 512)
    spec = impaired(dies_after=one_point + 1000)
    with pytest.raises(RadioError, match=r"^the simulated device is gone$"):
        sweep(link, inputs, labels, spec, out=tmp_path / "dying")
    (line,) = (tmp_path / "dying/points.jsonl").read_text().splitlines()
    assert json.loads(line)["snr_db"] == 6.0
    found = sweep(link, inputs, labels, spec, out=tmp_path / "dying")
    whole = sweep(link, inputs, labels, impaired())
    assert found.points == whole.points


def test_the_device_is_let_go_of_however_a_sweep_ends(link, inputs, labels, monkeypatch):
    closed = []
    close, recv = Loopback.close, Loopback.recv
    monkeypatch.setattr(Loopback, "close", lambda self: (closed.append(self), close(self)))
    sweep(link, inputs, labels, LOOPBACK)
    assert len(closed) == 1

    def interrupted(self, most, timeout_s):
        found = recv(self, most, timeout_s)
        if len(found.samples):
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Loopback, "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(link, inputs, labels, LOOPBACK)
    assert len(closed) == 2


def test_a_radio_that_hears_nothing_has_no_error_rates_and_an_empty_cell_for_what_it_cannot_know(
    link, inputs, labels, monkeypatch, tmp_path
):
    recv = Loopback.recv
    monkeypatch.setattr(Loopback, "recv", lambda self, *told: Block(0 * recv(self, *told).samples))
    (point,) = sweep(link, inputs, labels, LOOPBACK, out=tmp_path).points
    assert (point.bits, point.ber, point.index_error_rate, point.mean_abs_llr) == (0, None, None, None)
    assert (point.radio.frames, point.radio.frames_lost) == (1, 1)
    assert point.decisions == ROWS
    with (tmp_path / "results.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert [row[f"radio_{name}"] for name in ("frames", "frames_lost", "measured_snr_db", "evm")] == ["1", "1", "", ""]


def test_the_folder_holds_the_radio_and_what_became_of_its_frames(link, inputs, labels, tmp_path):
    spec = impaired(taps=(0.9, 0, 0, "0.3j"))
    result = sweep(link, inputs, labels, spec, out=tmp_path)
    for name in ("results.json", "spec.json"):
        radio = json.loads((tmp_path / name).read_text())["spec"]["radio"]
        assert RadioSpec.model_validate(radio) == spec.radio
        assert radio["frontend"]["kind"] == "impaired"
    assert SweepResult.model_validate_json((tmp_path / "results.json").read_text()) == result
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, point in zip(rows, result.points, strict=True):
        for name, value in point.radio:
            assert float(row[f"radio_{name}"]) == value
    with pytest.raises(ResultsError, match=r"\(spec.radio.frontend.cfo is 0.0 there, 0.001 here\)"):
        sweep(link, inputs, labels, impaired(taps=(0.9, 0, 0, "0.3j"), cfo=1e-3), out=tmp_path)


def test_without_a_radio_its_columns_are_empty(link, inputs, labels, tmp_path):
    (point,) = sweep(link, inputs, labels, SweepSpec(snr_db=(6.0,)), out=tmp_path).points
    assert point.radio is None
    with (tmp_path / "results.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert {value for name, value in row.items() if name.startswith("radio_")} == {""}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"snr_db": (6.0, 9.0)}, "snr_db must be one point for a radio .loopback. that cannot set its SNR"),
        ({"channel": "rayleigh"}, "channel must be absent where a radio is given, got 'rayleigh'"),
        ({"csi": "lmmse", "pilots": 2}, "csi must be absent where a radio is given, got lmmse"),
        ({"no_offset_db": 3.0}, "no_offset_db must be absent where a radio is given, got 3"),
        ({"block_symbols": 4}, "block_symbols must be absent"),
        ({"radio": None, "channel": "radio"}, "channel must be one of awgn, rayleigh"),
        ({"radio": {"frontend": {"kind": "wire"}}}, "kind must be one of loopback, .* got 'wire'"),
    ],
)
def test_what_a_radio_cannot_do_is_refused_by_name(fields, message):
    with pytest.raises(ArgumentError, match=message) as error:
        SweepSpec(**{"snr_db": (6.0,), "radio": {"frontend": {"kind": "loopback"}}} | fields)
    assert "\n" not in str(error.value)


def test_a_radio_that_sets_its_snr_takes_a_grid():
    radio = RadioSpec(frontend={"kind": "loopback"}, full_snr_db=20.0)
    spec = SweepSpec(snr_db=(6.0, 9.0), radio=radio)
    assert spec.channel == "radio"
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
    assert SweepSpec(snr_db=(6.0, 9.0), channel="awgn", radio=radio) == spec
