import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from link.errors import ResultsError
from train.record import METRICS_NAME, EpochRecord, Recorder, read_metrics

NEW = (
    "loss_shares",
    "validation_task_soft",
    "validation_task_hard",
    "overfitting",
    "soft_hard_gap",
    "token_drift",
    "validation_samples",
    "chance",
)


@pytest.fixture
def records(signs_run):
    return read_metrics(signs_run)


def test_a_record_survives_its_line_to_the_last_bit(records):
    for record in records:
        assert EpochRecord.model_validate_json(record.model_dump_json()) == record


def test_a_last_line_that_was_cut_short_is_passed_over(records, tmp_path):
    lines = [record.model_dump_json() for record in records]
    (tmp_path / METRICS_NAME).write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    assert read_metrics(tmp_path) == records[:3]


def test_a_broken_line_before_the_last_is_refused_by_its_number(records, tmp_path):
    lines = [record.model_dump_json() for record in records]
    (tmp_path / METRICS_NAME).write_text("\n".join([lines[0], lines[1][:40], lines[2]]) + "\n")
    with pytest.raises(ResultsError, match=r"metrics\.jsonl: line 2 of 3 is no epoch of hardpath: "):
        read_metrics(tmp_path)


def test_metrics_that_are_no_text_are_refused(tmp_path):
    (tmp_path / METRICS_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultsError, match=r"metrics\.jsonl cannot be read"):
        read_metrics(tmp_path)


def test_lines_of_an_older_version_are_read_and_say_that_they_do_not_know(records, tmp_path):
    values = json.loads(records[3].model_dump_json())
    for name in NEW:
        del values[name]
    del values["code_counts"]
    for name in ("train_collapse", "validation_collapse"):
        del values[name]["same_codes"]
        del values[name]["batches"]
    (tmp_path / METRICS_NAME).write_text(json.dumps(values) + "\n")
    (found,) = read_metrics(tmp_path)
    assert all(getattr(found, name) is None for name in NEW)
    assert found.validation_collapse.same_codes is found.validation_collapse.batches is None
    assert found.code_counts == {}
    assert found.hard_mean == records[3].hard_mean
    assert "Share:" not in found.text()
    assert "Drift:" not in found.text()


def test_losses_of_a_diverged_run_are_read_again(records, tmp_path):
    """Written as null they would cut the run off where it is most worth reading."""
    record = records[3].model_copy(update={"losses": {"loss": math.nan, "task": math.inf}})
    recorder = Recorder(tmp_path, after=0)
    recorder.write(record)
    recorder.write(records[4])
    recorder.close()
    found, after = read_metrics(tmp_path)
    assert math.isnan(found.losses["loss"])
    assert found.losses["task"] == math.inf
    assert after == records[4]


def test_what_a_run_records_fits_together(records):
    for record in records:
        assert sum(record.loss_shares.values()) == pytest.approx(1.0)
        assert record.validation_samples == 270
        assert 0.2 < record.chance < 0.5
    for record in records[2:]:
        assert record.soft_hard_gap == pytest.approx(100.0 * (record.soft_mean - record.hard_mean))
        validation = record.validation_task_hard if record.hard_forward else record.validation_task_soft
        assert record.overfitting == pytest.approx(validation / record.losses["task"])
        assert 0.0 < record.token_drift.mean_shift <= record.token_drift.frechet < 0.5
    assert records[2].overfitting != pytest.approx(records[2].validation_task_hard / records[2].losses["task"])


def test_the_text_of_an_epoch_holds_the_shares_the_gap_and_the_drift(records):
    record = records[3]
    text = record.text()
    assert f"  Share: task={record.loss_shares['task']:.0%} " in text
    assert f"val/train={record.overfitting:.2f} | gap={record.soft_hard_gap:+.2f} points" in text
    assert f"tokens={record.token_drift.frechet:.3f}" in text


def test_a_folder_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


def test_epochs_after_the_last_checkpoint_are_dropped(records, tmp_path):
    (tmp_path / METRICS_NAME).write_text("".join(record.model_dump_json() + "\n" for record in records))
    recorder = Recorder(tmp_path, after=2)
    recorder.write(records[2])
    recorder.close()
    assert read_metrics(tmp_path) == records[:3]


def test_a_run_from_the_start_keeps_nothing(records, tmp_path):
    (tmp_path / METRICS_NAME).write_text(records[0].model_dump_json() + "\n")
    Recorder(tmp_path, after=0).close()
    assert read_metrics(tmp_path) == []


def test_tensorboard_holds_losses_accuracies_and_what_tells_a_collapse(signs_run, records):
    events = EventAccumulator(str(Path(signs_run) / "tensorboard"))
    events.Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    linked = [record for record in records if record.validation_collapse is not None]
    expected = {
        "losses/commitment": [record.losses["commitment"] for record in linked],
        "hard_accuracy/10": [record.hard_accuracy["10"] for record in linked],
        "validation_collapse/vq_entropy": [record.validation_collapse.vq_entropy for record in linked],
        "train_collapse/h_assign": [record.train_collapse.h_assign for record in linked],
        "train_collapse/llr_ratio": [record.train_collapse.llr_ratio for record in linked],
    }
    for tag, values in expected.items():
        assert [step for step, _ in found[tag]] == [3, 4, 5]
        assert [value for _, value in found[tag]] == pytest.approx(values, rel=1e-6), tag


def test_the_text_of_an_epoch_over_the_link_holds_both_paths_and_both_entropies(records):
    record = records[3]
    text = record.text()
    assert text.startswith("[Epoch 4] Phase=ALIGNMENT | vq_T=0.700 sym_T=1.000 | hard_fwd=True\n")
    train, validation = record.train_collapse, record.validation_collapse
    assert f"hard={record.hard_mean:.4f} soft={record.soft_mean:.4f}" in text
    assert f"VQ_ent: {train.vq_entropy:.3f}/{validation.vq_entropy:.3f}" in text
    assert f"bits={record.bits:g} syms={record.symbols:g}" in text


def test_the_text_of_a_warm_up_epoch_says_that_there_is_no_link(records):
    text = records[0].text()
    assert "Phase=WARMUP" in text
    assert f"Val:   acc={records[0].validation_no_link:.4f} (no link)" in text
    assert "hard=" not in text


def test_alarms_and_the_best_epoch_stand_in_the_text(records):
    record = records[3].model_copy(update={"alarms": ["something is wrong"], "is_best": True})
    assert "  ALARM: something is wrong\n  -> best so far (epoch=4, " in record.text()
