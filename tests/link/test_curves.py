"""Curves of finished sweeps: every point where it was measured, theory where it applies, and names that tell them apart."""

import pytest

from link import theory
from link.ber import ModemSpec, ber
from link.chain import Link
from link.curves import curves_of, default_metric, labels_of
from link.errors import ArgumentError
from link.montecarlo import Proportion
from link.sweep import SweepSpec, sweep

MODEM = ModemSpec(snr_db=(9.0, 3.0, 6.0), order=16, frame_symbols=64, block_frames=16, blocks=2)


def but(**fields):
    return ModemSpec(**{**MODEM.model_dump(), **fields})


@pytest.fixture(scope="module")
def awgn():
    return ber(MODEM)


@pytest.fixture(scope="module")
def faded():
    return ber(but(channel="rayleigh"))


@pytest.fixture(scope="module")
def of_bundle(bundle):
    def run(**fields):
        latent = [[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]] * 4
        return sweep(Link(bundle), {"latent": latent}, [0, 1, 2, 0], SweepSpec(snr_db=(6.0, 0.0), **fields))

    return run


def at(result, snr_db):
    return next(point for point in result.points if point.snr_db == snr_db)


def test_a_modems_curve_rises_with_the_snr_and_has_theory_beside_it(awgn):
    measured, beside = curves_of(awgn, "16-QAM", "ber")
    assert (measured.label, measured.kind) == ("16-QAM", "measured")
    assert (beside.label, beside.kind) == ("theory", "theory")
    assert measured.snr_db == [3.0, 6.0, 9.0]
    for snr_db, value in zip(measured.snr_db, measured.values, strict=True):
        assert value == at(awgn, snr_db).ber
        assert isinstance(value, Proportion)
    # Between the points too, a tenth of a dB apart.
    assert len(beside.snr_db) == 61
    assert (beside.snr_db[0], beside.snr_db[-1]) == (3.0, 9.0)
    assert beside.values == pytest.approx(theory.ber_awgn(16, beside.snr_db), rel=1e-12)


def test_over_ebn0_each_curve_moves_by_its_bits_a_symbol(awgn):
    over_es, over_eb = curves_of(awgn, "a", "ber"), curves_of(awgn, "a", "ber", over_ebn0=True)
    for es, eb in zip(over_es, over_eb, strict=True):
        # 4 bits a symbol: 10 log10 4 dB
        assert eb.snr_db == pytest.approx([snr_db - 6.020599913279624 for snr_db in es.snr_db], abs=1e-12)
        assert eb.values == es.values


def test_a_block_error_rate_is_of_frames_that_are_independent(awgn, faded):
    (curve,) = curves_of(faded, "faded", "bler")
    assert curve.values == [at(faded, snr_db).bler for snr_db in (3.0, 6.0, 9.0)]
    with pytest.raises(ArgumentError, match=r"^metric bler was not measured for 16-QAM$"):
        curves_of(awgn, "16-QAM", "bler")


def test_the_best_code_stands_beside_a_code():
    spec = ModemSpec(snr_db=(0.0,), code="ldpc", code_k=100, code_n=200, block_frames=4, blocks=1)
    result = ber(spec)
    measured, best = curves_of(result, "LDPC", "bler")
    assert (best.label, best.kind) == ("best code, normal approximation", "theory")
    assert best.values == [result.points[0].bler_normal]
    assert measured.values == [result.points[0].bler]
    assert [curve.kind for curve in curves_of(result, "LDPC", "ber")] == ["measured"]


def test_no_theory_is_drawn_where_none_is_known():
    # Exact LLRs of a wrong noise variance have no closed form.
    result = ber(but(demapper="app", no_offset_db=6.0))
    assert [point.ber_theory for point in result.points] == [None] * 3
    assert [curve.kind for curve in curves_of(result, "misled", "ber")] == ["measured"]


def test_a_bundle_has_accuracies_and_bit_errors_but_no_information_bits(of_bundle):
    found = of_bundle()
    (accuracy,) = curves_of(found, "ring", "accuracy")
    assert accuracy.snr_db == [0.0, 6.0]
    assert accuracy.values == [at(found, 0.0).accuracy, at(found, 6.0).accuracy]
    assert [curve.kind for curve in curves_of(found, "ring", "ber")] == ["measured", "theory"]
    with pytest.raises(ArgumentError, match=r"^metric bler was not measured for ring$"):
        curves_of(found, "ring", "bler")
    with pytest.raises(
        ArgumentError, match=r"^ebn0 is of modems: ring is a bundle, whose bits are not information bits$"
    ):
        curves_of(found, "ring", "ber", over_ebn0=True)


def test_what_is_no_metric_or_was_not_measured_is_refused(awgn):
    with pytest.raises(ArgumentError, match=r"^metric must be one of accuracy, ber, bler, bleu, .*, got 'evm'$"):
        curves_of(awgn, "a", "evm")
    with pytest.raises(ArgumentError, match=r"^metric bleu-1 was not measured for a$"):
        curves_of(awgn, "a", "bleu-1")
    with pytest.raises(ArgumentError, match=r"^metric accuracy was not measured for a$"):
        curves_of(awgn, "a", "accuracy")
    with pytest.raises(ArgumentError, match=r"^metric ber was not measured for a$"):
        curves_of(awgn.model_copy(update={"points": ()}), "a", "ber")


def test_the_metric_is_what_all_share(awgn, of_bundle):
    found = of_bundle()
    assert default_metric([found, found]) == "accuracy"
    assert default_metric([awgn]) == default_metric([found, awgn]) == "ber"


def test_names_are_those_given_or_what_differs_or_the_folders(awgn, faded, of_bundle):
    found, misled = of_bundle(), of_bundle(no_offset_db=3.0)
    folders = ["one", "two"]
    assert labels_of([awgn, faded], folders, ["left", "right"]) == ["left", "right"]
    assert labels_of([awgn, faded], folders, []) == ["awgn", "rayleigh"]
    assert labels_of([found, misled], folders, []) == [
        "ring:1, awgn",
        "ring:1, awgn, noise variance told 3 dB too high",
    ]
    assert labels_of([awgn, awgn], folders, []) == folders, "their titles are the same"
    assert labels_of([awgn, found], folders, []) == folders, "they are of two kinds"
    with pytest.raises(ArgumentError, match=r"^label must be given once for each of 2 folders, got 1$"):
        labels_of([awgn, faded], folders, ["left"])
