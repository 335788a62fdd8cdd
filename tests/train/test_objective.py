"""Each term of the loss reaches the parameters it is for, and nothing passes the channel but symbols."""

import itertools

import numpy as np
import pytest
import torch

from train import loop, objective
from train.loop import Trainer
from train.losses import task_loss
from train.objective import TERMS, Terms, send, terms_of
from train.recipe import LossRecipe
from train.schedule import plan
from train.tasks import load_task


def trainer_of(recipe):
    task = load_task(recipe.task)
    trainer = Trainer(recipe, task, task.load(None))
    trainer.upkeep.start()
    return trainer


ALL = LossRecipe(**{term.weight: 1.0 for term in TERMS if term.weight})


def first_pass(trainer, epoch, weights=ALL, **changes):
    """The first batch of an epoch, sent and heard, with its terms."""
    settings = plan(trainer.recipe.schedule, epoch)._replace(**changes)
    _, batch = next(trainer.batches.of(epoch))
    sent = send(
        trainer.model,
        trainer.model.encode(*batch.inputs),
        batch.labels,
        batch.no,
        batch.normals,
        settings,
        teach_hard=weights.lambda_kl > 0.0,
    )
    return batch, sent, terms_of(trainer.model, sent, settings, weights)


def sizes_of_gradients(trainer, loss):
    """Sum of each parameter's absolute gradient, 0 where there is none."""
    trainer.optimizer.zero_grad()
    if loss.requires_grad:
        loss.backward()
    return {
        name: float(0.0 if parameter.grad is None else parameter.grad.abs().sum())
        for name, parameter in trainer.model.named_parameters()
    }


# Which parameters each term is for; energy has a test of its own, since it may be 0.
BOTH, ENCODER, NOBODY = ("encoder.", "head."), ("encoder.",), ()
REACHED = {
    ("task", "learning"): BOTH,
    ("task", "hardening"): BOTH,
    ("task", "alignment"): BOTH,
    ("commitment", "learning"): ENCODER,
    ("commitment", "alignment"): ENCODER,
    ("assignment", "learning"): ENCODER,
    ("assignment", "alignment"): ENCODER,
    ("usage", "learning"): ENCODER,
    ("usage", "alignment"): ENCODER,
    ("consistency", "learning"): NOBODY,  # there is none before alignment
    ("consistency", "hardening"): ENCODER,
    ("consistency", "alignment"): ENCODER,
    ("consistency_vq", "learning"): NOBODY,
    ("consistency_vq", "alignment"): ENCODER,
    ("consistency_symbols", "learning"): NOBODY,
    ("consistency_symbols", "alignment"): ENCODER,
    ("vec", "learning"): ENCODER,
    ("vec", "hardening"): ENCODER,
    ("vec", "alignment"): ENCODER,
    ("kl", "learning"): BOTH,
    ("kl", "hardening"): BOTH,
    ("kl", "alignment"): BOTH,
}
PHASES = {"learning": (3, {}), "hardening": (4, {"hardness": 0.5}), "alignment": (4, {})}


@pytest.mark.parametrize(("term", "phase"), REACHED)
def test_each_weight_alone_reaches_the_parameters_it_is_for_and_no_others(make_signs_recipe, term, phase):
    """By the loss itself, the other weights 0: the task's own has none, and is taken off."""
    trainer = trainer_of(make_signs_recipe())
    epoch, changes = PHASES[phase]
    key = {each.name: each.weight for each in TERMS}[term]
    off = {name: 0.0 for name in LossRecipe.model_fields if name != "warmup"}
    weights = LossRecipe(**(off | ({key: 1.0} if key else {})))
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    _, _, terms = first_pass(trainer, epoch, weights, **changes)
    values = dict(terms.values) if term == "task" else terms.values | {"task": terms.values["task"].detach()}
    loss = Terms(values).total(weights)
    for name, size in sizes_of_gradients(trainer, loss).items():
        assert (size > 0.0) == name.startswith(REACHED[term, phase]), name
    for name, buffer in trainer.model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
        assert buffer.grad is None
        assert not buffer.requires_grad


def test_every_term_has_been_asked_what_it_reaches():
    assert {term.name for term in TERMS} - {name for name, _ in REACHED} == {"energy"}


def test_every_weight_of_a_recipe_has_a_term_but_those_that_one_mode_refuses():
    weights = set(LossRecipe.model_fields) - {"warmup"}
    assert {term.weight for term in TERMS} - {""} == weights - {"lambda_sym", "lambda_lb"}


def stepped(make_signs_recipe, term, phase, group, held=()):
    """How much a term falls in a small step down its own gradient, in units of what the slope promises.

    In float64, and the parts of the pass that the term stops the gradient of held as they were.
    """
    trainer = trainer_of(make_signs_recipe(link__order=16, link__tokens=4))
    model = trainer.model.double()
    epoch, changes = PHASES[phase]
    settings = plan(trainer.recipe.schedule, epoch)._replace(**changes)
    _, batch = next(trainer.batches.of(epoch))
    inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in batch.inputs]

    def sent():
        return send(
            model,
            model.encode(*inputs),
            batch.labels,
            batch.no.double(),
            batch.normals.double(),
            settings,
            teach_hard=True,
        )

    chosen = {each.name: each for each in TERMS}[term]
    before = sent()
    value = chosen.sign * chosen.value(model, before)
    model.zero_grad()
    value.backward()
    parameters = [parameter for name, parameter in model.named_parameters() if name.startswith(group)]
    slope = float(sum(parameter.grad.square().sum() for parameter in parameters))
    rate = 1e-6 / slope**0.5
    with torch.no_grad():
        for parameter in parameters:
            parameter -= rate * parameter.grad
    after = sent()
    after = after._replace(**{part: getattr(before, part) for part in held})
    return float(value.detach() - chosen.sign * chosen.value(model, after).detach()) / (rate * slope)


@pytest.mark.parametrize(
    ("term", "phase", "group", "held"),
    [
        ("task", "learning", "encoder.", ()),
        ("task", "learning", "head.", ()),
        ("task", "hardening", "head.", ()),
        ("task", "alignment", "head.", ()),
        ("commitment", "learning", "encoder.", ()),
        ("assignment", "learning", "encoder.", ()),
        ("usage", "learning", "encoder.", ()),
        ("consistency", "alignment", "encoder.", ("hard_heard",)),
        ("consistency_vq", "alignment", "encoder.", ("hard",)),
        ("consistency_symbols", "alignment", "encoder.", ("hard",)),
        ("vec", "learning", "encoder.", ("tokens",)),
        ("kl", "alignment", "head.", ("soft_heard",)),
    ],
)
def test_a_small_step_lowers_each_term_by_what_its_slope_promises(make_signs_recipe, term, phase, group, held):
    """Where the forward pass is not hard: a step too small to change a decision leaves hard symbols where they are."""
    assert stepped(make_signs_recipe, term, phase, group, held) == pytest.approx(1.0, abs=1e-3)


def test_a_small_step_lowers_the_energy_that_the_soft_bits_expect(make_signs_recipe, monkeypatch):
    """The hard energy moves in steps; its gradient is that of the mean over independent soft bits."""
    monkeypatch.setattr(objective.losses, "excess_energy", lambda energies: energies.mean())
    monkeypatch.setattr(objective, "straight_through", lambda hard, soft: soft)
    assert stepped(make_signs_recipe, "energy", "learning", "encoder.") == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("path", ["learning", "alignment"])
def test_the_received_embedding_is_pulled_to_the_tokens_by_the_path_that_is_sent(make_signs_recipe, path):
    trainer = trainer_of(make_signs_recipe())
    _, sent, terms = first_pass(trainer, PHASES[path][0])
    heard = {"learning": sent.soft_heard, "alignment": sent.hard_heard}[path]
    expected = (heard.embedding - sent.tokens).square().mean()
    torch.testing.assert_close(terms.values["vec"].detach(), expected.detach())


def test_hardening_sends_symbols_between_soft_and_hard(make_signs_recipe, monkeypatch):
    trainer = trainer_of(make_signs_recipe())
    symbols = []
    monkeypatch.setattr(objective, "add_noise", lambda x, no, normals: symbols.append(x) or x)
    for hardness in (0.1, 0.5, 0.9):
        symbols.clear()
        batch, sent, terms = first_pass(trainer, 4, LossRecipe(), hardness=hardness)
        _, _, mixed = symbols
        torch.testing.assert_close(mixed, (1 - hardness) * sent.soft.symbols + hardness * sent.hard.symbols)
        # Its slope is the soft symbols', whatever the share.
        (slope,) = torch.autograd.grad(mixed.sum(), sent.soft.symbols, retain_graph=True)
        torch.testing.assert_close(slope, torch.ones_like(slope))
        heard = trainer.model.receive(mixed, batch.no)
        torch.testing.assert_close(terms.values["task"], task_loss(heard.logits, batch.labels))


def test_a_hardness_of_1_is_the_hard_path_and_costs_no_third_reception(signs_recipe, monkeypatch):
    received = []
    trainer = trainer_of(signs_recipe)
    receive = trainer.model.receive
    monkeypatch.setattr(trainer.model, "receive", lambda *given, **how: received.append(1) or receive(*given, **how))
    _, sent, _ = first_pass(trainer, 4, LossRecipe(), hardness=1.0)
    assert sent.answer is sent.hard_heard
    assert len(received) == 2
    assert sent.soft_heard.logits.shape == (len(sent.labels), 0)  # nobody asked for them
    _, sent, _ = first_pass(trainer, 3, LossRecipe(), hardness=1.0)
    assert sent.answer is sent.soft_heard
    assert sent.hard_heard.logits.shape == (len(sent.labels), 0)


def test_optional_terms_without_a_weight_are_neither_computed_nor_recorded(signs_recipe, monkeypatch):
    def never(*arguments):
        raise AssertionError("computed without a weight")

    for name in ("reconstruction_loss", "answer_divergence"):
        monkeypatch.setattr(objective.losses, name, never)
    _, _, terms = first_pass(trainer_of(signs_recipe), 4, LossRecipe())
    assert list(terms.values) == ["task", "commitment", "assignment", "usage", "consistency", "energy"]


def test_energy_above_the_constellations_reaches_the_encoder_in_both_phases_and_below_it_nobody(make_signs_recipe):
    trainer = trainer_of(make_signs_recipe(link__order=16, link__tokens=4))
    seen = set()
    for epoch, labels in itertools.product((3, 4), itertools.permutations(range(4))):
        trainer.model.quantizer.set_labels(np.array(labels))
        _, sent, terms = first_pass(trainer, epoch)
        energy = float(sent.hard.symbols.detach().square().sum(dim=-1).mean())
        assert float(terms.values["energy"].detach()) == pytest.approx(max(0.0, energy - 1.0), abs=1e-5)
        above = energy > 1.0
        seen.add((epoch, above))
        for name, size in sizes_of_gradients(trainer, terms.values["energy"]).items():
            assert (size > 0.0) == (above and name.startswith("encoder.")), name
    assert seen == {(3, True), (3, False), (4, True), (4, False)}


def test_alignment_sends_constellation_points_and_learning_mean_symbols(signs_recipe, monkeypatch):
    corner = 0.5**0.5
    for epoch, hard in ((3, False), (4, True)):
        trainer = trainer_of(signs_recipe)
        sent = []
        monkeypatch.setattr(objective, "add_noise", lambda x, no, normals, sent=sent: sent.append(x) or x)
        batch, _, terms = first_pass(trainer, epoch)
        soft, straight = sent
        points = torch.tensor([corner, -corner])
        assert torch.isin(straight, points).all()
        assert not torch.isin(soft, points).any()
        answer = straight if hard else soft
        heard = trainer.model.receive(answer, batch.no)
        torch.testing.assert_close(terms.values["task"], task_loss(heard.logits, batch.labels))
        # Both paths met the same noise variance, one a row.
        torch.testing.assert_close(batch.no[:, 0], torch.from_numpy(10.0 ** (-batch.snr_db / 10.0)).float())


def test_both_paths_meet_the_same_noise_in_training(signs_recipe, monkeypatch):
    met = []
    add_noise = objective.add_noise
    monkeypatch.setattr(objective, "add_noise", lambda x, no, n: met.append((no, n)) or add_noise(x, no, n))
    first_pass(trainer_of(signs_recipe), 4)
    (no, normals), (other_no, other_normals) = met
    assert torch.equal(no, other_no)
    assert torch.equal(normals, other_normals)


def test_each_weight_multiplies_its_own_term():
    terms = Terms({term.name: torch.tensor(float(10**place), dtype=torch.float64) for place, term in enumerate(TERMS)})
    weights = LossRecipe(
        lambda_vq=2,
        lambda_assignment=3,
        lambda_entropy=4,
        lambda_consistency=5,
        lambda_energy=6,
        lambda_consistency_vq=7,
        lambda_consistency_symbols=8,
        lambda_vec=9,
        lambda_kl=1,
    )
    assert float(terms.total(weights)) == 1 + 20 + 300 - 4e3 + 5e4 + 6e5 + 7e6 + 8e7 + 9e8 + 1e9


def test_a_gradient_past_the_link_is_that_of_the_embedding(signs_recipe):
    """It reaches the tokens as the head left it, what is sent is the same, and the soft path has no part in it."""
    trainer = trainer_of(signs_recipe)
    settings = plan(signs_recipe.schedule, 4)
    assert settings.hard_forward
    _, batch = next(trainer.batches.of(4))
    found = {}
    for past_link in (False, True):
        tokens = trainer.model.encode(*batch.inputs).detach().requires_grad_()
        sent = send(trainer.model, tokens, batch.labels, batch.no, batch.normals, settings, past_link=past_link)
        assert torch.equal(sent.answer.logits, sent.hard_heard.logits)
        (gradient,) = torch.autograd.grad(task_loss(sent.answer.logits, sent.labels), tokens)
        embedding = sent.hard_heard.embedding.detach().requires_grad_()
        logits = trainer.model.head(embedding)
        (at_embedding,) = torch.autograd.grad(task_loss(logits, sent.labels), embedding)
        found[past_link] = sent.answer.logits.detach(), gradient, at_embedding
    assert torch.equal(found[False][0], found[True][0])
    assert torch.equal(found[True][1], found[True][2])
    assert not torch.allclose(found[False][1], found[False][2])


def test_the_recipe_lets_the_gradient_pass_the_link_where_it_sends_hard(make_signs_recipe, monkeypatch):
    asked = []
    original = loop.send

    def record(*arguments, past_link, **options):
        asked.append(past_link)
        return original(*arguments, past_link=past_link, **options)

    monkeypatch.setattr(loop, "send", record)
    for gradient in ("surrogate", "straight-through"):
        trainer = trainer_of(make_signs_recipe(quantizer__gradient=gradient))
        trainer._train_link(plan(trainer.recipe.schedule, 4))
    half = len(asked) // 2
    assert asked == [False] * half + [True] * half
    assert half > 0
