"""Training in bfloat16: encoder and head alone, and nothing that is deployed."""

import pytest
import torch
from safetensors.torch import load_file

from link.bundle import load_bundle
from train import loop
from train.checkpoint import FILE_NAME
from train.export import export
from train.loop import Trainer
from train.run import train
from train.tasks import load_task
from train.verify import VerifySettings, verify


@pytest.fixture(scope="module")
def recipe(make_signs_recipe):
    return make_signs_recipe(optimizer__precision="bfloat16")


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bfloat16") / "run"
    train(recipe, folder)
    return folder


def trainer_of(recipe):
    task = load_task(recipe.task)
    return Trainer(recipe, task, task.load(None))


def test_encoder_and_head_round_in_training_and_not_in_evaluation(signs_recipe, recipe):
    """Both trainers start from the same weights."""
    exact, rounded = trainer_of(signs_recipe), trainer_of(recipe)
    _, batch = next(iter(exact.batches.of(1)))
    for training in (True, False):
        tokens = [trainer.model.train(training).encode(*batch.inputs) for trainer in (exact, rounded)]
        logits = [trainer.model.head(tokens[0]) for trainer in (exact, rounded)]
        for left, right in (tokens, logits):
            assert left.dtype == right.dtype == torch.float32
            assert torch.equal(left, right) != training
            # bfloat16 keeps 8 bits: products of a few layers of values about 1 are off by less than 2^-4.
            assert (left - right).abs().max() < 2.0**-4


def test_all_that_is_digital_stays_in_float32(recipe, monkeypatch):
    seen = []
    send = loop.send

    def watch(*arguments, **settings):
        sent = send(*arguments, **settings)
        parts = [sent.tokens, sent.bits]
        parts += [
            value for part in (sent.soft, sent.hard, sent.soft_heard, sent.hard_heard, sent.answer) for value in part
        ]
        seen.extend(value.dtype for value in parts)
        return sent

    monkeypatch.setattr(loop, "send", watch)
    trainer = trainer_of(recipe)
    trainer.upkeep.start()
    trainer._train_link(loop.plan(recipe.schedule, 4))
    assert set(seen) == {torch.float32, torch.int64}
    state = [*trainer.model.state_dict().values(), *(parameter.grad for parameter in trainer.model.parameters())]
    assert not {value.dtype for value in state} & {torch.bfloat16, torch.float16}


def test_a_run_in_bfloat16_is_resumed_bit_for_bit(recipe, run, tmp_path, same_tensors, train_until):
    train_until(3, recipe, tmp_path)
    train(recipe, tmp_path)
    assert same_tensors(load_file(tmp_path / "last" / FILE_NAME), load_file(run / "last" / FILE_NAME))


def test_the_bundle_of_a_run_in_bfloat16_makes_the_checkpoints_decisions(recipe, run, tmp_path):
    """Argmax over float32 in both: nothing that was rounded in training can tip a tie."""
    export(run, tmp_path / "bundle")
    split = load_task(recipe.task).load(None).validation
    settings = VerifySettings(snr_db=(0.0, 10.0), margin=0.05, max_draws=3)
    found = verify(load_bundle(tmp_path / "bundle"), run, split.inputs, split.labels, settings)
    assert found.manifest.findings == found.transmitter.findings == found.receiver.findings == ()
