from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.record import METRICS_NAME, EpochRecord, Recorder, read_metrics


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
    assert f"bits={record.bits} syms={record.symbols}" in text


def test_the_text_of_a_warm_up_epoch_says_that_there_is_no_link(records):
    text = records[0].text()
    assert "Phase=WARMUP" in text
    assert f"Val:   acc={records[0].validation_no_link:.4f} (no link)" in text
    assert "hard=" not in text


def test_alarms_and_the_best_epoch_stand_in_the_text(records):
    record = records[3].model_copy(update={"alarms": ["something is wrong"], "is_best": True})
    assert "  ALARM: something is wrong\n  -> best so far (epoch=4, " in record.text()
