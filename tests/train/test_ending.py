"""A run may end early: once soft and hard agree, or the task is learned no further. A resumed one ends there too."""

import math

import pytest
from safetensors.torch import load_file

from train import loop
from train.checkpoint import FILE_NAME, read
from train.ending import ending
from train.recipe import ScheduleRecipe
from train.record import METRICS_NAME, read_metrics
from train.run import train
from train.schedule import is_final

TWO_PHASE = ScheduleRecipe(epochs=12, warmup_epochs=2, alignment_start_epoch=6, hardening_epochs=2)
ANNEAL = ScheduleRecipe(kind="anneal", epochs=12, warmup_epochs=2)


@pytest.fixture(scope="module")
def make_records(signs_run):
    """Records of epochs 1, 2, ... with these task losses of the hard path on the validation set, else those of a run."""
    warm, linked = read_metrics(signs_run)[0], read_metrics(signs_run)[-1]

    def make(losses, *, consistency=0.5, accuracy=0.5, total=None):
        collapse = linked.validation_collapse.__class__(
            **vars(linked.validation_collapse) | {"consistency": consistency}
        )
        records = []
        for index, loss in enumerate(losses):
            changes = {"epoch": index + 1, "validation_task_hard": loss}
            if loss is not None:
                changes |= {"validation_collapse": collapse, "hard_mean": accuracy}
                changes |= {"losses": {"loss": 1.0 if total is None else total[index]}}
            records.append((warm if loss is None else linked).model_copy(update=changes))
        return records

    return make


def ends_at(schedule, records):
    """The first epoch after which the run ends, or None."""
    return next((count for count in range(1, len(records) + 1) if ending(schedule, records[:count])), None)


def test_the_last_phase_is_alignment_once_it_is_hard_or_learning_where_there_is_no_alignment():
    assert [epoch for epoch in range(1, 13) if is_final(TWO_PHASE, epoch)] == [7, 8, 9, 10, 11, 12]
    assert [epoch for epoch in range(1, 13) if is_final(ANNEAL, epoch)] == list(range(3, 13))


@pytest.mark.parametrize(("patience", "expected"), [(0, None), (1, 9), (2, 10), (3, None)])
def test_patience_counts_epochs_without_a_lower_task_loss(make_records, patience, expected):
    # In the last phase, from epoch 7 on, epoch 8 is lowest until epoch 11; as low as before is not lower.
    records = make_records([None, None, 0.1, 0.1, 0.1, 0.1, 0.5, 0.4, 0.45, 0.4, 0.39, 0.6])
    assert ends_at(TWO_PHASE.model_copy(update={"patience": patience}), records) == expected


def test_patience_looks_at_the_last_phase_alone(make_records):
    """Learning had a lower loss, four epochs before: it was of another path's training, and does not count."""
    losses = [None, None, 0.01, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]
    assert ends_at(TWO_PHASE.model_copy(update={"patience": 1}), make_records(losses)) is None
    assert ends_at(ANNEAL.model_copy(update={"patience": 2}), make_records(losses)) == 5


def test_the_total_loss_has_no_say_in_patience(make_records):
    impatient = ANNEAL.model_copy(update={"patience": 2})
    falling, rising = [1.0 / (1 + index) for index in range(12)], [1.0 + index for index in range(12)]
    warm = [None, None]
    assert ends_at(impatient, make_records(warm + falling[2:], total=rising)) is None
    assert ends_at(impatient, make_records(warm + rising[2:], total=falling)) == 5


def test_a_diverged_loss_is_no_improvement(make_records):
    losses = [None, None, 0.5, math.nan, math.nan, 0.1]
    assert ends_at(ANNEAL.model_copy(update={"patience": 2}), make_records(losses)) == 5


@pytest.mark.parametrize(
    ("consistency", "accuracy", "expected"),
    [(0.0099, 0.901, 7), (0.0101, 0.99, None), (0.001, 0.9, None), (0.01, 0.99, None)],
)
def test_early_stop_wants_agreement_and_accuracy_in_fully_hard_epochs(make_records, consistency, accuracy, expected):
    records = make_records([None, None, *10 * [0.1]], consistency=consistency, accuracy=accuracy)
    assert ends_at(TWO_PHASE.model_copy(update={"early_stop": True}), records) == expected
    assert ends_at(TWO_PHASE, records) is None


def test_the_reason_names_figures_and_bars(make_records):
    records = make_records([None, None, *10 * [0.1]], consistency=0.004, accuracy=0.95)
    early = ending(TWO_PHASE.model_copy(update={"early_stop": True}), records)
    assert early == "soft and hard agree: consistency 0.0040 is below 0.01 and hard accuracy 0.9500 above 0.9"
    late = ending(TWO_PHASE.model_copy(update={"patience": 5}), records)
    assert late == "no lower task loss on the validation set for 5 epochs: 0.1000 in epoch 7"


def tensors_of(folder):
    return {name: load_file(folder / name / FILE_NAME) for name in ("best", "last")}


def interrupted_then_resumed(recipe, folder, epoch):
    def stop(record):
        if record.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, on_epoch=stop)
    return train(recipe, folder)


def assert_same_run(one, other, same_tensors):
    expected = tensors_of(one)
    for name, tensors in tensors_of(other).items():
        assert same_tensors(tensors, expected[name]), name
        assert read(one / name) == read(other / name)
    assert (one / METRICS_NAME).read_text() == (other / METRICS_NAME).read_text()


def test_a_two_phase_run_ends_once_aligned_and_a_resumed_one_with_it(make_signs_recipe, tmp_path, same_tensors):
    """Bars that every epoch passes: the run ends with the first epoch that is fully hard."""
    recipe = make_signs_recipe(
        schedule__epochs=9,
        schedule__hardening_epochs=2,
        schedule__early_stop=True,
        schedule__early_stop_consistency=1e6,
        schedule__early_stop_accuracy=0.0,
    )
    summary = train(recipe, tmp_path / "whole")
    assert summary.last.epoch == 5
    assert summary.last.ended.startswith("soft and hard agree: ")
    assert "  Ended after epoch 5 of 9: soft and hard agree: " in summary.text(tmp_path / "whole")
    for epoch in (3, 4, 5):
        again = interrupted_then_resumed(recipe, tmp_path / str(epoch), epoch)
        assert again == summary
        assert_same_run(tmp_path / "whole", tmp_path / str(epoch), same_tensors)


def test_an_ended_run_is_left_as_it_is(make_signs_recipe, tmp_path):
    recipe = make_signs_recipe(
        schedule__epochs=7,
        schedule__early_stop=True,
        schedule__early_stop_consistency=1e6,
        schedule__early_stop_accuracy=0,
    )
    first = train(recipe, tmp_path)
    (tmp_path / METRICS_NAME).unlink()  # the checkpoint itself knows
    epochs = []
    assert train(recipe, tmp_path, on_epoch=epochs.append) == first
    assert epochs == []


def test_patience_survives_an_interruption(make_signs_recipe, tmp_path, same_tensors, monkeypatch):
    """The count goes on where it stood: the loss is lowest in epoch 4, and patience ends epoch 7, interrupted or not."""
    losses = {3: 0.5, 4: 0.3, 5: 0.31, 6: 0.3, 7: 0.4, 8: 0.1, 9: 0.1}
    evaluate = loop.evaluate

    def told(*arguments, temperature, **settings):
        epoch = 3 + round(math.log(temperature) / math.log(0.97))
        return evaluate(*arguments, temperature=temperature, **settings)._replace(hard_loss=losses[epoch])

    monkeypatch.setattr(loop, "evaluate", told)
    recipe = make_signs_recipe(schedule={"kind": "anneal", "epochs": 9, "warmup_epochs": 2, "patience": 3})
    summary = train(recipe, tmp_path / "whole")
    assert summary.last.epoch == 7
    assert summary.last.ended == "no lower task loss on the validation set for 3 epochs: 0.3000 in epoch 4"
    for epoch in (4, 6):
        interrupted_then_resumed(recipe, tmp_path / str(epoch), epoch)
        assert_same_run(tmp_path / "whole", tmp_path / str(epoch), same_tensors)


def test_a_run_that_reaches_its_last_epoch_did_not_end_early(make_signs_recipe, tmp_path):
    recipe = make_signs_recipe(
        schedule__epochs=4,
        schedule__early_stop=True,
        schedule__early_stop_consistency=1e6,
        schedule__early_stop_accuracy=0,
    )
    summary = train(recipe, tmp_path)
    assert (summary.last.epoch, summary.last.ended) == (4, None)
    assert "Ended" not in summary.text(tmp_path)
