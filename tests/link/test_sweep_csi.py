"""Sweeps with gains from pilots: what is counted, what stands beside it, and whose folder it is."""

import csv
import json

import numpy as np
import pytest

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Csi, Fading
from link.csi_theory import ber_estimated
from link.errors import ArgumentError, ResultsError
from link.randomness import Draws
from link.repetition import sweep_repetition
from link.sweep import SweepSpec, sweep
from link.theory import ber_rayleigh

ROWS, DRAWS = 90, 2
SPEC = SweepSpec(snr_db=(6.0,), channel="rayleigh", block_symbols=2, csi="lmmse", pilots=3, seed=5, draws=DRAWS)


def but(**fields):
    return SweepSpec(**{**SPEC.model_dump(), **fields})


@pytest.fixture(scope="module")
def ring(bundle):
    latents = np.random.default_rng(4).normal(size=(ROWS, 3, 2)).astype(np.float32)
    return Link(bundle), {"latent": latents}, np.arange(ROWS) % 3


@pytest.fixture(scope="module")
def modes(modes_bundle, latents_of):
    data = latents_of(np.random.default_rng(1).integers(3, size=ROWS))
    return Link(load_bundle(modes_bundle)), data.inputs, data.labels


def test_pilots_are_counted_as_symbols_and_carry_no_bits(ring):
    # Three symbols in blocks of two: two blocks a sample.
    point, known = (sweep(*ring, spec).points[0] for spec in (SPEC, but(csi="perfect", pilots=0)))
    assert (known.symbols_per_sample, known.pilot_symbols) == (3.0, 0)
    assert (point.symbols_per_sample, point.pilot_symbols) == (9.0, 6 * ROWS * DRAWS)
    assert point.symbols == 9 * ROWS * DRAWS
    assert point.bits_per_sample == known.bits_per_sample
    whole = sweep(*ring, but(block_symbols=0)).points[0]
    assert whole.symbols_per_sample == 6.0


def test_headers_have_pilots_of_their_own(modes):
    link, inputs, labels = modes
    point = sweep(*modes, SPEC).points[0]
    payload = headers = 0
    for draw in range(DRAWS):
        draws = Draws(SPEC.seed, np.arange(ROWS), draw)
        result = link.transmit(inputs, SPEC.build_channel(), 6.0, draws)
        payload += 3 * int((-(-result.sent.num_symbols // 2)).sum())
        # A header is of whole blocks of 16 symbols, so none of its blocks of two is half full.
        headers += 3 * result.header.header_symbols // 2
        assert result.received.pilot_symbols + result.header.pilot_symbols > 0
    sent = int(result.sent.num_symbols.sum()) * DRAWS
    assert point.pilot_symbols == payload + headers
    assert point.symbols == sent + point.header_symbols + point.pilot_symbols
    assert point.correct < len(labels) * DRAWS


@pytest.mark.parametrize("kind", ["ls", "lmmse"])
def test_neither_chunks_nor_the_order_of_points_change_a_count(ring, modes, kind):
    for subject in (ring, modes):
        spec = but(csi=kind, snr_db=(0.0, 9.0), no_offset_db=2.0)
        expected = sweep(*subject, spec).points
        turned = sweep(*subject, but(csi=kind, snr_db=(9.0, 0.0), no_offset_db=2.0), chunk_rows=7).points[::-1]
        for point, other in zip(expected, turned, strict=True):
            assert point.model_copy(update={"mean_abs_llr": None}) == other.model_copy(update={"mean_abs_llr": None})


def test_less_knowledge_makes_more_errors(ring):
    errors = [
        sweep(*ring, but(snr_db=(10.0,), draws=20, csi=kind, pilots=pilots)).points[0].bit_errors
        for kind, pilots in (("perfect", 0), ("lmmse", 8), ("lmmse", 1))
    ]
    assert errors[0] < errors[1] < errors[2]


def test_theory_is_for_the_same_knowledge_or_absent(ring):
    def theory(**fields):
        return sweep(*ring, but(draws=1, **fields)).points[0].ber_theory

    assert theory() == ber_estimated(16, 6.0, Fading(2, csi=Csi("lmmse", 3)))
    assert theory(csi="ls") == ber_estimated(16, 6.0, Fading(2, csi=Csi("ls", 3)))
    assert theory(csi="perfect", pilots=0) == ber_rayleigh(16, 6.0)
    assert theory(channel="rician", csi="ls") is None
    # Max-log LLRs keep their signs whatever the noise variance; this bundle has them.
    assert theory(csi="perfect", pilots=0, no_offset_db=6.0) == ber_rayleigh(16, 6.0)


def test_theory_is_absent_where_a_wrong_noise_variance_turns_signs(ring):
    link, inputs, labels = ring
    exact = link.manifest.model_copy(update={"llr": link.manifest.llr.model_copy(update={"demapper": "app"})})
    told = Link(link.bundle)
    told.manifest = exact
    assert sweep(told, inputs, labels, but(no_offset_db=3.0, draws=1)).points[0].ber_theory is None
    assert sweep(told, inputs, labels, but(draws=1)).points[0].ber_theory is not None


def test_the_baseline_has_the_same_pilots():
    labels = np.arange(ROWS) % 10
    estimated, known = (
        sweep_repetition(labels, labels, spec, num_classes=10, num_symbols=5)[0]
        for spec in (SPEC, but(csi="perfect", pilots=0))
    )
    assert (known.symbols_per_sample, estimated.symbols_per_sample) == (5.0, 14.0)
    assert estimated.symbols == 14 * ROWS * DRAWS
    assert estimated.correct < known.correct


@pytest.mark.parametrize("fields", [{"csi": "ls"}, {"pilots": 2}, {"no_offset_db": 1.0}])
def test_a_folder_is_refused_to_other_knowledge(ring, tmp_path, fields):
    sweep(*ring, but(draws=1), out=tmp_path)
    with pytest.raises(ResultsError, match=rf"holds another sweep \(spec.{next(iter(fields))} is"):
        sweep(*ring, but(draws=1, **fields), out=tmp_path)


def test_results_say_what_the_receiver_knew(ring, tmp_path):
    sweep(*ring, SPEC, out=tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert {name: found["spec"][name] for name in ("csi", "pilots", "no_offset_db")} == {
        "csi": "lmmse", "pilots": 3, "no_offset_db": 0.0,
    }  # fmt: skip
    row = next(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert int(row["pilot_symbols"]) == 6 * ROWS * DRAWS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"csi": "perfect", "pilots": 0}, ""),
        ({"csi": "ls", "pilots": 1}, "ls CSI from 1 pilot a block"),
        ({"no_offset_db": 3.0}, "lmmse CSI from 3 pilots a block, noise variance told 3 dB too high"),
        ({"csi": "perfect", "pilots": 0, "no_offset_db": -1.5}, "noise variance told 1.5 dB too low"),
    ],
)
def test_a_title_names_what_the_receiver_lacks(fields, expected):
    assert but(**fields).knowledge == expected


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"csi": "blind"}, "csi"),
        ({"pilots": 0}, "pilots"),
        ({"pilots": 2.5}, "pilots"),
        ({"csi": "perfect"}, "pilots"),
        ({"channel": "rayleigh-fast"}, "csi"),
        ({"channel": "awgn"}, "csi"),
        ({"no_offset_db": 31.0}, "no_offset_db"),
    ],
)
def test_a_wrong_spec_names_its_field(fields, field):
    with pytest.raises(ArgumentError) as error:
        but(**fields)
    assert error.value.field == field
