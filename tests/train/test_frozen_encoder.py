"""`optimizer.freeze_encoder_epochs`: the encoder stays as the warm-up left it, and then is trained again."""

import copy

import pytest
import torch
from torch import nn

from link.errors import RecipeError
from train.checkpoint import load
from train.loop import Trainer
from train.run import train
from train.tasks import load_task


class Wavering(nn.Module):
    """An encoder with running statistics and dropout before its own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, signal, kind):
        return self.inner(self.dropout(self.norm(signal)), kind)


@pytest.fixture
def make_trainer(make_signs_recipe, monkeypatch):
    """A trainer whose encoder has running statistics and dropout; epochs 1 and 2 are its warm-up."""
    task = load_task("signs")
    encoder = task.encoder
    monkeypatch.setattr(task, "encoder", lambda tokens, dim: Wavering(encoder(tokens, dim)))

    def make(**changes):
        return Trainer(make_signs_recipe(**changes), task, task.load(None))

    return make


def states(trainer, epochs, folder):
    """The encoder, head and codebook after each epoch."""
    found = {}
    for epoch in epochs:
        trainer.run_epoch(epoch, folder)
        model = trainer.model
        found[epoch] = copy.deepcopy([part.state_dict() for part in (model.encoder, model.head, model.quantizer)])
    return found


def test_the_encoder_stays_over_its_epochs_over_the_link_and_moves_before_and_after(
    make_trainer, tmp_path, same_tensors
):
    found = states(make_trainer(optimizer__freeze_encoder_epochs=2), range(1, 6), tmp_path)
    moved = [not same_tensors(found[epoch][0], found[epoch + 1][0]) for epoch in range(1, 5)]
    assert moved == [True, False, False, True]  # frozen in epochs 3 and 4
    for part in (1, 2):  # head and codebook go on learning
        assert not any(same_tensors(found[epoch][part], found[epoch + 1][part]) for epoch in range(2, 5))


def test_without_the_setting_it_moves_in_every_epoch(make_trainer, tmp_path, same_tensors):
    found = states(make_trainer(), range(1, 6), tmp_path)
    assert not any(same_tensors(found[epoch][0], found[epoch + 1][0]) for epoch in range(1, 5))


def test_a_frozen_encoder_gives_the_same_tokens_in_training_as_in_evaluation(make_trainer, tmp_path):
    """Dropout and the batch's statistics would move what the codebook is to settle on."""
    trainer = make_trainer(optimizer__freeze_encoder_epochs=1)
    states(trainer, range(1, 4), tmp_path)
    trainer.stage.train()
    signal, kind = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 4
    first, again = trainer.model.encode(signal, kind), trainer.model.encode(signal, kind)
    assert torch.equal(first, again)
    assert trainer.model.head.training
    assert not first.requires_grad
    trainer.stage.freeze_encoder(4)
    trainer.stage.train()
    first, again = trainer.model.encode(signal, kind), trainer.model.encode(signal, kind)
    assert not torch.equal(first, again)
    assert first.requires_grad


def test_what_was_frozen_before_stays_frozen_after(make_trainer):
    stage = make_trainer(optimizer__freeze_encoder_epochs=2).stage
    stage.model.encoder.norm.requires_grad_(False)
    for epoch, trained in ((2, True), (3, False), (4, False), (5, True)):
        stage.freeze_encoder(epoch)
        assert all(parameter.requires_grad == trained for parameter in stage.model.encoder.inner.parameters())
        assert not any(parameter.requires_grad for parameter in stage.model.encoder.norm.parameters())


@pytest.mark.parametrize("epoch", [3, 4])
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(
    make_signs_recipe, train_until, tmp_path, same_tensors, epoch
):
    recipe = make_signs_recipe(optimizer__freeze_encoder_epochs=2)
    train(recipe, tmp_path / "whole")
    train_until(epoch, recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut")
    models = [load(tmp_path / name / "last")[1] for name in ("whole", "cut")]
    assert same_tensors(*(model.state_dict() for model in models))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze_encoder_epochs": 4}, "must be at most the 3 epochs over the link, got 4"),
        ({"freeze_encoder_epochs": 1, "freeze_vision_epochs": 2}, "must be 0 beside freeze_vision_epochs 2"),
        ({"freeze_encoder_epochs": 1, "encoder_learning_rate": 1e-4}, "must be 0 beside encoder_learning_rate 0.0001"),
        ({"freeze_encoder_epochs": -1}, "freeze_encoder_epochs"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make_signs_recipe, changes, message):
    with pytest.raises(RecipeError, match=message) as refused:
        make_signs_recipe(**{f"optimizer__{key}": value for key, value in changes.items()})
    assert "\n" not in str(refused.value)


def test_behind_a_bottleneck_it_is_refused(make_signs_recipe):
    with pytest.raises(RecipeError, match="must be 0 behind a bottleneck: it learns on and moves the tokens, got 1"):
        make_signs_recipe(optimizer__freeze_encoder_epochs=1, bottleneck={"enabled": True})


def test_all_epochs_over_the_link_may_be_frozen(make_signs_recipe):
    assert make_signs_recipe(optimizer__freeze_encoder_epochs=3).optimizer.freeze_encoder_epochs == 3
