"""A diagnosis names each defect by its rule, with numbers and remedies in order, and says nothing of a healthy run."""

import math
from dataclasses import replace

import pytest
import torch

import train.mode_codec
from link.errors import CheckpointError, ResultsError
from train.alarms import Symptom, alarms
from train.collapse import TokenDrift
from train.diagnosis import diagnose, read_run
from train.diagnosis_rules import RULES
from train.diagnosis_run import full_from
from train.latent import BottleneckRecord
from train.quantizer import Quantizer
from train.recipe_file import load_recipe, parse_recipe
from train.record import METRICS_NAME
from train.remedy import Change, Remedy
from train.run import train as train_recipe
from train.schedule import Phase
from train.usage import Spread


@pytest.fixture(scope="module")
def run(signs_run):
    return read_run(signs_run)


def changed(record, **values):
    """The epoch with fields of its own, or of its validation metrics, in place of those it has."""
    own = {name: value for name, value in values.items() if name in type(record).model_fields}
    metrics = {name: value for name, value in values.items() if name not in own}
    if metrics and record.validation_collapse is not None:
        own["validation_collapse"] = replace(record.validation_collapse, **metrics)
    return record.model_copy(update=own)


def last(run, **values):
    """The run with fields of its last epoch changed."""
    return replace(run, records=(*run.records[:-1], changed(run.records[-1], **values)))


def everywhere(run, **values):
    """The run with fields of every epoch over the link changed."""
    linked = [changed(record, **values) if record.hard_mean is not None else record for record in run.records]
    return replace(run, records=tuple(linked))


def with_recipe(run, **changes):
    values = run.recipe.model_dump()
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values[section] = values[section] | {name: value}
    return replace(run, recipe=parse_recipe(values, "the test's recipe"))


def longer(run, learning, alignment):
    """The run with so many epochs of each phase over the link, each a copy of the last of its phase."""
    warm = [record for record in run.records if record.phase is Phase.WARMUP]
    start = len(warm) + learning + 1
    epochs = [run.learning[-1]] * learning + [run.aligned[-1]] * alignment
    records = [record.model_copy(update={"epoch": i}) for i, record in enumerate([*warm, *epochs], start=1)]
    whole = replace(run, records=tuple(records))
    return with_recipe(whole, schedule__epochs=len(records), schedule__alignment_start_epoch=start)


def names(run, kind=None):
    return {finding.name for finding in diagnose("run", run).findings if kind in (None, finding.kind)}


def finding(run, name):
    return next(finding for finding in diagnose("run", run).findings if finding.name == name)


def with_consistency(run, *values):
    """Alignment of as many epochs, with those figures."""
    whole = longer(run, 1, len(values))
    aligned = [
        changed(record, consistency=value) for record, value in zip(whole.records[-len(values) :], values, strict=True)
    ]
    return replace(whole, records=(*whole.records[: -len(values)], *aligned))


def with_accuracy(run, learning, alignment):
    """One epoch of learning and one of alignment with those hard and soft accuracies."""
    whole = longer(run, 1, 1)
    (*warm, before, after) = whole.records
    return replace(
        whole,
        records=(
            *warm,
            changed(before, hard_mean=learning[0], soft_mean=learning[1]),
            changed(after, hard_mean=alignment[0], soft_mean=alignment[1]),
        ),
    )


def with_shares(run, *shares):
    """Two modes and a weight of their balance, and the last epoch's samples sent in these shares."""
    link = run.recipe.link
    modes = [{"tokens": tokens, "codewords": link.codewords, "order": link.order} for tokens in (link.tokens, 1)]
    values = run.recipe.model_dump()
    routed = values | {
        "link": {key: values["link"][key] for key in ("dim", "demapper", "llr_clip")} | {"modes": modes},
        "router": values["router"] | {"enabled": True},
        "loss": values["loss"] | {"lambda_lb": 0.1},
    }
    records = (*run.records[:-1], run.records[-1].model_copy(update={"mode_shares": shares}))
    return replace(run, recipe=parse_recipe(routed, "the test's recipe"), records=records)


def ignorant(run, epochs=12):
    """A run that after so many epochs of warm-up answers as it would without looking."""
    record = run.records[0]
    nothing = {
        "train_accuracy": record.chance,
        "validation_no_link": record.chance,
        "losses": {"loss": 1.4, "task": 1.4},
    }
    records = [record.model_copy(update=nothing | {"epoch": epoch}) for epoch in range(1, epochs + 1)]
    long = {"schedule": {"epochs": 20, "warmup_epochs": 15, "alignment_start_epoch": 18}}
    recipe = parse_recipe(run.recipe.model_dump() | long, "the test's recipe")
    return replace(run, recipe=recipe, records=tuple(records), best=None)


def narrow(run, **values):
    """The run behind a bottleneck, with figures of its last epoch changed from healthy ones."""
    healthy = {
        "kl_raw": 0.05,
        "kl_after": 0.03,
        "kl_nats": 0.2,
        "free_nats": 0.4,
        "penalty_reduction": 0.3,
        "kl_weight": 3.0,
        "teacher_weight": 0.3,
        "orthogonality": 0.1,
        "diversity": 0.1,
        "teacher": 0.2,
        "validation_kl_raw": 0.05,
        "validation_task_drawn": 0.3,
    }
    return last(with_recipe(run, bottleneck__enabled=True), bottleneck=BottleneckRecord(**(healthy | values)))


def published(run):
    """The run by the published figures, and healthy by those that are of larger codebooks."""
    whole = with_recipe(run, alarms__preset="published")
    records = [changed(record, vq_entropy=3.0, symbol_entropy=1.6, mean_abs_llr=5.0) for record in whole.records]
    return replace(whole, records=tuple(records))


def one_a_batch(training):
    """Training's metrics, as if each of its batches had used hardly any codeword of the epoch's four."""
    return replace(training, batches=replace(training.batches, perplexity=Spread(0.9, 0.9, 0.9)))


def one_code_a_batch(run):
    """Evaluation's batches in the last epoch, as if each had used one codeword."""
    return replace(run.records[-1].validation_collapse.batches, perplexity=Spread(1.06, 1.0, 1.1))


DEFECTS = {
    "not-finite": lambda run: last(run, losses={"loss": math.nan, "task": math.nan}),
    "not-learning": ignorant,
    "lost-at-the-link": lambda run: everywhere(run, hard_mean=0.33, soft_mean=0.33),
    "accuracy-collapse": lambda run: with_accuracy(run, (0.9071, 0.9071), (0.5206, 0.90)),
    "evaluation-collapse": lambda run: last(run, batches=one_code_a_batch(run), perplexity=1.06),
    "same-codes": lambda run: last(run, same_codes=1.0),
    "one-mode": lambda run: with_shares(run, 0.0, 1.0),
    "latent-collapse": lambda run: narrow(run, kl_nats=0.01),
    "latent-unheld": lambda run: narrow(run, kl_nats=4.0),
    "latent-free": lambda run: narrow(published(run), penalty_reduction=0.95),
    "teacher-silent": lambda run: narrow(run, teacher=0.0),
    "token-drift": lambda run: last(run, token_drift=TokenDrift(2.0, 2.5)),
    "code-entropy": lambda run: last(run, vq_entropy=0.3),
    "codes-unused": lambda run: last(run, codes_used=0.25),
    "codes-wander": lambda run: last(run, train_collapse=one_a_batch(run.records[-1].train_collapse)),
    "symbol-entropy": lambda run: last(run, symbol_entropy=0.3),
    "soft-above-hard": lambda run: everywhere(run, soft_mean=0.95, hard_mean=0.80),
    "phase-2-drop": lambda run: with_accuracy(run, (0.91, 0.91), (0.80, 0.80)),
    "consistency": lambda run: with_consistency(run, 0.2, 0.21, 0.2, 0.19, 0.2, 0.2),
    "too-soft": lambda run: last(run, h_assign=1.3),
    "hard-above-soft": lambda run: everywhere(run, soft_mean=0.80, hard_mean=0.95),
    "overfitting": lambda run: last(run, validation_task_hard=4.0, overfitting=8.0),
    "dominating-term": lambda run: last(run, loss_shares={"task": 0.2, "commitment": 0.8}),
    "energy": lambda run: last(run, es_db=1.5),
    "llr": lambda run: last(run, llr_ratio=4.0),
    "hard-already": lambda run: last(run, h_assign=0.05),
    "no-alignment": lambda run: with_recipe(run, schedule__alignment_start_epoch=6),
    "unfinished": lambda run: with_recipe(run, schedule__epochs=9),
}
MEASURED = {"evaluation-changes-state", "modes-differ", "surrogate-is-another", "not-reproduced", "gradient"}
"""Rules that need a probe; tests/train/test_probe.py and test_collapse_probe.py hold them."""
FOLLOW = {
    "not-learning": {"unfinished"},
    "accuracy-collapse": {"phase-2-drop", "soft-above-hard"},
    "phase-2-drop": {"accuracy-collapse"},
}
"""What a defect brings along: a fall in alignment is a fall from the best."""


def test_a_real_run_is_healthy(signs_run, run):
    found = diagnose(signs_run, run)
    assert found.findings == ()
    assert found.healthy
    text = found.text()
    assert "healthy: nothing is wrong, no collapse: best (epoch" in text
    assert f"hard {max(record.hard_mean for record in run.linked):.4f}" in text


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_called_by_its_name_and_by_no_other(run, name):
    subject = DEFECTS[name](run)
    assert names(subject) - FOLLOW.get(name, set()) == {name}
    assert diagnose("run", subject).healthy is (name in ("hard-already", "no-alignment", "unfinished"))


def test_every_rule_is_held_by_a_defect():
    assert {rule.name for rule in RULES} == set(DEFECTS) | MEASURED
    assert {symptom.value for symptom in Symptom} <= {rule.name for rule in RULES}


@pytest.mark.parametrize("name", DEFECTS)
def test_the_evidence_and_the_remedies_stand_in_the_text(run, name):
    subject = DEFECTS[name](run)
    found = finding(subject, name)
    text = diagnose("run", subject).text()
    assert found.evidence in text
    orders = [step.order for step in found.steps]
    assert orders[:1] in ([], ["first"])
    assert orders.count("first") <= 1
    assert len(orders) < 2 or orders[-1] == "last resort"
    assert all(order == "then" for order in orders[1:-1])
    for step in found.steps:
        assert step.text in text
        for setting in step.settings:
            assert f"--set {setting}" in text


def test_numbers_and_epochs_of_the_published_collapse(run):
    found = finding(DEFECTS["accuracy-collapse"](run), "accuracy-collapse")
    assert "hard 0.9071 in epoch 3" in found.evidence
    assert "0.5206 in epoch 4" in found.evidence
    assert "38.6 points lost" in found.evidence or "38.7 points lost" in found.evidence
    assert "the surrogate stopped matching the deployed path" in found.evidence
    together = with_accuracy(run, (0.9071, 0.9071), (0.5206, 0.53))
    assert "both paths fell together" in finding(together, "accuracy-collapse").evidence


def test_the_evidence_says_since_when(run):
    found = finding(everywhere(run, vq_entropy=0.3), "code-entropy")
    assert "(epoch 5, since epoch 3)" in found.evidence
    assert "(epoch 5)" in finding(last(run, vq_entropy=0.3), "code-entropy").evidence


def test_the_order_of_the_published_troubleshooting_is_kept(run):
    drop = finding(DEFECTS["phase-2-drop"](run), "phase-2-drop")
    assert [step.settings[0].split("=")[0] for step in drop.steps] == [
        "schedule.temp_freeze_floor",
        "loss.lambda_consistency",
        "schedule.alignment_start_epoch",
    ]
    assert drop.steps[0].settings == ("schedule.temp_freeze_floor=0.8",)
    assert drop.steps[1].settings == ("loss.lambda_consistency=0.3",)
    entropy = finding(DEFECTS["code-entropy"](run), "code-entropy")
    assert [step.settings[0].split("=")[0] for step in entropy.steps][:2] == [
        "loss.lambda_entropy",
        "schedule.temp_freeze_floor",
    ]
    consistency = finding(DEFECTS["consistency"](run), "consistency")
    assert "bit grouping and LLR scaling" in consistency.steps[0].text
    assert consistency.steps[1].settings == ("loss.lambda_consistency=1.0",)


def test_what_a_learned_weight_or_a_reached_bound_rules_out_is_not_proposed(run):
    bound = with_recipe(run, schedule__temp_freeze_floor=0.8, loss__lambda_consistency=1.0)
    settings = [
        s
        for f in diagnose("run", everywhere(bound, soft_mean=0.95, hard_mean=0.80)).findings
        for t in f.steps
        for s in t.settings
    ]
    assert not any(setting.startswith("loss.lambda_consistency") for setting in settings)


def test_a_falling_temperature_is_awaited(run):
    """From 1 by 0.97 an epoch to 0.7: 12 epochs after the first over the link."""
    falling = with_recipe(
        everywhere(run, h_assign=1.3, vq_temp=0.94, hard_forward=False),
        schedule__epochs=60,
        schedule__alignment_start_epoch=40,
    )
    found = finding(falling, "too-soft")
    assert (found.kind, found.wait_until) == ("wait", 15)
    assert diagnose("run", falling).healthy
    assert "until epoch 15" in diagnose("run", falling).text()


def test_learning_is_awaited_for_ten_epochs(run):
    found = finding(ignorant(run, epochs=4), "not-learning")
    assert (found.kind, found.wait_until) == ("wait", 11)
    assert finding(ignorant(run), "not-learning").kind == "wrong"
    assert "not-learning" not in names(ignorant(run, epochs=2))


def test_alignment_to_come_is_awaited(run):
    gap = replace(run, records=run.records[:3])
    gap = everywhere(
        with_recipe(gap, schedule__epochs=60, schedule__alignment_start_epoch=40), soft_mean=0.95, hard_mean=0.8
    )
    found = finding(gap, "soft-above-hard")
    assert (found.kind, found.wait_until) == ("wait", 45)
    assert "soft-above-hard" in names(everywhere(run, soft_mean=0.95, hard_mean=0.80), "wrong")


def test_consistency_has_five_epochs_to_fall(run):
    early = with_recipe(with_consistency(run, 0.2, 0.2, 0.2), schedule__epochs=60)
    assert finding(early, "consistency").wait_until == 4 + 5
    assert "consistency" not in names(with_consistency(run, 0.2, 0.2, 0.2))
    assert "consistency" not in names(with_consistency(run, 0.2, 0.18, 0.16, 0.14, 0.12, 0.1))
    assert "consistency" not in names(with_consistency(run, 0.04, 0.04, 0.04, 0.04, 0.04, 0.049))


def test_a_weight_that_grows_is_awaited_until_it_has_grown():
    recipe = {"schedule": {"warmup_epochs": 3}, "loss": {"lambda_entropy": 0.1, "warmup": {"lambda_entropy": 10}}}
    assert full_from(recipe, "lambda_entropy") == 13
    assert full_from(recipe, "lambda_vq") is None


def test_a_fall_of_less_than_chance_would_bring_is_none(run):
    """3 points on 270 samples are within two standard errors at 90 %; on 10,000 they are not."""
    few = with_accuracy(run, (0.91, 0.91), (0.88, 0.88))
    assert names(few) == set()
    many = replace(few, records=tuple(changed(record, validation_samples=10_000) for record in few.records))
    assert names(many) == {"accuracy-collapse", "phase-2-drop"}


def test_a_run_in_warm_up_has_nothing_to_say_of_the_link(signs_run, run):
    found = diagnose(signs_run, replace(run, records=run.records[:2], best=None))
    assert {finding.name for finding in found.findings} == {"unfinished"}
    assert "the link has not begun" in found.text()


def test_every_setting_proposed_makes_another_recipe_as_the_command_reads_it(run):
    """Of this recipe and of the one that comes with hardpath; the latter has room for every remedy."""
    digits = load_recipe("digits")
    for rule in RULES:
        for remedy in rule.remedies:
            settings = remedy.settings(digits) or ()
            overrides = dict(setting.split("=") for setting in settings)
            assert bool(settings) == (load_recipe("digits", overrides) != digits)
            for setting in remedy.settings(run.recipe) or ():
                assert setting.count("=") == 1


def test_a_remedy_that_the_recipe_refuses_is_passed_over(signs_recipe):
    """Alignment would begin in warm-up."""
    remedy = Remedy("longer", (Change("schedule.warmup_epochs", "plus", 2),))
    assert remedy.changes[0].setting(signs_recipe) == "schedule.warmup_epochs=4"
    assert remedy.settings(signs_recipe) is None
    assert Remedy("words alone").settings(signs_recipe) == ()
    assert Remedy("at its bound", (Change("loss.lambda_vq", "at-most", 1.0),)).settings(signs_recipe) is None


def test_every_key_of_a_remedy_is_a_recipes_or_that_of_a_growing_weight():
    known = load_recipe("digits").model_dump()
    for rule in RULES:
        for change in (change for remedy in rule.remedies for change in remedy.changes):
            section, _, name = change.key.partition(".")
            assert name in known[section] or name.startswith("warmup."), change.key


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change("loss.lambda_entropy", "times", 2.0), "loss.lambda_entropy=0.4"),
        (Change("schedule.temp_freeze_floor", "plus", 0.1), "schedule.temp_freeze_floor=0.8"),
        (Change("schedule.temp_freeze_floor", "plus", 0.1, most=0.7), None),
        (Change("schedule.temp_freeze_floor", "plus", 0.1, most=0.6), None),
        (Change("schedule.temp_freeze_floor", "at-least", 0.7), None),
        (Change("quantizer.ema_decay", "at-most", 0.8), "quantizer.ema_decay=0.8"),
        (Change("optimizer.batch_size", "times", 0.5, least=16), "optimizer.batch_size=16"),
        (Change("optimizer.batch_size", "times", 0.25, least=32), None),
        (Change("schedule.epochs", "plus", 10), "schedule.epochs=15"),
        (Change("loss.lambda_assignment", "to", 0.0), "loss.lambda_assignment=0.0"),
        (Change("loss.warmup.lambda_vq", "at-least", 10), "loss.warmup.lambda_vq=10"),
        (Change("link.demapper", "to", 1.0), None),
        (Change("nothing.at.all", "to", 1.0), None),
    ],
)
def test_a_change_starts_from_the_recipes_own_value(signs_recipe, change, expected):
    assert change.setting(signs_recipe) == expected


def test_a_weight_of_zero_starts_where_it_is_told(make_signs_recipe):
    recipe = make_signs_recipe(loss={"lambda_entropy": 0.0})
    assert Change("loss.lambda_entropy", "times", 2.0, start=0.05).setting(recipe) == "loss.lambda_entropy=0.05"


def test_a_codebook_started_far_off_and_never_restarted_is_named(make_signs_recipe, tmp_path, monkeypatch):
    start = Quantizer.start

    def started_far_off(self, tokens, **settings):
        start(self, tokens, **settings)
        self.codebook[1:] = 100.0
        self.ema_sum.copy_(self.codebook * self.ema_size[:, None])

    monkeypatch.setattr(Quantizer, "start", torch.no_grad()(started_far_off))
    train_recipe(make_signs_recipe(quantizer={"restart_threshold": 0.0}), tmp_path / "run")
    found = names(read_run(tmp_path / "run"), "wrong")
    assert {"codes-unused", "code-entropy", "same-codes", "lost-at-the-link"} <= found


def test_llrs_of_noise_told_too_small_are_named(signs_recipe, tmp_path, monkeypatch):
    demap = train.mode_codec.app_llr
    monkeypatch.setattr(train.mode_codec, "app_llr", lambda y, no, order: demap(y, no / 4.0, order))
    train_recipe(signs_recipe, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert names(run, "wrong") == {"llr"}
    assert "is 4.0" in finding(run, "llr").evidence or "is 3.9" in finding(run, "llr").evidence
    assert all(record.alarms for record in run.linked)


def test_the_alarms_of_a_run_are_those_of_its_recipe(run):
    assert all(record.alarms == alarms(record, run.recipe) for record in run.records)


def test_a_run_that_is_missing_or_broken_is_refused_in_one_line(signs_run, tmp_path):
    with pytest.raises(ResultsError, match="nowhere is no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match=r"holds no metrics\.jsonl"):
        read_run(tmp_path)
    line = (signs_run / METRICS_NAME).read_text().splitlines()[0]
    (tmp_path / METRICS_NAME).write_text(line[:50])
    with pytest.raises(ResultsError, match="holds no finished epoch: it is empty or cut short"):
        read_run(tmp_path)
    (tmp_path / METRICS_NAME).write_text(line + "\n")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        read_run(tmp_path)
