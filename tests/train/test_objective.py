"""Each term of the loss reaches the parameters it is for, and nothing passes the channel but symbols."""

import itertools

import numpy as np
import pytest
import torch

from train import objective
from train.loop import Trainer
from train.losses import task_loss
from train.objective import TERMS, Terms, send, terms_of
from train.recipe import LossRecipe
from train.schedule import plan
from train.tasks import load_task


def trainer_of(recipe):
    task = load_task(recipe.task)
    trainer = Trainer(recipe, task, task.load(None))
    trainer._start_codebook()
    return trainer


def first_pass(trainer, epoch):
    """The first batch of an epoch, sent and heard, with its terms."""
    settings = plan(trainer.recipe.schedule, epoch)
    _, batch = next(trainer._batches(epoch))
    sent = send(trainer.model, trainer.model.encode(*batch.inputs), batch.labels, batch.no, batch.normals, settings)
    return batch, sent, terms_of(trainer.model, sent, settings)


def sizes_of_gradients(trainer, loss):
    """Sum of each parameter's absolute gradient, 0 where there is none."""
    trainer.optimizer.zero_grad()
    if loss.requires_grad:
        loss.backward()
    return {
        name: float(0.0 if parameter.grad is None else parameter.grad.abs().sum())
        for name, parameter in trainer.model.named_parameters()
    }


@pytest.mark.parametrize("epoch", [3, 4], ids=["learning", "alignment"])
@pytest.mark.parametrize(
    ("term", "encoder", "head"),
    [
        ("task", True, True),
        ("commitment", True, False),
        ("assignment", True, False),
        ("usage", True, False),
        ("consistency", True, False),
    ],
)
def test_each_term_reaches_the_parameters_it_is_for_and_no_others(signs_recipe, epoch, term, encoder, head):
    trainer = trainer_of(signs_recipe)
    _, _, terms = first_pass(trainer, epoch)
    found = sizes_of_gradients(trainer, terms.values[term])
    encoder = encoder and not (term == "consistency" and epoch == 3)  # there is none before alignment
    for name, size in found.items():
        assert (size > 0.0) == (encoder if name.startswith("encoder.") else head), name


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
    terms = Terms({term.name: torch.tensor(float(10**place)) for place, term in enumerate(TERMS)})
    weights = LossRecipe(lambda_vq=2, lambda_assignment=3, lambda_entropy=4, lambda_consistency=5, lambda_energy=6)
    assert float(terms.total(weights)) == 1 + 2 * 10 + 3 * 100 - 4 * 1000 + 5 * 10_000 + 6 * 100_000
