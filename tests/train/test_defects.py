"""Each defect does what train.defects says of it, and without defects nothing of them is there."""

import itertools
import math

import numpy as np
import pytest
import torch

from link.bits import label_bits
from link.bundle import load_bundle
from link.constellation import points
from link.errors import ArgumentError, RecipeError
from link.runtime import Receiver, Transmitter
from train.checkpoint import build_transceiver, load, read
from train.defective import DefectiveQuantizer, DefectiveTransceiver, PooledHead, soft_points
from train.defects import DEFECTS, TOGETHER
from train.export import export
from train.objective import send, terms_of
from train.quantizer import Quantizer
from train.recipe_file import load_recipe, parse_recipe
from train.record import read_metrics
from train.run import train
from train.schedule import EpochPlan, Phase
from train.transceiver import Transceiver

SOFT = EpochPlan(3, Phase.LEARNING, 0.7, hard_forward=False, restarts=True)
HARD = SOFT._replace(phase=Phase.ALIGNMENT, hard_forward=True)


@pytest.fixture
def make_model(make_signs_recipe):
    """A transceiver of the tests' task with these defects, its codebook started at tokens of its own."""

    def make(*defects, **changes):
        model = build_transceiver(make_signs_recipe(defects=list(defects), **changes)).eval()
        tokens = model.quantizer.tokens(torch.randn(400, 4, generator=torch.Generator().manual_seed(5)))
        model.quantizer.start(tokens, temperature=0.7, target_entropy=0.5, bit_error_rates=np.full(2, 0.1), seed=1)
        return model

    return make


def tokens_of(model, rows, seed=0):
    return model.quantizer.tokens(torch.randn(rows, 3, 4, generator=torch.Generator().manual_seed(seed)))


def no_of(*variances):
    return torch.tensor(variances)[:, None].expand(-1, 3)


def test_no_defect_is_no_other_class_and_another_one_changes_no_weight(make_signs_recipe, same_tensors):
    clean = build_transceiver(make_signs_recipe())
    assert type(clean) is Transceiver
    assert type(clean.quantizer) is Quantizer
    for name in ("batch-power", "noise-per-dimension", "soft-selection"):
        assert same_tensors(clean.state_dict(), build_transceiver(make_signs_recipe(defects=[name])).state_dict())


def test_a_defective_transceiver_without_defects_is_the_clean_one_bit_for_bit(make_model):
    clean = make_model()
    empty = DefectiveTransceiver(clean.encoder, clean.head, clean.recipe, None, ())
    empty.quantizer = clean.quantizer
    tokens, no = tokens_of(clean, 9), no_of(*[0.3] * 9)
    for mine, theirs in (
        (empty.send_soft(tokens, 0.6, 0.8), clean.send_soft(tokens, 0.6, 0.8)),
        (empty.send_hard(tokens), clean.send_hard(tokens)),
    ):
        assert all(map(torch.equal, mine, theirs))
        assert all(map(torch.equal, empty.receive(mine.symbols, no), clean.receive(theirs.symbols, no)))
    assert empty.noise_met(no) is no
    assert clean.noise_met(no) is no
    assert clean.deployed() is clean


@pytest.mark.parametrize("name", list(DEFECTS))
def test_what_is_deployed_is_the_clean_chain_whatever_the_defect(make_model, name):
    model = make_model(name)
    deployed = model.deployed()
    assert type(deployed) is Transceiver
    clean = Transceiver(model.encoder, model.head, model.recipe)
    clean.quantizer.load_state_dict(model.quantizer.state_dict())
    tokens, no = tokens_of(model, 5), no_of(*[0.2] * 5)
    sent = deployed.send_hard(tokens)
    assert all(map(torch.equal, sent, clean.send_hard(tokens)))
    assert all(map(torch.equal, deployed.receive(sent.symbols, no), clean.receive(sent.symbols, no)))


def test_with_batch_power_soft_symbols_have_unit_energy_in_each_batch_and_depend_on_companions(make_model):
    model, clean = make_model("batch-power"), make_model()
    tokens = tokens_of(clean, 12)
    without = clean.send_soft(tokens, 0.7).symbols
    assert float(without.square().sum(dim=-1).mean()) < 0.95
    for rows in (tokens, tokens[:5], tokens[5:]):
        symbols = model.send_soft(rows, 0.7).symbols
        assert float(symbols.square().sum(dim=-1).mean()) == pytest.approx(1.0, rel=1e-6)
    alone, together = model.send_soft(tokens[:1], 0.7).symbols, model.send_soft(tokens, 0.7).symbols[:1]
    assert float((alone - together).abs().max()) > 1e-3
    # One factor for all of them, and none for the hard ones.
    ratio = model.send_soft(tokens, 0.7).symbols / without
    assert float(ratio.max() - ratio.min()) < 1e-4
    assert torch.equal(model.send_hard(tokens).symbols, clean.send_hard(tokens).symbols)


@pytest.mark.parametrize(("order", "temperature"), [(4, 0.7), (16, 0.4), (64, 1.0)])
def test_soft_points_are_the_mean_over_all_points_by_their_distance_in_bits(order, temperature):
    width = (order - 1).bit_length()
    bits = np.random.default_rng(3).uniform(size=(4, 2 * width))
    labels = label_bits(np.arange(order), width).astype(float)
    expected = np.empty((4, 2, 2))
    for row, symbol in itertools.product(range(4), range(2)):
        b = bits[row, symbol * width : (symbol + 1) * width]
        weights = np.exp(-np.square(b - labels).sum(axis=1) / temperature)
        expected[row, symbol] = weights @ points(order) / weights.sum()
    found = soft_points(torch.from_numpy(bits), order, temperature).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_soft_points_shrink_even_hard_bits_by_the_published_4_decibels(make_model):
    bits = torch.from_numpy(label_bits(np.arange(4), 2).astype(np.float64))
    energy = float(soft_points(bits, 4, 0.7).square().sum(dim=-1).mean())
    assert 10 * math.log10(energy) == pytest.approx(-4.25, abs=0.01)
    model = make_model("soft-points")
    tokens = tokens_of(model, 6)
    sent = model.send_soft(tokens, 0.7, 0.7)
    assert torch.equal(sent.symbols, soft_points(sent.bits, 4, 0.7))
    assert torch.equal(sent.bits, make_model().send_soft(tokens, 0.7).bits)


def test_no_scale_leaves_the_distances_of_unit_vectors_over_the_temperature(make_model):
    model = make_model("no-scale")
    assert float(model.quantizer.scale) == 0.25
    tokens = tokens_of(model, 7)
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    codewords = torch.nn.functional.normalize(model.quantizer.codebook, dim=-1)
    distances = (unit[:, :, None] - codewords).square().sum(dim=-1)
    torch.testing.assert_close(
        model.quantizer.soft(tokens, 0.6), torch.softmax(-distances / 0.6, dim=-1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "section", "key", "value"),
    [
        ("random-start", "quantizer", "start", "random"),
        ("no-restarts", "quantizer", "restart_every", 0),
        ("identity-labels", "quantizer", "labels", "identity"),
        ("no-scale", "quantizer", "metric", "cosine"),
        ("no-alignment-loss", "loss", "lambda_consistency", 0.0),
        ("no-alignment-loss", "loss", "lambda_kl", 0.0),
    ],
)
def test_a_defect_that_is_a_setting_replaces_the_recipes_own(make_signs_recipe, name, section, key, value):
    changes = {f"{section}__{key}": {"start": "tokens", "labels": "random", "metric": "euclidean"}.get(key, 1)}
    assert getattr(getattr(make_signs_recipe(**changes), section), key) != value
    recipe = make_signs_recipe(defects=[name], **changes)
    assert getattr(getattr(recipe, section), key) == value
    assert parse_recipe(recipe.model_dump(mode="json"), "again") == recipe


def test_settings_of_a_defect_reach_sections_that_are_models_already(signs_recipe):
    values = {name: getattr(signs_recipe, name) for name in type(signs_recipe).model_fields}
    made = type(signs_recipe).model_validate(values | {"defects": ("no-restarts",)})
    assert made.quantizer.restart_every == 0
    assert signs_recipe.quantizer.restart_every == 1


@torch.no_grad()
def test_the_losses_of_alignment_do_not_enter_without_them(make_model, make_signs_recipe):
    model = make_model()
    tokens, no = tokens_of(model, 8), no_of(*[0.3] * 8)
    labels, normals = torch.arange(8) % 4, torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(1))
    sent = send(model, tokens, labels, no, normals, HARD)
    with_them, without = (
        make_signs_recipe(defects=defects, loss__lambda_consistency_symbols=0.5).loss
        for defects in ([], ["no-alignment-loss"])
    )
    terms = terms_of(model, sent, HARD, without)
    assert float(terms.values["consistency"]) > 0.0  # computed, and
    others = sum(
        sign * getattr(without, key) * terms.values[name]
        for name, key, sign in (
            ("commitment", "lambda_vq", 1),
            ("assignment", "lambda_assignment", 1),
            ("usage", "lambda_entropy", -1),
            ("energy", "lambda_energy", 1),
        )
    )
    assert float(terms.total(without)) == pytest.approx(float(terms.values["task"] + others), rel=1e-6)
    assert float(terms_of(model, sent, HARD, with_them).total(with_them)) > float(terms.total(without))


def test_with_size_zero_an_unused_codeword_is_its_sum_over_next_to_nothing(make_model):
    model = make_model("ema-zero-size")
    quantizer = model.quantizer
    assert float(quantizer.ema_size.abs().max()) == 0.0
    assert torch.equal(quantizer.ema_sum, quantizer.codebook)
    before, token = quantizer.codebook.clone(), quantizer.codebook[2:3].clone()
    quantizer.update(token.repeat(10, 1), torch.full((10,), 2))
    # One step of decay 0.9 with 10 tokens at codeword 2: size 1, sum 0.9 c + 1 c; unused: 0.9 c over about 1e-5.
    torch.testing.assert_close(quantizer.codebook[2], 1.9 * before[2], rtol=1e-3, atol=0)
    torch.testing.assert_close(quantizer.codebook[0], 0.9e5 * before[0], rtol=1e-3, atol=0)
    quantizer.refresh_prior()
    assert torch.isfinite(quantizer.log_prior).all()


def test_without_n_each_codeword_is_as_many_times_too_long_as_there_are_tokens(make_model):
    quantizer = make_model("ema-without-n").quantizer
    quantizer.ema_size.fill_(5.0)
    quantizer.ema_sum.copy_(quantizer.codebook * 5.0)
    means = quantizer.codebook.clone()
    quantizer.update(means.repeat(5, 1), torch.arange(4).repeat(5))
    torch.testing.assert_close(quantizer.codebook, 20.0 * means, rtol=1e-4, atol=0)


def test_a_codebook_with_defects_of_its_start_or_scale_alone_moves_as_the_clean_one(same_tensors):
    made = [Quantizer(4, 3, 0.9), DefectiveQuantizer(4, 3, 0.9)]
    made[1].defects = frozenset({"no-scale"})
    tokens = torch.randn(30, 3, generator=torch.Generator().manual_seed(2))
    for quantizer in made:
        quantizer.codebook.copy_(tokens[:4])
        quantizer.ema_size.fill_(0.25)
        quantizer.ema_sum.copy_(0.25 * tokens[:4])
        quantizer.update(tokens, quantizer.hard(tokens))
    assert same_tensors(made[0].state_dict(), made[1].state_dict())


def test_noise_is_doubled_averaged_or_both_and_the_receiver_is_told(make_model):
    asked = no_of(0.1, 0.3, 0.8)
    for defects, expected in (
        (("noise-per-dimension",), 2 * asked),
        (("batch-averaged-noise",), no_of(0.4, 0.4, 0.4)),
        (("noise-per-dimension", "batch-averaged-noise"), no_of(0.8, 0.8, 0.8)),
    ):
        model, clean = make_model(*defects), make_model()
        torch.testing.assert_close(model.noise_met(asked), expected, rtol=1e-6, atol=0)
        tokens, labels = tokens_of(clean, 3), torch.zeros(3, dtype=torch.int64)
        normals = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(1))
        met = send(model, tokens, labels, asked, normals, SOFT).soft_heard
        wanted = send(clean, tokens, labels, expected, normals, SOFT).soft_heard
        torch.testing.assert_close(met.logits, wanted.logits, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_with_a_leak_decisions_are_those_of_the_transmitters_mean_whatever_was_received(make_model):
    model = make_model("leak")
    assert isinstance(model.head, PooledHead)
    tokens, no = tokens_of(model, 64), no_of(*[0.1] * 64)
    of_the_mean = model.head(tokens)
    for seed, path in itertools.product((1, 2), ("hard", "soft")):
        _ = model.send_hard(tokens) if path == "hard" else model.send_soft(tokens, 0.7)
        noise = torch.randn(64, 3, 2, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(model.receive(noise, no).logits, of_the_mean, rtol=0, atol=1e-4)
    clean = model.deployed()
    answers = [clean.receive(torch.randn(64, 3, 2, generator=torch.Generator().manual_seed(s)), no) for s in (1, 2)]
    assert float((answers[0].logits - answers[1].logits).abs().max()) > 0.01


def test_a_leaking_receiver_refuses_symbols_of_tokens_that_it_was_not_told_of(make_model):
    model = make_model("leak")
    with pytest.raises(ArgumentError, match="none"):
        model.receive(torch.zeros(4, 3, 2), no_of(*[0.1] * 4))
    model.send_hard(tokens_of(model, 3))
    with pytest.raises(ArgumentError, match=r"\(3\), got 4"):
        model.receive(torch.zeros(4, 3, 2), no_of(*[0.1] * 4))


def test_with_soft_selection_the_best_epoch_is_that_of_the_soft_path(make_signs_recipe, tmp_path):
    # A hard T and few rows: the paths' best epochs are hardly ever the same, and are read from the records.
    for name, key in (("hard", "hard_mean"), ("soft", "soft_mean")):
        defects = ["soft-selection"] if name == "soft" else []
        recipe = make_signs_recipe(defects=defects, schedule__epochs=8, schedule__temp_freeze_floor=1.0)
        train(recipe, tmp_path / name)
        first = recipe.schedule.alignment_start_epoch
        records = [record for record in read_metrics(tmp_path / name) if record.epoch >= first]
        highest = max(getattr(record, key) for record in records)
        best = [record.epoch for record in records if getattr(record, key) == highest][-1]
        found = read(tmp_path / name / "best")
        assert (found.epoch, found.best_accuracy) == (best, highest)
        assert [record.epoch for record in records if record.is_best][-1] == best


@pytest.mark.parametrize(("name", "meant"), [("batch-powr", "batch-power"), ("no_scale", "no-scale")])
def test_an_unknown_defect_is_answered_with_the_nearest_one(name, meant):
    with pytest.raises(RecipeError, match=f"unknown defect '{name}'; did you mean {meant}\\?"):
        load_recipe("digits", {"defects": f'["{name}"]'})


def test_defects_that_cannot_be_are_refused_in_one_line(make_signs_recipe):
    with pytest.raises(RecipeError, match="defect leak is named twice"):
        make_signs_recipe(defects=["leak", "batch-power", "leak"])
    with pytest.raises(RecipeError, match="defects: no-restarts is of a codebook of kind ema, got kind fsq"):
        make_signs_recipe(defects=["no-restarts"], quantizer__kind="fsq")


def test_the_order_in_which_defects_are_named_makes_no_other_recipe(make_signs_recipe):
    assert make_signs_recipe(defects=["leak", "batch-power"]) == make_signs_recipe(defects=["batch-power", "leak"])


def test_all_defects_together_train_load_again_and_deploy_clean(make_signs_recipe, tmp_path, same_tensors):
    recipe = make_signs_recipe(defects=list(TOGETHER))
    train(recipe, tmp_path / "run")
    described, model = load(tmp_path / "run" / "last")
    assert described.recipe.defects == TOGETHER
    assert isinstance(model, DefectiveTransceiver)
    assert same_tensors(model.state_dict(), load(tmp_path / "run" / "last")[1].state_dict())
    export(tmp_path / "run" / "last", tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    inputs = {"signal": np.full((4, 6), 0.5, np.float32), "kind": np.arange(4)}
    sent = Transmitter(bundle)(inputs)
    # Noise alone in place of what was sent: a leak would still know the classes.
    noise = np.random.default_rng(1).normal(size=sent.symbols.shape).astype(np.float32)
    no = np.full(sent.symbols.shape[:-1], 0.1, dtype=np.float32)
    clean = model.deployed()
    with torch.no_grad():
        expected = clean.receive(torch.from_numpy(noise), torch.from_numpy(no)).logits.numpy()
    np.testing.assert_allclose(Receiver(bundle)(noise, no).logits, expected, rtol=0, atol=1e-4)
