"""A run is a function of its recipe: interrupted or not, twice or once, whatever the global generators say."""

import json
import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from link.errors import CheckpointError
from link.randomness import permutation
from train import loop
from train.checkpoint import FILE_NAME, read
from train.loop import Trainer
from train.record import METRICS_NAME, read_metrics
from train.run import train
from train.schedule import Phase
from train.tasks import load_task
from train.upkeep import Upkeep


def run_until(recipe, folder, epoch):
    """Train, and be interrupted as soon as that epoch is finished."""

    def stop(record):
        if record.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, on_epoch=stop)
    assert read(folder / "last").epoch == epoch


def tensors_of(folder):
    return {name: load_file(folder / name / FILE_NAME) for name in ("best", "last")}


def trainer_of(recipe):
    task = load_task(recipe.task)
    return Trainer(recipe, task, task.load(None))


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_an_interrupted_run_goes_on_bit_for_bit(signs_recipe, signs_run, tmp_path, same_tensors, epoch):
    """In warm-up, before the codebook starts, while learning, and where alignment begins."""
    run_until(signs_recipe, tmp_path, epoch)
    train(signs_recipe, tmp_path)
    expected = tensors_of(signs_run)
    for name, tensors in tensors_of(tmp_path).items():
        assert same_tensors(tensors, expected[name]), name
        assert read(tmp_path / name) == read(signs_run / name)
    assert (tmp_path / METRICS_NAME).read_text() == (signs_run / METRICS_NAME).read_text()


def test_a_run_interrupted_inside_an_epoch_repeats_that_epoch(
    signs_recipe, signs_run, tmp_path, same_tensors, monkeypatch
):
    """After best and metrics were written and before last: the epoch is run again, and nothing counts twice."""
    save = loop.checkpoints.save

    def crash_at_last(folder, checkpoint, *arguments):
        if checkpoint.epoch == 4 and folder.name == "last":
            raise KeyboardInterrupt
        save(folder, checkpoint, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoints, "save", crash_at_last)
        with pytest.raises(KeyboardInterrupt):
            train(signs_recipe, tmp_path)
    assert [record.epoch for record in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert read(tmp_path / "last").epoch == 3
    train(signs_recipe, tmp_path)
    expected = tensors_of(signs_run)
    assert all(same_tensors(tensors, expected[name]) for name, tensors in tensors_of(tmp_path).items())
    assert (tmp_path / METRICS_NAME).read_text() == (signs_run / METRICS_NAME).read_text()


def test_training_twice_gives_the_same_tensors_whatever_the_global_generators_say(
    signs_recipe, signs_run, tmp_path, same_tensors
):
    torch.rand(17)
    train(signs_recipe, tmp_path)
    expected = tensors_of(signs_run)
    assert all(same_tensors(tensors, expected[name]) for name, tensors in tensors_of(tmp_path).items())


def test_another_seed_gives_other_tensors(make_signs_recipe, signs_run, tmp_path):
    train(make_signs_recipe(seed=4), tmp_path)
    ours, theirs = tensors_of(tmp_path)["last"], tensors_of(signs_run)["last"]
    assert not torch.equal(ours["model.head.1.weight"], theirs["model.head.1.weight"])


def test_training_leaves_the_global_generators_alone(signs_recipe, tmp_path):
    def states():
        return [random.getstate(), pickle.dumps(np.random.get_state()), torch.random.get_rng_state().tolist()]  # noqa: NPY002

    torch.rand(5)  # off the states that a run before this one may have left
    before = states()
    train(signs_recipe, tmp_path)
    assert states() == before


def test_a_finished_run_is_left_as_it_is(signs_recipe, signs_run):
    before = {file: file.read_bytes() for file in signs_run.rglob("*.safetensors")}
    metrics = (signs_run / METRICS_NAME).read_text()
    epochs = []
    summary = train(signs_recipe, signs_run, on_epoch=epochs.append)
    assert epochs == []
    assert summary.last.epoch == 5
    assert {file: file.read_bytes() for file in signs_run.rglob("*.safetensors")} == before
    assert (signs_run / METRICS_NAME).read_text() == metrics


def test_a_folder_with_a_run_of_another_recipe_is_refused_by_the_key(make_signs_recipe, signs_run):
    before = (signs_run / METRICS_NAME).read_text()
    with pytest.raises(CheckpointError) as caught:
        train(make_signs_recipe(loss__lambda_vq=0.5), signs_run)
    assert "holds a run of another recipe (loss.lambda_vq: 0.06 there, 0.5 now); name another folder" in str(
        caught.value
    )
    assert (signs_run / METRICS_NAME).read_text() == before


def test_a_last_checkpoint_that_was_cut_short_is_refused(signs_recipe, tmp_path):
    run_until(signs_recipe, tmp_path, 1)
    file = tmp_path / "last" / FILE_NAME
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="is cut short"):
        train(signs_recipe, tmp_path)


@pytest.mark.parametrize(
    ("scores", "improved"),
    [
        ([0.1, 0.5, 0.9, 0.4], [3, 4, 5]),
        ([0.5, 0.5, 0.7, 0.7], [3, 4, 5, 6]),
        ([0.9, 0.3, 0.2, 0.1], [3, 4]),  # epoch 3 learns: however good, it is not compared with what was aligned
        ([0.6, 0.6, 0.6, 0.6], [3, 4, 5, 6]),
    ],
)
def test_best_is_the_aligned_epoch_of_highest_hard_accuracy_and_the_latest_on_ties(
    make_signs_recipe, tmp_path, monkeypatch, scores, improved
):
    """The soft path has no say: here it always says the opposite."""
    evaluate = loop.evaluate
    remaining = iter(scores)

    def told(model, *arguments, **settings):
        found = evaluate(model, *arguments, **settings)
        score = next(remaining)
        return found._replace(hard={0.0: score, 10.0: score}, soft={0.0: 1.0 - score, 10.0: 1.0 - score})

    monkeypatch.setattr(loop, "evaluate", told)
    summary = train(make_signs_recipe(schedule__epochs=6), tmp_path)
    assert summary.best.epoch == summary.last.best_epoch == improved[-1]
    assert summary.best.mean_hard_accuracy == summary.last.best_accuracy == max(scores[1:])
    assert [record.epoch for record in read_metrics(tmp_path) if record.is_best] == improved


def test_a_run_that_aligns_nothing_takes_its_best_from_all_epochs_over_the_link(
    make_signs_recipe, tmp_path, monkeypatch
):
    remaining = iter([0.9, 0.4, 0.3])
    evaluate = loop.evaluate
    monkeypatch.setattr(
        loop, "evaluate", lambda *given, **settings: evaluate(*given, **settings)._replace(hard={0.0: next(remaining)})
    )
    schedule = {"kind": "anneal", "epochs": 5, "warmup_epochs": 2}
    assert train(make_signs_recipe(schedule=schedule), tmp_path).best.epoch == 3


def test_best_holds_the_tensors_of_its_epoch(make_signs_recipe, tmp_path, monkeypatch):
    kept = {}

    def told(model, *arguments, **settings):
        kept[len(kept) + 3] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found = evaluate(model, *arguments, **settings)
        return found._replace(hard={0.0: {3: 0.5, 4: 0.9, 5: 0.4}[len(kept) + 2]})

    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", told)
    train(make_signs_recipe(), tmp_path)
    saved = tensors_of(tmp_path)
    for name, epoch in (("best", 4), ("last", 5)):
        model = {key.removeprefix("model."): value for key, value in saved[name].items() if key.startswith("model.")}
        assert model.keys() == kept[epoch].keys()
        assert all(torch.equal(model[key], kept[epoch][key]) for key in model)
    assert not torch.equal(kept[4]["quantizer.codebook"], kept[5]["quantizer.codebook"])


def test_metrics_hold_what_tells_a_collapse(signs_run):
    lines = [json.loads(line) for line in (signs_run / METRICS_NAME).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["phase"] for line in lines] == ["WARMUP", "WARMUP", "LEARNING", "ALIGNMENT", "ALIGNMENT"]
    assert [line["hard_forward"] for line in lines] == [False, False, False, True, True]
    assert [line["vq_temp"] for line in lines] == [1.0, 1.0, 1.0, 0.7, 0.7]
    for line in lines[:2]:
        assert line["train_collapse"] is line["validation_collapse"] is line["hard_mean"] is None
        assert 0.0 <= line["validation_no_link"] <= 1.0
    for line in lines[2:]:
        assert line["losses"].keys() == {"loss", "task", "commitment", "assignment", "usage", "consistency", "energy"}
        assert line["hard_accuracy"].keys() == line["soft_accuracy"].keys() == {"0", "10"}
        assert (line["bits"], line["symbols"]) == (6, 3)
        for part in ("train_collapse", "validation_collapse"):
            assert line[part].keys() == {
                "codewords",
                "order",
                "vq_entropy",
                "h_assign",
                "symbol_entropy",
                "mean_abs_llr",
                "llr_ratio",
                "codes_used",
                "perplexity",
                "consistency",
                "es_db",
                "same_codes",
                "batches",
            }
            assert 0.0 <= line[part]["vq_entropy"] <= np.log(4) + 1e-6
            assert 0.0 <= line[part]["symbol_entropy"] <= np.log(4) + 1e-6
            assert 0.0 < line[part]["h_assign"] < np.log(4)


def test_the_loss_is_the_weighted_sum_of_its_terms(signs_run, signs_recipe):
    weights = signs_recipe.loss
    for record in read_metrics(signs_run)[2:]:
        terms = record.losses
        expected = (
            terms["task"]
            + weights.lambda_vq * terms["commitment"]
            + weights.lambda_assignment * terms["assignment"]
            - weights.lambda_entropy * terms["usage"]
            + weights.lambda_consistency * terms["consistency"]
            + weights.lambda_energy * terms["energy"]
        )
        assert terms["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert (terms["consistency"] > 0.0) == (record.phase is Phase.ALIGNMENT)


def test_a_weight_that_grows_stands_at_its_share_of_each_epoch_over_the_link(make_signs_recipe, tmp_path):
    weights = {"lambda_vq": 0.4, "warmup": {"lambda_vq": 4, "lambda_energy": 2}}
    recipe = make_signs_recipe(loss=weights, schedule__epochs=7)
    train(recipe, tmp_path)
    for record, vq, energy in zip(
        read_metrics(tmp_path)[2:], (0.1, 0.2, 0.3, 0.4, 0.4), (0.5, 1, 1, 1, 1), strict=True
    ):
        terms = record.losses
        expected = terms["task"] + vq * terms["commitment"] + 0.01 * terms["assignment"] - 0.2 * terms["usage"]
        expected += 0.5 * terms["consistency"] + energy * terms["energy"]
        assert terms["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_run_with_every_option_goes_on_bit_for_bit(make_signs_recipe, tmp_path, same_tensors):
    options = dict.fromkeys(("lambda_consistency_vq", "lambda_consistency_symbols", "lambda_vec", "lambda_kl"), 0.1)
    recipe = make_signs_recipe(
        loss=options | {"warmup": dict.fromkeys(options, 3)},
        schedule__hardening_epochs=2,
        schedule__symbol_temp="tied",
        schedule__patience=9,
    )
    train(recipe, tmp_path / "whole")
    expected = tensors_of(tmp_path / "whole")
    for epoch in (3, 4):
        folder = tmp_path / str(epoch)
        run_until(recipe, folder, epoch)
        train(recipe, folder)
        assert all(same_tensors(tensors, expected[name]) for name, tensors in tensors_of(folder).items())
        assert (folder / METRICS_NAME).read_text() == (tmp_path / "whole" / METRICS_NAME).read_text()
    terms = read_metrics(tmp_path / "whole")[-1].losses
    assert {"consistency_vq", "consistency_symbols", "vec", "kl"} <= terms.keys()
    assert all(terms[name] > 0.0 for name in ("consistency_vq", "consistency_symbols", "vec", "kl"))


def test_the_temperature_of_the_symbols_is_recorded_and_used(make_signs_recipe, tmp_path):
    off, tied = make_signs_recipe(), make_signs_recipe(schedule__symbol_temp="tied")
    train(off, tmp_path / "off")
    train(tied, tmp_path / "tied")
    assert [record.symbol_temp for record in read_metrics(tmp_path / "off")] == [1.0] * 5
    assert [record.symbol_temp for record in read_metrics(tmp_path / "tied")] == [1.0, 1.0, 1.0, 0.7, 0.7]
    assert (read(tmp_path / "off" / "last").symbol_temp, read(tmp_path / "tied" / "last").symbol_temp) == (1.0, 0.7)
    tensors = [load_file(tmp_path / name / "last" / FILE_NAME)["model.head.1.weight"] for name in ("off", "tied")]
    assert not torch.equal(*tensors)


def test_the_scale_is_the_same_in_every_schedule(make_signs_recipe):
    """It is set at temp_reference: a floor is then as soft as its number says, beside other floors."""
    scales = set()
    for schedule in ({"temp_freeze_floor": 0.9}, {"kind": "anneal"}, {"kind": "floor"}, {"kind": "freeze"}):
        values = {"epochs": 20, "warmup_epochs": 2, "alignment_start_epoch": 4, **schedule}
        trainer = trainer_of(make_signs_recipe(schedule=values))
        trainer.upkeep.start()
        scales.add(float(trainer.model.quantizer.scale))
    assert len(scales) == 1


def test_every_row_is_trained_on_once_an_epoch_in_an_order_of_its_own(signs_recipe):
    trainer = trainer_of(signs_recipe)
    orders = []
    for epoch in (1, 2):
        batches = list(trainer.batches.of(epoch))
        assert [step for step, _ in batches] == [(epoch - 1) * 7 + index for index in range(7)]
        assert [len(batch.labels) for _, batch in batches] == [32] * 6 + [8]
        labels = torch.cat([batch.labels for _, batch in batches])
        order = permutation(signs_recipe.seed, 200, epoch)
        assert np.array_equal(labels.numpy(), trainer.data.train.labels[order])
        orders.append(order)
    assert sorted(orders[0]) == list(range(200))
    assert not np.array_equal(*orders)


def test_snr_and_noise_belong_to_the_row_and_the_epoch(make_signs_recipe):
    """Another batch size hands out other batches; a row meets the same noise."""

    def by_row(batch_size, epoch):
        recipe = make_signs_recipe(optimizer__batch_size=batch_size)
        trainer = trainer_of(recipe)
        batches = [batch for _, batch in trainer.batches.of(epoch)]
        order = np.argsort(permutation(recipe.seed, 200, epoch))
        snr_db = np.concatenate([batch.snr_db for batch in batches])[order]
        normals = torch.cat([batch.normals for batch in batches])[order]
        return snr_db, normals, torch.cat([batch.inputs[0] for batch in batches])[order]

    for left, right in zip(by_row(32, 2), by_row(7, 2), strict=True):
        assert np.array_equal(left, right)
    assert not np.array_equal(by_row(32, 2)[0], by_row(32, 3)[0])
    snr_db = by_row(32, 2)[0]
    assert snr_db.min() >= -2.0
    assert snr_db.max() <= 20.0
    # 200 uniforms over 22 dB: their mean is within five deviations of 9.
    assert abs(snr_db.mean() - 9.0) < 5 * 22.0 / (12 * 200) ** 0.5


def test_the_codebook_starts_from_an_encoder_in_evaluation_mode(signs_recipe):
    """A resumed run builds its model anew, in training mode: the start must not depend on that."""
    trainer = trainer_of(signs_recipe)
    trainer.model.train()
    modes = []
    trainer.model.encoder.register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer.upkeep.start()
    assert modes == [False]


def test_the_codebook_starts_once_a_run_after_warm_up(signs_recipe, tmp_path, monkeypatch):
    started, finished = [], []
    start = Upkeep.start
    monkeypatch.setattr(Upkeep, "start", lambda self: started.append(1) or start(self))
    train(signs_recipe, tmp_path, on_epoch=lambda record: finished.append((record.epoch, len(started))))
    assert finished == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]


def test_the_learning_rate_falls_from_the_recipes_to_nearly_zero_over_all_steps(signs_recipe, tmp_path, monkeypatch):
    rates = []
    step = Trainer._step

    def record(self, *arguments):
        step(self, *arguments)
        rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(Trainer, "_step", record)
    train(signs_recipe, tmp_path)
    steps = 5 * 7
    assert rates == pytest.approx([0.01 * 0.5 * (1.0 + np.cos(np.pi * i / steps)) for i in range(steps)])


def test_scale_and_labels_stay_once_the_codebook_has_started(signs_recipe):
    trainer = trainer_of(signs_recipe)
    quantizer = trainer.model.quantizer
    trainer.upkeep.start()
    scale, labels, codebook = float(quantizer.scale), quantizer.labels.clone(), quantizer.codebook.clone()
    for epoch in (3, 4, 5):
        trainer._train_link(loop.plan(signs_recipe.schedule, epoch))
    assert float(quantizer.scale) == scale
    assert torch.equal(quantizer.labels, labels)
    assert not torch.equal(quantizer.codebook, codebook)


def test_warm_up_does_not_touch_the_codebook(signs_recipe, same_tensors):
    trainer = trainer_of(signs_recipe)
    before = {name: tensor.clone() for name, tensor in trainer.model.quantizer.state_dict().items()}
    record = trainer._warm_up(loop.plan(signs_recipe.schedule, 1))
    assert same_tensors(dict(trainer.model.quantizer.state_dict()), before)
    assert record.validation_no_link is not None


def test_codewords_restart_while_learning_and_not_in_alignment(make_signs_recipe):
    recipe = make_signs_recipe(quantizer__restart_threshold=1.0)
    trainer = trainer_of(recipe)
    trainer.upkeep.start()
    tokens = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    trainer.model.quantizer.ema_size.copy_(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    assert trainer.upkeep.restart(tokens, loop.plan(recipe.schedule, 4)) == 0
    assert trainer.upkeep.restart(tokens, loop.plan(recipe.schedule, 3)) == 3


def test_a_small_run_learns(digits_run):
    """Five epochs over the link: chance is 0.1."""
    last = read(digits_run / "last")
    assert last.hard_accuracy["18"] > 0.8
    assert last.hard_accuracy["0"] > 0.5
    assert abs(last.mean_hard_accuracy - sum(last.soft_accuracy.values()) / 4) < 0.05


def test_the_summary_says_best_and_last(signs_recipe, signs_run):
    text = train(signs_recipe, signs_run).text(signs_run)
    assert "Training finished!" in text
    assert f"Last: epoch 5, ALIGNMENT, vq_T=0.700, hard {read(signs_run / 'last').mean_hard_accuracy:.4f}" in text
    assert f"{signs_run / 'best'}" in text


def test_a_checkpoint_without_the_optimisers_state_is_not_resumed(signs_recipe, signs_run, tmp_path):
    (tmp_path / "last").mkdir()
    shutil.copy(signs_run / "best" / "model.safetensors", tmp_path / "last")
    with pytest.raises(CheckpointError, match="lacks the optimiser's state"):
        train(signs_recipe, tmp_path)
