"""The variational bottleneck: closed forms of its terms, what is drawn, when terms act; and the mean is what is deployed."""

import numpy as np
import pytest
import torch
from torch import nn

from link.bundle import load_bundle
from link.chain import Link
from link.errors import RecipeError
from link.randomness import Draws
from train.bottleneck import (
    Bottleneck,
    LatentNoise,
    Posterior,
    free_bits,
    lack_of_diversity,
    orthogonality,
    reduced,
    rule_divergence,
)
from train.checkpoint import build_transceiver, load
from train.latent import VariationalTraining
from train.loop import Trainer
from train.objective import send
from train.record import read_metrics
from train.schedule import EpochPlan, Phase
from train.tasks import load_task
from train.variational import BottleneckRecipe

ON = {"enabled": True, "kl_warmup": 4}
SCHEDULE = {"epochs": 9, "warmup_epochs": 4, "alignment_start_epoch": 7}


def posterior(rows=64, tokens=3, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, log_variance = (torch.randn(rows, tokens, dim, generator=generator) for _ in range(2))
    return Posterior(mean, log_variance)


def test_the_kl_is_that_of_the_normal_distributions():
    found = posterior()
    deviation = (0.5 * found.log_variance).exp()
    own = torch.distributions.Normal(found.mean, deviation)
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    torch.testing.assert_close(found.kl(), torch.distributions.kl_divergence(own, prior))


def test_a_posterior_that_is_the_prior_costs_nothing():
    assert Posterior(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)).kl().abs().max() == 0.0


def test_mean_and_sum_tell_the_same_nats_a_token():
    kl = posterior(dim=8).kl()
    recipes = [BottleneckRecipe(enabled=True, kl_reduction=reduction) for reduction in ("mean", "sum")]
    nats = [recipe.nats_a_token(float(reduced(kl, recipe.kl_reduction).mean()), 8) for recipe in recipes]
    free = [recipe.nats_a_token(recipe.free(8), 8) for recipe in recipes]
    assert nats[0] == pytest.approx(nats[1], rel=1e-6)
    assert free == pytest.approx([0.8, 0.8])


def test_free_bits_are_taken_from_each_token_and_never_below_nothing():
    raw, after = free_bits(torch.tensor([[0.05, 0.3]]), 0.1)
    assert (float(raw), float(after)) == pytest.approx((0.175, 0.1))
    kl = torch.tensor([[0.05, 0.3]], requires_grad=True)
    free_bits(kl, 0.1)[1].backward()
    assert kl.grad.tolist() == [[0.0, 0.5]]


def test_drawn_tokens_have_the_posteriors_mean_and_the_temperatures_share_of_its_deviation():
    count = 20_000
    noise = LatentNoise.of(Draws(3, np.arange(count)), BottleneckRecipe(enabled=True, image_dropout=0.25), 1, 3)
    mean, deviation = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.5, 1.0, 2.0])
    shaped = Posterior(mean.expand(count, 1, 3), (2.0 * deviation.log()).expand(count, 1, 3))
    drawn = shaped.draw(noise.normals, 0.6)[:, 0]
    # Four standard errors of a mean and of a deviation.
    assert ((drawn.mean(dim=0) - mean).abs() < 4.0 * 0.6 * deviation / count**0.5).all()
    assert ((drawn.std(dim=0) / (0.6 * deviation) - 1.0).abs() < 4.0 / (2 * count) ** 0.5).all()
    assert abs(float(noise.lost.float().mean()) - 0.25) < 4.0 * (0.25 * 0.75 / count) ** 0.5


def test_what_a_row_meets_is_a_matter_of_its_address_alone():
    recipe = BottleneckRecipe(enabled=True)
    whole = LatentNoise.of(Draws(5, np.arange(40), 2), recipe, 3, 5)
    chosen = np.array([7, 31, 7])
    part = LatentNoise.of(Draws(5, chosen, 2), recipe, 3, 5)
    for own, all_rows in zip(part, whole, strict=True):
        torch.testing.assert_close(own, all_rows[chosen], rtol=0, atol=0)
    other = LatentNoise.of(Draws(5, np.arange(40), 3), recipe, 3, 5)
    assert not torch.equal(other.normals, whole.normals)
    assert not torch.equal(whole.normals[:, 0], whole.normals[:, 1])


def test_orthogonality_is_the_mean_squared_cosine_between_different_tokens():
    tokens = posterior(rows=5).mean
    expected = [
        float(nn.functional.cosine_similarity(row[i], row[j], dim=0)) ** 2
        for row in tokens
        for i in range(3)
        for j in range(3)
        if i != j
    ]
    assert float(orthogonality(tokens)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(orthogonality(torch.eye(3)[None])) == 0.0
    assert float(orthogonality(torch.ones(2, 3, 4))) == pytest.approx(1.0)
    assert float(orthogonality(torch.ones(2, 1, 4))) == 0.0


def test_diversity_is_missed_where_all_samples_are_alike_and_nowhere_above_the_priors_deviation():
    assert float(lack_of_diversity(torch.ones(6, 2, 3))) == pytest.approx(1.0 - 1e-2)
    spread = torch.linspace(-3.0, 3.0, 6)[:, None, None].expand(6, 2, 3)
    assert float(lack_of_diversity(spread)) == 0.0
    half = torch.tensor([-0.5, 0.5])[:, None, None].expand(2, 2, 3)
    assert float(lack_of_diversity(half)) == pytest.approx(0.5, abs=1e-3)


def test_the_teachers_divergence_is_nothing_where_the_answers_are_the_rules():
    rules = torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])
    assert float(rule_divergence(rules.clamp_min(1e-30).log(), rules)) == pytest.approx(0.0, abs=1e-6)
    uniform = rule_divergence(torch.zeros(2, 3), rules)
    expected = np.mean([0.9 * np.log(0.9) + 0.1 * np.log(0.1) + np.log(3), np.log(3)])
    assert float(uniform) == pytest.approx(expected, rel=1e-6)


def test_weights_grow_from_the_first_epoch_and_the_teacher_comes_later():
    recipe = BottleneckRecipe(enabled=True, kl_weight=2.0, kl_warmup=4, teacher_weight=0.3, teacher_start_epoch=3)
    by_epoch = [recipe.weights_at(10 * epoch, 10) for epoch in range(6)]
    assert [weights.kl for weights in by_epoch] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert [weights.teacher for weights in by_epoch] == [0.0, 0.0, 0.3, 0.3, 0.3, 0.3]
    at_once = BottleneckRecipe(enabled=True, kl_weight=2.0, kl_warmup=0)
    assert at_once.weights_at(0, 10).kl == 2.0


def test_a_section_without_a_bottleneck_is_refused(make_signs_recipe):
    with pytest.raises(RecipeError, match=r"bottleneck: free_bits of no bottleneck: set enabled = true"):
        make_signs_recipe(bottleneck__free_bits=0.2)
    with pytest.raises(RecipeError, match="defects: a codec with a bottleneck has none"):
        make_signs_recipe(bottleneck__enabled=True, defects=["batch-power"])


def test_a_teacher_of_a_task_without_rules_is_refused(make_signs_recipe):
    recipe = make_signs_recipe(bottleneck__enabled=True, bottleneck__teacher_weight=0.3)
    with pytest.raises(RecipeError, match=r"bottleneck\.teacher_weight must be 0: this task has no rules to teach"):
        Trainer(recipe, load_task("signs"), load_task("signs").load(None))


def test_freezing_the_vision_of_an_encoder_without_any_is_refused(make_signs_recipe, tmp_path):
    recipe = make_signs_recipe(optimizer__freeze_vision_epochs=1)
    task = load_task("signs")
    with pytest.raises(RecipeError, match=r"optimizer\.freeze_vision_epochs must be 0"):
        Trainer(recipe, task, task.load(None)).run_epoch(1, tmp_path)


@pytest.fixture(scope="module")
def recipe(make_signs_recipe):
    return make_signs_recipe(name="narrow", schedule=SCHEDULE, bottleneck=ON, optimizer__head_learning_rate=5e-3)


@pytest.fixture(scope="module")
def run(recipe, train_run):
    return train_run(recipe)


def test_any_task_trains_behind_a_bottleneck_and_its_epochs_tell_of_it(run):
    records = read_metrics(run)
    assert [record.bottleneck.kl_weight for record in records] == [0.0, 0.75, 1.5, 2.25, *[3.0] * 5]
    for record in records:
        found = record.bottleneck
        assert found.kl_nats == pytest.approx(4 * found.kl_raw)
        assert found.free_nats == pytest.approx(0.4)
        assert 0.0 <= found.kl_after <= found.kl_raw
        assert found.penalty_reduction == pytest.approx(1.0 - found.kl_after / found.kl_raw)
        assert set(record.loss_shares) >= {"latent_kl", "latent_orthogonality", "latent_diversity", "latent_teacher"}
        assert sum(record.loss_shares.values()) == pytest.approx(1.0)
        assert "Latent: KL=" in record.text()
    assert records[-1].hard_mean > 0.6


def test_the_weight_of_the_kl_holds_it_down(make_signs_recipe, run, train_run):
    free = make_signs_recipe(name="wide", schedule=SCHEDULE, bottleneck=ON | {"kl_weight": 0.0})
    held, loose = (read_metrics(folder)[-1].bottleneck for folder in (run, train_run(free)))
    assert held.kl_raw < 0.5 * loose.kl_raw
    assert held.validation_kl_raw < 0.5 * loose.validation_kl_raw


def test_a_run_that_was_interrupted_goes_on_bit_for_bit(recipe, run, train_until, train_run, tmp_path, same_tensors):
    from train.run import train

    train_until(6, recipe, tmp_path / "run")
    train(recipe, tmp_path / "run")
    assert same_tensors(load(tmp_path / "run" / "last")[1].state_dict(), load(run / "last")[1].state_dict())


def test_what_is_deployed_is_the_mean_in_training_mode_too(run, export_run):
    model = load(run)[1]
    inputs = [torch.from_numpy(load_task("signs").load(None).validation.inputs[name]) for name in ("signal", "kind")]
    expected = model.quantizer.tokens(model.bottleneck(model.encoder(*inputs)).mean)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode).encode(*inputs), expected, rtol=0, atol=0)
    link = Link(load_bundle(export_run(run)))
    sent = link.transmitter({"signal": inputs[0].numpy(), "kind": inputs[1].numpy()})
    with torch.no_grad():
        assert (sent.indices == model.eval().send_hard(expected).indices.numpy()).mean() > 0.999


def test_a_lost_latent_is_received_as_the_link_loses_it(run):
    """The prior's mean, whatever was sent: as a receiver answers where all symbols are erased."""
    _, model = load(run)
    generator = torch.Generator().manual_seed(1)
    tokens = model.quantizer.tokens(torch.randn(8, 3, 4, generator=generator))
    no, normals = torch.full((8, 3), 0.1), torch.randn(8, 3, 2, generator=generator)
    settings = EpochPlan(1, Phase.ALIGNMENT, 0.7, hard_forward=True, restarts=False)
    lost = torch.tensor([True, False] * 4)
    labels = torch.zeros(8, dtype=torch.int64)
    sent = send(model, tokens, labels, no, normals, settings, lost=lost)
    kept = send(model, tokens, labels, no, normals, settings)
    nothing = model.receive(torch.zeros(1, 3, 2), torch.full((1, 3), torch.inf))
    for heard, whole in ((sent.hard_heard, kept.hard_heard), (sent.soft_heard, kept.soft_heard)):
        assert heard.llr[lost].abs().max() == 0.0
        torch.testing.assert_close(heard.embedding[lost], nothing.embedding.expand(4, 3, 4))
        torch.testing.assert_close(heard.embedding[~lost], whole.embedding[~lost], rtol=0, atol=0)
    loss = sent.answer.logits.square().sum()
    loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_penalties_see_tokens_before_any_is_lost(make_signs_recipe):
    """Lost rows in place of their tokens would look alike: the terms do not change with what is lost."""
    training = VariationalTraining(BottleneckRecipe(enabled=True), object(), 4, 10)
    shaped, normals = posterior(), torch.zeros(64, 3, 4)
    labels, logits = torch.zeros(64, dtype=torch.int64), torch.zeros(64, 2)
    none, all_lost = (
        training.terms(training.draw(shaped, LatentNoise(normals, torch.full((64,), lost))), logits, labels, 0)
        for lost in (False, True)
    )
    for left, right in zip(none, all_lost, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_a_bottleneck_is_part_of_the_model_and_of_what_is_sent(recipe, run):
    from train.transmitter import transmitter_weights

    assert isinstance(build_transceiver(recipe).bottleneck, Bottleneck)
    assert any(name.startswith("bottleneck.mean") for name in transmitter_weights(load(run)[1]))


def test_head_and_encoder_learn_at_their_own_rates(recipe):
    task = load_task("signs")
    trainer = Trainer(recipe, task, task.load(None))
    rates = {id(parameter): group["rate"] for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in trainer.model.head.parameters()} == {5e-3}
    assert {rates[id(parameter)] for parameter in trainer.model.encoder.parameters()} == {1e-2}
    assert len(rates) == sum(1 for _ in trainer.model.parameters())


def test_a_recipe_without_a_bottleneck_is_read_back_as_it_was_written(signs_recipe, recipe):
    for one in (signs_recipe, recipe):
        assert type(one).model_validate(one.model_dump()) == one
        assert type(one).model_validate_json(one.model_dump_json()) == one
