import csv
import json
import logging
import math
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from link import bits, codebook, constellation, theory
from link.bundle import load_bundle
from link.chain import Link
from link.errors import ArgumentError, ResultsError
from link.grid import parse_grid
from link.interface import TensorSpec, receiver_inputs, receiver_outputs, transmitter_outputs
from link.manifest import LlrSpec, Manifest, Mode, TaskSpec
from link.randomness import Draws
from link.results import SweepPoint, SweepResult
from link.sweep import SweepSpec, sweep

TOKENS, CODEWORDS, WIDTH, LATENT, ORDER, CLASSES, CLIP = 5, 8, 3, 2, 16, 4, 30.0
NUM_BITS = TOKENS * WIDTH


class Encode(torch.nn.Module):
    def __init__(self, codewords, label_table):
        super().__init__()
        self.register_buffer("codewords", codewords)
        self.register_buffer("label_table", label_table)

    def forward(self, x):
        indices = codebook.nearest(x.reshape(-1, TOKENS, LATENT), self.codewords)
        payload = codebook.lookup(self.label_table, indices).reshape(-1, NUM_BITS)
        symbols = constellation.map_bits(bits.group(payload, 4))
        mode = indices[:, 0] * 0
        return mode, indices, payload.to(torch.uint8), mode + NUM_BITS, symbols, mode + symbols.shape[1]


class Decode(torch.nn.Module):
    def __init__(self, codewords, label_table, head):
        super().__init__()
        self.register_buffer("codewords", codewords)
        self.register_buffer("label_table", label_table)
        self.register_buffer("head", head)
        self.register_buffer("log_prior", torch.full((CODEWORDS,), -math.log(CODEWORDS)))

    def forward(self, symbols, no, mode, llr_in):
        llr = bits.ungroup(constellation.max_log_llr(symbols, no, ORDER), NUM_BITS) + llr_in
        llr = torch.clip(llr, -CLIP, CLIP)
        scores = codebook.posterior_logits(llr.reshape(-1, TOKENS, WIDTH), self.label_table, self.log_prior)
        latent = (codebook.softmax(scores) @ self.codewords).reshape(-1, TOKENS * LATENT)
        # mode is part of the interface; adding 0 keeps the input in the graph.
        return llr, torch.argmax(scores, dim=-1), latent @ self.head + 0.0 * mode[:, None]


def make_bundle(folder, export_graph, provenance, *, version=1):
    """A codec without training: tokens are pairs of features, and a linear head reads them back."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(20)
    angles = 2 * np.pi * np.arange(CODEWORDS) / CODEWORDS
    codewords = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=-1), dtype=torch.float32)
    labels = tuple(int(i ^ (i >> 1)) for i in range(CODEWORDS))
    table = torch.tensor(bits.label_bits(labels, WIDTH), dtype=torch.float32)
    head = torch.tensor(generator.normal(size=(TOKENS * LATENT, CLASSES)), dtype=torch.float32)
    mode = Mode(
        tokens=TOKENS,
        codewords=CODEWORDS,
        order=ORDER,
        labels=labels,
        log_prior=(-math.log(CODEWORDS),) * CODEWORDS,
    )
    x = TensorSpec(name="x", dtype="float32", shape=("batch", TOKENS * LATENT))
    manifest = Manifest(
        name="ring",
        version=version,
        task=TaskSpec(name="ring", classes=tuple("abcd")),
        modes=(mode,),
        llr=LlrSpec(demapper="max-log", clip=CLIP),
        transmitter=export_graph(
            Encode(codewords, table), (x,), transmitter_outputs([mode]), folder / "transmitter.onnx"
        ),
        receiver=export_graph(
            Decode(codewords, table, head),
            receiver_inputs([mode]),
            receiver_outputs([mode], CLASSES),
            folder / "receiver.onnx",
        ),
        provenance=provenance,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return head.numpy()


@pytest.fixture(scope="session")
def ring(tmp_path_factory, export_graph, provenance):
    """(link, inputs, labels): 60 samples, labelled by the head itself."""
    folder = tmp_path_factory.mktemp("sweep") / "bundle"
    head = make_bundle(folder, export_graph, provenance)
    x = np.random.default_rng(21).normal(size=(60, TOKENS * LATENT)).astype(np.float32)
    return Link(load_bundle(folder)), {"x": x}, np.argmax(x @ head, axis=-1)


SPEC = SweepSpec(snr_db=(-3.0, 6.0, 15.0), seed=5, draws=3)


def contents(folder):
    """Every file but the journal: how many blocks a line holds is a matter of time."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != "blocks.jsonl"}


def signed(text, old, new):
    """A journal with something replaced, and the checksums of its lines made to fit."""
    heads = [line.rpartition(', "crc32": "')[0].replace(old, new) for line in text.splitlines()]
    return "".join(f'{head}, "crc32": "{zlib.crc32(head.encode()):08x}"}}\n' for head in heads)


class Stop:
    """Interrupts after a number of points, as Ctrl-C would."""

    def __init__(self, after):
        self.after = after

    def __call__(self, point, done, total):
        if done == self.after:
            raise KeyboardInterrupt


def test_counts_are_those_of_one_pass_over_the_chain(ring):
    link, inputs, labels = ring
    point = sweep(link, inputs, labels, SPEC).points[1]
    correct = bit_errors = index_errors = 0
    abs_llr = []
    for draw in range(SPEC.draws):
        result = link.transmit(inputs, SPEC.build_channel(), 6.0, Draws(SPEC.seed, np.arange(60), draw))
        correct += int((result.decoded.decisions == labels).sum())
        bit_errors += int(((result.decoded.llr > 0) != result.sent.bits).sum())
        index_errors += int((result.decoded.indices_hat != result.sent.indices).sum())
        abs_llr.append(np.abs(result.decoded.llr.astype(np.float64)).mean())
    assert (point.correct, point.bit_errors, point.index_errors) == (correct, bit_errors, index_errors)
    assert (point.samples, point.draws, point.decisions) == (60, 3, 180)
    assert (point.bits, point.indices, point.symbols) == (180 * NUM_BITS, 180 * TOKENS, 180 * 4)
    assert (point.symbols_per_sample, point.bits_per_sample) == (4.0, 16.0)  # 15 payload bits and 1 of padding
    assert point.accuracy.value == point.accuracy_noise.value == correct / 180
    assert point.ber.value == bit_errors / point.bits
    assert point.mean_abs_llr == pytest.approx(np.mean(abs_llr), rel=1e-12)  # double sums in another order


def test_the_bit_error_rate_is_that_of_the_thresholds_for_the_amplitudes_sent(ring):
    """Not the mean over the constellation: the tails from each amplitude that was sent, over each bit's thresholds."""
    link, inputs, labels = ring
    spec = SweepSpec(snr_db=(9.0,), seed=1, draws=400)
    point = sweep(link, inputs, labels, spec).points[0]
    sent = link.transmitter(inputs)
    d, sigma = constellation.unit_amplitude(ORDER), math.sqrt(0.5 * 10**-0.9)
    tail = np.vectorize(lambda u: 0.5 * math.erfc(u / math.sqrt(2)))
    magnitudes = np.abs(sent.symbols) / d  # (60, 4, 2): 1 or 3
    sign_bit = tail(magnitudes * d / sigma)
    size_bit = tail(d / sigma) + np.where(magnitudes > 2, -tail(5 * d / sigma), tail(3 * d / sigma))
    rates = np.concatenate([sign_bit, size_bit], axis=-1).reshape(60, -1)[:, :NUM_BITS]
    # Two bits share the noise of one dimension, which at most doubles the variance; five deviations err in 6e-7.
    deviation = math.sqrt(2 * rates.mean() * (1 - rates.mean()) / point.bits)
    assert abs(point.ber.value - rates.mean()) < 5 * deviation
    assert abs(point.ber_theory - rates.mean()) > 5 * deviation, "the reference is for equally likely bits, as stated"


def test_theory_is_the_mean_over_the_payload_positions(ring):
    link, inputs, labels = ring
    point = sweep(link, inputs, labels, SweepSpec(snr_db=(12.0,))).points[0]
    rates = theory.bit_error_rates(ORDER, 12.0)
    assert point.ber_theory == pytest.approx((4 * rates.sum() - rates[3]) / NUM_BITS, rel=1e-15)
    for channel, expected in (
        ("rayleigh", theory.ber_rayleigh(ORDER, 12.0)),
        ("rician-fast", theory.ber_rician(ORDER, 12.0, 6.0)),
    ):
        point = sweep(link, inputs, labels, SweepSpec(snr_db=(12.0,), channel=channel)).points[0]
        assert point.ber_theory == expected


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 200),
    order=st.permutations(SPEC.snr_db),
    channel=st.sampled_from(["awgn", "rayleigh", "rician-fast"]),
)
def test_neither_chunks_nor_the_order_of_points_change_a_count(ring, rows, order, channel):
    link, inputs, labels = ring
    whole = sweep(link, inputs, labels, SPEC.model_copy(update={"channel": channel}), chunk_rows=180)
    other = SPEC.model_copy(update={"channel": channel, "snr_db": tuple(order)})
    parts = sweep(link, inputs, labels, other, chunk_rows=rows)
    assert {point.snr_db: point for point in parts.points} == {point.snr_db: point for point in whole.points}


def test_a_point_run_alone_is_the_point_of_the_grid(ring):
    link, inputs, labels = ring
    grid = sweep(link, inputs, labels, SPEC)
    alone = sweep(link, inputs, labels, SPEC.model_copy(update={"snr_db": (6.0,)}))
    assert alone.points[0] == grid.points[1]


def test_more_draws_and_another_seed_bring_other_noise(ring):
    link, inputs, labels = ring
    errors = {
        seed: sweep(link, inputs, labels, SweepSpec(snr_db=(6.0,), seed=seed, draws=2)).points[0].bit_errors
        for seed in (1, 2)
    }
    once = sweep(link, inputs, labels, SweepSpec(snr_db=(6.0,), seed=1)).points[0].bit_errors
    assert errors[1] != errors[2]
    assert errors[1] != 2 * once


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_sweep_ends_with_the_same_files_as_one_that_was_not(ring, tmp_path, after):
    link, inputs, labels = ring
    sweep(link, inputs, labels, SPEC, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep(link, inputs, labels, SPEC, out=tmp_path / "cut", progress=Stop(after))
    assert len((tmp_path / "cut/points.jsonl").read_text().splitlines()) == after
    cut = SweepResult.model_validate_json((tmp_path / "cut/results.json").read_text())
    whole = SweepResult.model_validate_json((tmp_path / "whole/results.json").read_text())
    assert cut.points == whole.points[:after]
    sweep(link, inputs, labels, SPEC, out=tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_finished_points_are_not_run_again(ring, tmp_path, monkeypatch):
    link, inputs, labels = ring
    first = sweep(link, inputs, labels, SPEC, out=tmp_path)
    monkeypatch.setattr(Link, "carry", lambda *args: pytest.fail("carried again"))
    assert sweep(link, inputs, labels, SPEC, out=tmp_path) == first


def test_a_last_line_that_was_cut_is_dropped_said_and_run_again(ring, tmp_path, caplog):
    link, inputs, labels = ring
    sweep(link, inputs, labels, SPEC, out=tmp_path)
    whole = contents(tmp_path)
    # Even without only its line feed: a line is finished when it ends.
    for cut in (1, 40):
        journal = tmp_path / "blocks.jsonl"
        journal.write_bytes(journal.read_bytes()[:-cut])
        with caplog.at_level(logging.WARNING):
            sweep(link, inputs, labels, SPEC, out=tmp_path)
        assert "cut short" in caplog.text
        assert contents(tmp_path) == whole
        caplog.clear()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "blocks.jsonl",
            lambda text: text.replace('"rows": [60', '"rows": [61', 1),
            "line 1 cannot be read: its checksum",
        ),
        (
            "blocks.jsonl",
            lambda text: text.splitlines(True)[0] + text,
            "line 2 cannot be read: block 0 at -3 dB is there",
        ),
        (
            "blocks.jsonl",
            lambda text: signed(text, '"snr_db": 6.0', '"snr_db": 7.0'),
            "cannot be read: 7 dB is not in the grid",
        ),
        ("blocks.jsonl", lambda text: signed(text, '"first_row"', '"row"'), "its columns are those of another sweep"),
        (
            "blocks.jsonl",
            lambda text: signed(text, '"first": 0', '"first": "a"'),
            "line 1 cannot be read: first: Input should be a valid integer",
        ),
        ("blocks.jsonl", lambda text: "\n" + text, "line 1 cannot be read"),
        ("spec.json", lambda text: text[:-20], "spec.json cannot be read"),
        ("spec.json", lambda text: "[]", "holds another sweep"),
        ("spec.json", lambda text: "[" * 100_000, "spec.json cannot be read: it is nested too deeply"),
    ],
)
def test_results_that_cannot_be_read_are_refused_and_left_as_they_are(ring, tmp_path, name, change, message):
    link, inputs, labels = ring
    sweep(link, inputs, labels, SPEC, out=tmp_path)
    file = tmp_path / name
    # A cut last line beside the damage must not be repaired either.
    broken = change(file.read_text()) + ('{"snr_db"' if name == "blocks.jsonl" else "")
    file.write_text(broken)
    with pytest.raises(ResultsError, match=message) as error:
        sweep(link, inputs, labels, SPEC, out=tmp_path)
    assert "\n" not in str(error.value)
    assert file.read_text() == broken


def test_another_question_in_the_same_folder_is_refused_by_what_differs(ring, export_graph, provenance, tmp_path):
    link, inputs, labels = ring
    sweep(link, inputs, labels, SPEC, out=tmp_path / "out")
    make_bundle(tmp_path / "other", export_graph, provenance, version=2)
    another = Link(load_bundle(tmp_path / "other"))
    moved = {"x": np.nextafter(inputs["x"], np.float32(9))}
    swapped = np.roll(labels, 1)
    for arguments, differs in (
        ((link, inputs, labels, SPEC.model_copy(update={"seed": 6})), r"\(spec.seed is 5 there, 6 here\)"),
        (
            (link, inputs, labels, SPEC.model_copy(update={"snr_db": (6.0,)})),
            r"spec.snr_db is \[-3.0, 6.0, 15.0\] there",
        ),
        ((another, inputs, labels, SPEC), "provenance.bundle is ring:1 there, ring:2 here"),
        ((link, moved, labels, SPEC), r"\(provenance.data_sha256 is [0-9a-f]{12}... there, [0-9a-f]{12}... here\)"),
        ((link, inputs, swapped, SPEC), r"\(provenance.data_sha256 is"),
    ):
        with pytest.raises(ResultsError, match=differs) as error:
            sweep(*arguments, out=tmp_path / "out")
        assert "\n" not in str(error.value)


def test_points_without_a_spec_and_paths_that_are_no_folder_are_refused(ring, tmp_path):
    link, inputs, labels = ring
    for name in ("points.jsonl", "blocks.jsonl"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}")
    (tmp_path / "file").write_text("")
    for out, message in (
        (tmp_path / "points.jsonl", "has points.jsonl, but no spec.json"),
        (tmp_path / "blocks.jsonl", "has blocks.jsonl, but no spec.json"),
        (tmp_path / "file", "cannot be used for results"),
    ):
        with pytest.raises(ResultsError, match=message):
            sweep(link, inputs, labels, SPEC, out=out)


def test_a_folder_of_points_without_their_blocks_is_refused(ring, tmp_path):
    link, inputs, labels = ring
    sweep(link, inputs, labels, SPEC, out=tmp_path)
    (tmp_path / "blocks.jsonl").unlink()
    whole = contents(tmp_path)
    with pytest.raises(ResultsError, match=r"has spec.json, but no blocks.jsonl beside it"):
        sweep(link, inputs, labels, SPEC, out=tmp_path)
    assert contents(tmp_path) == whole


def test_a_point_is_on_disk_before_progress_hears_of_it(ring, tmp_path):
    link, inputs, labels = ring
    heard = []

    def progress(point, done, total):
        lines = (tmp_path / "points.jsonl").read_text().splitlines()
        assert SweepPoint.model_validate_json(lines[-1]) == point
        heard.append((point.snr_db, done, total, len(lines)))

    sweep(link, inputs, labels, SPEC, out=tmp_path, progress=progress)
    assert heard == [(-3.0, 1, 3, 1), (6.0, 2, 3, 2), (15.0, 3, 3, 3)]


def test_the_result_files_hold_what_was_returned(ring, tmp_path):
    link, inputs, labels = ring
    result = sweep(link, inputs, labels, SPEC, out=tmp_path)
    text = (tmp_path / "results.json").read_text()
    assert list(json.loads(text)) == ["points", "provenance", "spec"]
    assert SweepResult.model_validate_json(text) == result
    assert result.provenance.transmitter_sha256 == link.manifest.transmitter.sha256
    with (tmp_path / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["snr_db"]) for row in rows] == list(SPEC.snr_db)
    for row, point in zip(rows, result.points, strict=True):
        assert int(row["bit_errors"]) == point.bit_errors
        assert float(row["accuracy_low"]) == point.accuracy.low
        assert float(row["ber_theory"]) == point.ber_theory


def test_the_data_set_is_encoded_once(ring, monkeypatch):
    link, inputs, labels = ring
    encoded = []
    run = type(link.transmitter).__call__
    monkeypatch.setattr(
        type(link.transmitter), "__call__", lambda self, x, *told: encoded.append(len(x["x"])) or run(self, x, *told)
    )
    sweep(link, inputs, labels, SPEC, chunk_rows=50)
    assert encoded == [50, 10]


def test_intervals_hold_their_values_and_noise_alone_is_the_narrower(ring):
    link, inputs, labels = ring
    for point in sweep(link, inputs, labels, SweepSpec(snr_db=(0.0, 12.0), draws=20)).points:
        for interval in (point.accuracy, point.accuracy_noise, point.ber, point.index_error_rate):
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert point.accuracy_noise.high - point.accuracy_noise.low < point.accuracy.high - point.accuracy.low


def test_accuracy_rises_with_snr_to_that_without_noise(ring):
    link, inputs, labels = ring
    spec = SweepSpec(snr_db=(-9.0, 0.0, 9.0, 40.0), draws=20)
    points = sweep(link, inputs, labels, spec).points
    assert all(low.accuracy.value < high.accuracy.value for low, high in pairwise(points))
    sent = link.transmitter(inputs)
    clean = link.receiver(sent.symbols, np.full(sent.symbols.shape[:2], 1e-4, np.float32))
    assert points[-1].accuracy.value == np.mean(clean.decisions == labels)
    assert points[-1].bit_errors == points[-1].index_errors == 0


def test_under_block_fading_the_interval_of_the_ber_knows_that_bits_fail_together(ring):
    link, inputs, labels = ring
    point = sweep(link, inputs, labels, SweepSpec(snr_db=(12.0,), channel="rayleigh", draws=10)).points[0]
    binomial = binom.std(point.bits, point.ber.value) / point.bits
    assert point.ber.high - point.ber.low > 1.5 * 2 * 1.96 * binomial


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("-6:18:3", (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0)),
        ("6,12", (6.0, 12.0)),
        ("6", (6.0,)),
        ("0:0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("6:0:-3", (6.0, 3.0, 0.0)),
        ("5:5:1", (5.0,)),
    ],
)
def test_a_grid_is_read_with_both_ends(text, grid):
    assert parse_grid(text) == grid


@pytest.mark.parametrize(
    "text", ["", "a", "1:2", "1:2:3:4", "0:10:3", "0:10:-1", "0:10:0", "0:nan:1", "1,,2", "0:1e9:1"]
)
def test_a_grid_that_cannot_be_read_says_what_is_expected(text):
    with pytest.raises(ArgumentError, match=r"^snr_db must ") as error:
        parse_grid(text)
    assert error.value.field == "snr_db"
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"snr_db": ()}, "snr_db"),
        ({"snr_db": (6.0, 6.0004)}, "snr_db"),
        ({"snr_db": (99.0,)}, "snr_db"),
        ({"snr_db": (float("nan"),)}, "snr_db"),
        ({"draws": 0}, "draws"),
        ({"seed": -1}, "seed"),
        ({"channel": "cable"}, "channel"),
        ({"channel": "rayleigh", "block_symbols": -1}, "block_symbols"),
        ({"channel": "rician", "k_factor_db": 99.0}, "k_factor_db"),
        ({"confidence": 1.0}, "confidence"),
        ({"workers": 2}, "workers"),
    ],
)
def test_a_wrong_spec_names_its_field_in_one_line(fields, field):
    with pytest.raises(ArgumentError) as error:
        SweepSpec(**{"snr_db": (6.0,), **fields})
    assert error.value.field == field
    assert "\n" not in str(error.value)


def test_wrong_labels_inputs_and_chunks_are_refused_before_anything_is_written(ring, tmp_path):
    link, inputs, labels = ring
    for arguments, field in (
        ((inputs, labels[:-1]), "labels"),
        ((inputs, labels + CLASSES), "labels"),
        (({"y": inputs["x"]}, labels), "inputs.y"),
    ):
        with pytest.raises(ArgumentError) as error:
            sweep(link, *arguments, SPEC, out=tmp_path / "out")
        assert error.value.field == field
    with pytest.raises(ArgumentError, match="chunk_rows must be at least 1"):
        sweep(link, inputs, labels, SPEC, chunk_rows=0, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
