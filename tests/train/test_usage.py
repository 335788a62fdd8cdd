"""Usage of a codebook batch by batch and codeword by codeword, in training and evaluation alike."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.checkpoint import load
from train.evaluate import evaluate
from train.record import read_metrics
from train.run import train
from train.tasks import Split, load_task
from train.usage import BatchMonitor, BatchUsage, CodeCounts, Spread, by_rank, carriers, shuffled, side_by_side


@pytest.fixture
def records(signs_run):
    return read_metrics(signs_run)


def test_batches_by_hand():
    """Three batches of two rows of two tokens: one codeword, four, and two; then one row, which is no batch."""
    monitor = BatchMonitor(8, 2)
    for batch in ([[5, 5], [5, 5]], [[0, 1], [2, 3]], [[6, 7], [7, 6]], [[1, 2]]):
        monitor.add(torch.tensor(batch))
    found = monitor.result()
    assert (found.rows, found.batches, found.reachable) == (2, 3, 4)
    assert (found.active_codes.least, found.active_codes.mean, found.active_codes.greatest) == (1, 7 / 3, 4)
    spread = (found.perplexity.least, found.perplexity.mean, found.perplexity.greatest)
    assert spread == pytest.approx((1.0, 7 / 3, 4.0))


def test_a_larger_batch_counts_by_its_first_rows():
    monitor = BatchMonitor(8, 2)
    monitor.add(torch.tensor([[0], [0], [1], [2]]))
    assert monitor.result() == BatchUsage(2, 1, 2, Spread(1.0, 1.0, 1.0), Spread(1.0, 1.0, 1.0))


def test_what_a_batch_can_reach_is_the_codebook_or_its_tokens():
    for codewords, rows, tokens, reachable in ((512, 32, 1, 32), (512, 32, 9, 288), (8, 32, 9, 8)):
        monitor = BatchMonitor(codewords, rows)
        monitor.add(torch.zeros(rows, tokens, dtype=torch.int64))
        assert monitor.result().reachable == reachable


def test_no_batch_has_no_usage():
    monitor = BatchMonitor(8, 4)
    monitor.add(torch.zeros(3, 1, dtype=torch.int64))
    assert monitor.result() is None


def test_even_usage_looks_the_same_in_a_large_set_as_in_a_small_one():
    """2,000 and 200 rows of one of 512 codewords: the perplexities of the sets differ, those of their batches do not."""
    generator = torch.Generator().manual_seed(4)
    means, whole = [], []
    for rows in (2000, 200):
        indices = torch.randint(512, (rows, 1), generator=generator)
        monitor = BatchMonitor(512, 20)
        for batch in shuffled(indices, 20, seed=1):
            monitor.add(batch)
        means.append(monitor.result().perplexity.mean)
        whole.append(len(indices.unique()))
    assert whole[1] < 0.5 * whole[0]
    # Of 20 tokens some 0.4 meet another's codeword, each costing a factor of 4 ** (1 / 20): a deviation below 0.9 a batch.
    assert abs(means[0] - means[1]) < 5 * 0.9 / math.sqrt(10)


def test_shuffled_batches_hold_each_row_once_and_tell_nothing_of_the_order_of_the_set():
    indices = torch.arange(8).repeat_interleave(16)[:, None]  # sorted: 16 rows of each codeword
    batches = list(shuffled(indices, 30, seed=3))
    assert [len(batch) for batch in batches] == [30, 30, 30, 30, 8]
    assert sorted(torch.cat(batches).flatten().tolist()) == indices.flatten().tolist()
    assert all(len(batch.unique()) > 4 for batch in batches[:4])
    again = list(shuffled(indices, 30, seed=3))
    assert all(map(torch.equal, batches, again))
    assert not all(map(torch.equal, batches, shuffled(indices, 30, seed=4)))


def test_ranks_and_carriers_of_counts_by_hand():
    assert by_rank((1, 6, 0, 3)).tolist() == [0.6, 0.3, 0.1, 0.0]
    assert [carriers((1, 6, 0, 3), share) for share in (0.5, 0.6, 0.61, 0.9, 1.0)] == [1, 1, 2, 2, 3]
    assert by_rank((0, 0)).tolist() == [0.0, 0.0]


def test_codebooks_of_either_side_stand_beside_each_other():
    found = side_by_side({4: (1, 0, 2, 3)}, {2: (5, 6), 4: (0, 0, 1, 0)})
    assert list(found) == ["2", "4"]
    assert found["2"] == CodeCounts((0, 0), (5, 6))
    assert found["4"] == CodeCounts((1, 0, 2, 3), (0, 0, 1, 0))


def test_training_and_evaluation_record_batches_of_as_many_rows(records):
    assert all(record.train_collapse is None for record in records[:2])
    for record in records[2:]:
        train, validation = record.train_collapse.batches, record.validation_collapse.batches
        assert (train.rows, train.batches, train.reachable) == (32, 6, 4)  # of 200 rows
        assert (validation.rows, validation.batches, validation.reachable) == (32, 8, 4)  # of 270
        for metrics in (record.train_collapse, record.validation_collapse):
            spread, active = metrics.batches.perplexity, metrics.batches.active_codes
            assert 1.0 <= spread.least <= spread.mean <= spread.greatest <= 4.0 + 1e-9
            assert 1 <= active.least <= active.mean <= active.greatest <= 4
            # Entropy is concave: that of the whole is at least the batches' mean, but for the last batch's rows.
            assert math.log(metrics.perplexity) > np.log(spread.least)


def test_a_batch_as_large_as_the_training_set_is_cut_to_what_both_have(make_signs_recipe, tmp_path):
    train(make_signs_recipe(optimizer__batch_size=512), tmp_path)
    record = read_metrics(tmp_path)[-1]
    for metrics in (record.train_collapse, record.validation_collapse):
        assert (metrics.batches.rows, metrics.batches.batches) == (200, 1)


def test_counts_of_codewords_are_those_behind_the_perplexity(records):
    for record in records[2:]:
        (counts,) = record.code_counts.values()
        assert list(record.code_counts) == ["4"]
        assert (sum(counts.training), sum(counts.validation)) == (200 * 3, 270 * 3 * 2 * 2)
        for sent, metrics in (
            (counts.training, record.train_collapse),
            (counts.validation, record.validation_collapse),
        ):
            shares = np.array([count for count in sent if count]) / sum(sent)
            assert math.exp(-float(shares @ np.log(shares))) == pytest.approx(metrics.perplexity, rel=1e-9)


def test_a_sorted_validation_set_has_the_batches_of_a_shuffled_one(signs_run):
    """Sorted by class, consecutive rows send the codewords of one class."""
    found, model = load(signs_run / "last")
    task = load_task("signs")
    split = task.load(None).validation
    order = np.argsort(split.labels, kind="stable")
    by_class = Split({name: value[order] for name, value in split.inputs.items()}, split.labels[order])
    usage = [
        evaluate(
            model, task, part, found.recipe.channel, temperature=found.vq_temp, seed=3, batch_rows=32
        ).collapse.batches
        for part in (split, by_class)
    ]
    consecutive = BatchMonitor(4, 32)
    with torch.no_grad():
        tokens = model.encode(*(torch.from_numpy(by_class.inputs[spec.name]) for spec in task.inputs))
    for batch in model.quantizer.hard(tokens).split(32):
        consecutive.add(batch)
    assert abs(usage[0].perplexity.mean - usage[1].perplexity.mean) < 0.15
    assert consecutive.result().perplexity.mean < usage[1].perplexity.mean - 0.3


def test_an_evaluation_that_is_not_asked_measures_no_batches(signs_run):
    found, model = load(signs_run / "last")
    task = load_task("signs")
    split = task.load(None).validation
    assert evaluate(model, task, split, found.recipe.channel, temperature=0.7, seed=3).collapse.batches is None


def test_several_modes_have_a_histogram_each_and_no_batches(routed_run):
    record = read_metrics(routed_run)[-1]
    assert record.train_collapse.batches is record.validation_collapse.batches is None
    assert list(record.code_counts) == ["4", "8"]
    for size, counts in record.code_counts.items():
        assert len(counts.training) == len(counts.validation) == int(size)
    assert "Batch:" not in record.text()
    assert "Ranks: of 8 codewords" in record.text()


def test_the_text_shows_training_and_evaluation_side_by_side(records):
    record = records[3]
    train, validation = record.train_collapse, record.validation_collapse
    text = record.text()
    assert (
        f"  Codes: used={train.codes_used:.0%}/{validation.codes_used:.0%} "
        f"perplexity={train.perplexity:.1f}/{validation.perplexity:.1f} restarted=" in text
    )
    assert (
        f"  Batch: of 32 rows, at most 4 codes: perplexity={train.batches.perplexity.text()}/"
        f"{validation.batches.perplexity.text()} active codes={train.batches.active_codes.text()}/"
        f"{validation.batches.active_codes.text()}\n" in text
    )
    counts = CodeCounts((97, 1, 1, 1), (50, 30, 15, 5))
    assert "  Ranks: of 4 codewords, half of the tokens are in 1/1, nine tenths in 1/3\n" in (
        record.model_copy(update={"code_counts": {"4": counts}}).text()
    )


def test_a_record_of_an_older_version_has_neither_and_is_shown_without(records):
    record = records[3]
    older = record.model_copy(
        update={
            "code_counts": {},
            "train_collapse": replace(record.train_collapse, batches=None),
            "validation_collapse": replace(record.validation_collapse, batches=None),
        }
    )
    assert "Batch:" not in older.text()
    assert "Ranks:" not in older.text()
    assert "  Codes: used=" in older.text()


def test_tensorboard_holds_the_batches_and_the_histogram_of_either_side(signs_run, records):
    events = EventAccumulator(str(signs_run / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    linked = records[2:]
    for side in ("train", "validation"):
        for figure in ("perplexity", "active_codes"):
            for part in ("mean", "least", "greatest"):
                found = [event.value for event in events.Scalars(f"{side}_collapse/batches/{figure}/{part}")]
                metrics = [getattr(record, f"{side}_collapse").batches for record in linked]
                assert found == pytest.approx([getattr(getattr(usage, figure), part) for usage in metrics], rel=1e-6)
    for side in ("training", "validation"):
        found = events.Histograms(f"codes/4/{side}")
        assert [event.step for event in found] == [3, 4, 5]
        for event, record in zip(found, linked, strict=True):
            counts = getattr(record.code_counts["4"], side)
            by_place = dict(zip(event.histogram_value.bucket_limit, event.histogram_value.bucket, strict=True))
            assert [by_place.get(place + 0.5, 0.0) for place in range(4)] == list(counts)


def test_512_codewords_cost_a_few_kilobytes_a_record(records):
    generator = np.random.default_rng(2)
    counts = CodeCounts(*(tuple(generator.integers(0, 100_000, 512).tolist()) for _ in range(2)))
    lines = [record.model_dump_json() for record in (records[3], records[3].model_copy(update={"code_counts": {}}))]
    wide = records[3].model_copy(update={"code_counts": {"512": counts}}).model_dump_json()
    assert len(wide) - len(lines[1]) < 7000
    assert len(lines[0]) - len(lines[1]) < 100
