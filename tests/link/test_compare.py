"""Two sweeps on the same noise: what differs is found, what does not is not, and nothing else is compared."""

import itertools
import json
import math
import zlib

import numpy as np
import pytest
from scipy.stats import binom

from link import compare as compare_module
from link.ber import ModemSpec, ber, build_modem
from link.chain import Link
from link.compare import compare, read_result, read_sweep
from link.device import host_engine
from link.errors import ArgumentError, ResultsError
from link.montecarlo import CONFIDENCE
from link.randomness import Draws, Stream
from link.semantic import clean_decisions
from link.sweep import SweepSpec, sweep

LATENT = np.random.default_rng(11).normal(size=(50, 3, 2)).astype(np.float32)
SPEC = SweepSpec(snr_db=(0.0, 6.0), channel="rayleigh", csi="lmmse", pilots=2, draws=4, seed=5)
MISLED = {"no_offset_db": 12.0}
MODEM = ModemSpec(snr_db=(6.0, 9.0), order=16, frame_symbols=64, block_frames=16, blocks=24, seed=2)
GROSS = 1e-6
"""Share of correct programs that a test of chance would fail, were its seeds drawn anew."""


def but(spec, **fields):
    return type(spec)(**{**spec.model_dump(), **fields})


@pytest.fixture(scope="module")
def link(bundle):
    return Link(bundle)


@pytest.fixture(scope="module")
def folder_of(link, tmp_path_factory):
    """Function that sweeps what a spec asks for, once, and returns the results folder."""
    labels = clean_decisions(link, {"latent": LATENT})
    swept = {}

    def run(spec, latent=LATENT):
        key = spec.model_dump_json() + str(latent.sum())
        if key not in swept:
            out = swept[key] = tmp_path_factory.mktemp("sweep")
            if isinstance(spec, ModemSpec):
                ber(spec, out=out)
            else:
                sweep(link, {"latent": latent}, labels, spec, out=out)
        return swept[key]

    return run


@pytest.fixture
def compared(folder_of):
    """Function that compares the sweeps of two specs."""
    return lambda a, b, **options: compare(read_sweep(folder_of(a)), read_sweep(folder_of(b)), **options)


@pytest.fixture
def spoilt(folder_of, tmp_path):
    """Function that copies the files of a sweep, but for one that it is told the new content of."""

    def spoil(spec, name, content):
        for file in ("results.json", "blocks.jsonl"):
            (tmp_path / file).write_bytes((folder_of(spec) / file).read_bytes())
        (tmp_path / name).write_text(content)
        return tmp_path

    return spoil


def by_hand(link, spec, snr_db):
    """Share of the draws in which each sample is decided as without noise."""
    labels = clean_decisions(link, {"latent": LATENT})
    right = np.zeros(len(LATENT))
    for draw in range(spec.draws):
        draws = Draws(spec.seed, np.arange(len(LATENT)), draw, engine=host_engine())
        found = link.transmit({"latent": LATENT}, spec.build_channel(), snr_db, draws)
        right += found.decoded.decisions == labels
    return right / spec.draws


def modem_by_hand(spec, snr_db):
    """Bit error rate of each block."""
    modem, frames = build_modem(spec), spec.frames_a_block
    counts = [modem.count(snr_db, block * frames, frames) for block in range(spec.blocks)]
    return np.array([count.bit_errors for count in counts]) / (frames * spec.bits_a_frame)


def gain_of(a, b):
    return (a.var(ddof=1) + b.var(ddof=1)) / (a - b).var(ddof=1)


def test_a_sweep_does_not_differ_from_itself(compared):
    for spec in (SPEC, MODEM):
        found = compared(spec, spec)
        assert [point.snr_db for point in found.points] == list(spec.snr_db)
        for point in (*found.points, found.overall):
            assert (point.difference, point.p_value, point.gain) == (0.0, 1.0, None)
            assert point.high == -point.low == pytest.approx(1.0 - 0.05 ** (1 / point.units), rel=1e-12)
            assert point.a == point.b


def test_differences_of_bundles_are_those_of_the_chain(compared, link):
    found = compared(SPEC, but(SPEC, **MISLED))
    assert found.metric == "accuracy"
    sides = [[by_hand(link, spec, snr_db) for snr_db in SPEC.snr_db] for spec in (SPEC, but(SPEC, **MISLED))]
    pairs = [*zip(*sides, strict=True), tuple(np.mean(side, axis=0) for side in sides)]
    for point, (a, b) in zip((*found.points, found.overall), pairs, strict=True):
        assert point.units == len(LATENT)
        assert (point.a, point.b) == pytest.approx((a.mean(), b.mean()), abs=1e-12)
        assert point.difference == pytest.approx((a - b).mean(), abs=1e-12)
        assert point.gain == pytest.approx(gain_of(a, b), rel=1e-9)
    assert found.overall.snr_db is None


def test_the_receiver_that_is_misled_loses_and_pairs_show_it(compared):
    found = compared(SPEC, but(SPEC, **MISLED)).overall
    assert found.low > 0.0
    assert found.p_value < 0.05
    assert found.gain > 1.0
    other = compared(but(SPEC, **MISLED), SPEC).overall
    assert (other.difference, other.low, other.high) == (-found.difference, -found.high, -found.low)
    assert (other.p_value, other.gain) == (found.p_value, found.gain)


@pytest.mark.parametrize(
    "other",
    [
        {"demapper": "app", "no_offset_db": 6.0},
        {"channel": "rayleigh", "csi": "lmmse", "pilots": 2},
        {"channel": "rayleigh", "csi": "ls", "pilots": 4},
    ],
)
def test_receivers_of_a_modem_share_noise_and_fading(compared, other):
    a = but(MODEM, channel=other.get("channel", "awgn"))
    b = but(MODEM, **other)
    found = compared(a, b)
    assert found.metric == "ber"
    for point in found.points:
        rates = modem_by_hand(a, point.snr_db), modem_by_hand(b, point.snr_db)
        assert point.difference == pytest.approx((rates[0] - rates[1]).mean(), abs=1e-15)
        assert point.gain == pytest.approx(gain_of(*rates), rel=1e-9)
        # On other noise nothing is gained: the rates of the same receivers are not correlated.
        apart = modem_by_hand(but(b, seed=3), point.snr_db)
        assert point.gain > 2.0 * gain_of(rates[0], apart)
    assert found.overall.difference < 0.0
    assert found.overall.high < 0.0


def test_a_wrong_noise_variance_costs_max_log_decisions_nothing(compared):
    found = compared(MODEM, but(MODEM, no_offset_db=-6.0)).overall
    assert (found.difference, found.p_value, found.gain) == (0.0, 1.0, None)


def test_what_is_in_both_is_compared_and_no_more(compared):
    a, b = but(MODEM, snr_db=(9.0, 3.0)), but(MODEM, blocks=5, no_offset_db=1.0)
    found = compared(a, b)
    assert [(point.snr_db, point.units) for point in found.points] == [(9.0, 5)]
    assert found.points[0].difference == 0.0
    first = modem_by_hand(a, 9.0)[:5]
    assert found.points[0].a == pytest.approx(first.mean(), abs=1e-15)


def test_draws_that_both_have_are_compared(compared, link):
    found = compared(SPEC, but(SPEC, draws=2, no_offset_db=12.0))
    assert found.points[0].a == pytest.approx(by_hand(link, but(SPEC, draws=2), 0.0).mean(), abs=1e-12)


def test_the_interval_widens_with_the_confidence(compared):
    narrow, wide = (compared(SPEC, but(SPEC, **MISLED), confidence=value).overall for value in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.difference < narrow.high < wide.high
    for value in (0.0, 1.0, math.nan):
        with pytest.raises(ArgumentError, match=r"^confidence must be in \(0, 1\)"):
            compared(SPEC, SPEC, confidence=value)


def normals(experiment, units):
    return Draws(1, np.array([experiment])).normals(Stream.NOISE, 0, units)[0].T


def test_intervals_cover_and_p_values_are_uniform_where_nothing_differs(monkeypatch):
    monkeypatch.setattr(compare_module, "_FLIPS", 999)
    trials, units = 600, 12
    found = []
    for experiment in range(trials):
        noise, own = normals(experiment, units)
        found.append(compare_module._difference(None, 0.5 + 0.01 * (noise + 0.3 * own), 0.5 + 0.01 * noise, CONFIDENCE))
    covered = sum(one.low <= 0.0 <= one.high for one in found)
    low, high = binom.interval(1.0 - GROSS, trials, CONFIDENCE)
    assert low <= covered <= high
    for level in (0.05, 0.25, 0.5, 0.75):
        low, high = binom.interval(1.0 - GROSS, trials, level)
        assert low <= sum(one.p_value <= level for one in found) <= high, level


def test_the_p_value_is_that_of_all_sign_changes():
    delta = normals(0, 5).ravel() + 0.5
    sums = [abs(np.dot(signs, delta)) for signs in itertools.product((-1.0, 1.0), repeat=len(delta))]
    exact = np.mean(np.array(sums) >= abs(delta.sum()) * (1.0 - 1e-12))
    assert 0.01 < exact < 0.9
    low, high = binom.interval(1.0 - GROSS, 9999, exact)
    for scale in (1.0, -1.0, 1e-7):
        found = compare_module._p_value(scale * np.append(delta, np.zeros(30)))
        assert low <= 1e4 * found - 1 <= high


def test_as_many_signs_at_a_time_as_fit_into_memory_give_the_same(monkeypatch):
    delta = normals(3, 20).ravel()
    whole = compare_module._p_value(delta)
    monkeypatch.setattr(compare_module, "_SIGNS", 40 * 17)
    assert compare_module._p_value(delta) == whole


def test_one_unit_proves_nothing():
    found = compare_module._difference(3.0, np.array([0.2]), np.array([0.6]), CONFIDENCE)
    assert (found.units, found.low, found.high, found.p_value, found.gain) == (1, None, None, None, None)
    assert found.difference == pytest.approx(-0.4, abs=1e-12)


def test_units_without_a_difference_leave_one_open():
    """Had one in n units differed, n units would have shown none with (1 - 1/n)^n."""
    found = compare_module._difference(3.0, np.full(100, 0.5), np.full(100, 0.5), 0.95)
    assert (found.difference, found.p_value, found.gain) == (0.0, 1.0, None)
    assert found.high == -found.low == pytest.approx(1.0 - 0.05**0.01, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "part"),
    [
        (MODEM, but(MODEM, seed=3), "b did not meet the noise of a: seed is 2 and 3"),
        (MODEM, but(MODEM, channel="rayleigh"), "channel is awgn and rayleigh"),
        (MODEM, but(MODEM, order=4, block_frames=8), "order is 16 and 4; block_frames is 16 and 8"),
        (SPEC, but(SPEC, block_symbols=2), "block_symbols is 0 and 2"),
        (SPEC, MODEM, "b is a sweep of another kind: a bundle and a modem cannot be compared"),
        (MODEM, but(MODEM, snr_db=(3.0, 9.001)), "b has no SNR in common with a"),
    ],
)
def test_what_did_not_meet_the_same_noise_is_refused(compared, a, b, part):
    for first, second in ((a, b), (b, a)):
        with pytest.raises(ArgumentError) as error:
            compared(first, second)
        if first is a:
            assert part in str(error.value)


def test_other_data_is_refused(folder_of):
    with pytest.raises(ArgumentError, match=r"^b was swept on other data than a \(data_sha256 differs\)$"):
        compare(read_sweep(folder_of(SPEC)), read_sweep(folder_of(SPEC, latent=-LATENT)))


def test_importance_sampling_is_refused_by_its_name(compared):
    rare = ModemSpec(snr_db=(12.0,), order=16, sampling="importance", blocks=2, seed=2)
    for a, b in ((MODEM, rare), (rare, MODEM), (rare, rare)):
        with pytest.raises(ArgumentError, match="importance sampling draws noise of its own for each receiver"):
            compared(a, b)


def test_normals_of_another_engine_are_the_same_noise_and_of_another_generator_are_not(folder_of, tmp_path):
    ber(MODEM, out=tmp_path / "numpy", device="numpy")
    a, b = read_sweep(folder_of(MODEM)), read_sweep(tmp_path / "numpy")
    assert compare(a, b).overall.difference == 0.0
    other = b.result.provenance.model_copy(update={"generator": "mt19937 numpy"})
    with pytest.raises(ArgumentError, match=r"^b has noise of another generator: philox4x32-10 and mt19937$"):
        compare(a, b._replace(result=b.result.model_copy(update={"provenance": other})))


def test_a_folder_without_results_is_refused(tmp_path):
    for read in (read_result, read_sweep):
        with pytest.raises(ResultsError, match=r"holds no finished sweep: it has no results.json$"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"points": [', "Expecting value"),
        ("[]", "it is not what a sweep writes"),
        ("[" * 100_000, "it is not what a sweep writes"),
        ('{"points": []}', "it is not what a sweep writes"),
        ('{"provenance": null}', "it is not what a sweep writes"),
        ('{"provenance": {}}', "points: Field required"),
        ('{"provenance": {"bundle": "x:1"}}', "points: Field required"),
    ],
)
def test_results_that_cannot_be_read_are_refused_in_one_line(tmp_path, content, part):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ResultsError) as error:
        read_result(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'results.json'} cannot be read: ")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_result_that_was_edited_is_refused_with_the_name_of_its_field(folder_of, spoilt):
    result = json.loads((folder_of(MODEM) / "results.json").read_text())
    result["points"][1]["blocks"] = "many"
    with pytest.raises(ResultsError, match=r"points\.1\.blocks: Input should be a valid integer"):
        read_result(spoilt(MODEM, "results.json", json.dumps(result)))


@pytest.mark.parametrize(("field", "value"), [("snr_db", 3.0), ("snr_db", 1e30), ("blocks", 0), ("blocks", -1)])
def test_a_point_that_was_not_swept_is_refused(folder_of, spoilt, field, value):
    result = json.loads((folder_of(MODEM) / "results.json").read_text())
    result["points"][0][field] = value
    with pytest.raises(ResultsError, match=r"not in its grid|snr_db must be in|lacks blocks"):
        read_sweep(spoilt(MODEM, "results.json", json.dumps(result)))


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        (MODEM, "bit_errors", 10**6),
        (MODEM, "bit_errors", 0),
        (MODEM, "frame_errors", 17),
        (MODEM, "symbol_squares", 1),
        (SPEC, "rows", 10**12),
        (SPEC, "first_row", 1),
        (SPEC, "correct", "ff"),
        (SPEC, "correct", "none"),
    ],
)
def test_counts_that_no_run_can_have_found_are_refused(folder_of, spoilt, spec, field, value):
    entry = json.loads((folder_of(spec) / "blocks.jsonl").read_text().splitlines()[0])
    del entry["crc32"]
    entry["blocks"][field][0] = value
    head = json.dumps(entry).removesuffix("}")
    line = f'{head}, "crc32": "{zlib.crc32(head.encode()):08x}"}}\n'
    with pytest.raises(ResultsError, match="cannot be right"):
        read_sweep(spoilt(spec, "blocks.jsonl", line))


def test_blocks_of_another_sweep_are_refused(folder_of, spoilt):
    for spec, other in ((SPEC, MODEM), (MODEM, SPEC)):
        blocks = (folder_of(other) / "blocks.jsonl").read_text()
        with pytest.raises(
            ResultsError, match=r"line 1 cannot be read: (its columns are those of another|.* not in the)"
        ):
            read_sweep(spoilt(spec, "blocks.jsonl", blocks))


@pytest.mark.parametrize("spec", [SPEC, MODEM])
@pytest.mark.parametrize("line", [0, -1])
def test_blocks_that_are_missing_are_refused(folder_of, spoilt, spec, line):
    lines = (folder_of(spec) / "blocks.jsonl").read_text().splitlines(keepends=True)
    del lines[line]
    snr_db = spec.snr_db[line]
    with pytest.raises(ResultsError, match=f"lacks blocks of {snr_db:g} dB: run its sweep again$"):
        read_sweep(spoilt(spec, "blocks.jsonl", "".join(lines)))


def test_a_line_that_a_sweep_is_writing_is_left_alone(folder_of, spoilt):
    blocks = (folder_of(MODEM) / "blocks.jsonl").read_text()
    folder = spoilt(MODEM, "blocks.jsonl", blocks + '{"snr_db": 9.0, "fir')
    assert read_sweep(folder) == read_sweep(folder_of(MODEM))
    assert (folder / "blocks.jsonl").read_text().endswith('"fir')
