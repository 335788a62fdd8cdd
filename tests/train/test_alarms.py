"""Each alarm rings on an epoch that has its defect, and on no other."""

import math
from dataclasses import replace

import pytest

from train.alarms import PUBLISHED_MEAN_ABS_LLR, Symptom, alarms, can_be_told_apart, symptoms
from train.collapse import TokenDrift
from train.latent import BottleneckRecord
from train.record import read_metrics
from train.usage import BatchUsage, Spread


@pytest.fixture(scope="module")
def record(signs_run):
    """The last epoch of a real run: aligned, over the link."""
    return read_metrics(signs_run)[-1]


def changed(record, **values):
    """The epoch with fields of its own, or of its validation metrics, in place of those it has."""
    own = {name: value for name, value in values.items() if name in type(record).model_fields}
    metrics = {name: value for name, value in values.items() if name not in own}
    if "perplexity" in metrics and record.validation_collapse.batches is not None:
        spread = Spread(*[metrics["perplexity"]] * 3)
        metrics = {"batches": replace(record.validation_collapse.batches, perplexity=spread)} | metrics
    if metrics:
        own["validation_collapse"] = replace(record.validation_collapse, **metrics)
    return record.model_copy(update=own)


def losses(record, **values):
    return {"losses": record.losses | values}


def test_a_healthy_epoch_raises_no_alarm(record, signs_recipe):
    assert record.hard_forward
    assert symptoms(record, signs_recipe) == {}
    assert alarms(record, signs_recipe) == record.alarms == []


DEFECTS = [
    ({"vq_entropy": 0.6}, Symptom.CODE_ENTROPY, "raise loss.lambda_entropy"),
    ({"codes_used": 0.25}, Symptom.CODES_UNUSED, "raise quantizer.restart_threshold"),
    ({"symbol_entropy": 0.6}, Symptom.SYMBOL_ENTROPY, "raise loss.lambda_entropy"),
    ({"h_assign": 1.01}, Symptom.TOO_SOFT, "raise loss.lambda_assignment"),
    ({"es_db": 0.6}, Symptom.ENERGY, "raise loss.lambda_energy"),
    ({"llr_ratio": 2.1}, Symptom.LLR, "check the noise variance told to the receiver"),
    ({"llr_ratio": 0.4}, Symptom.LLR, "check the noise variance told to the receiver"),
    ({"llr_ratio": math.nan}, Symptom.LLR, "check the noise variance told to the receiver"),
    ({"soft_mean": 0.95, "hard_mean": 0.80}, Symptom.SOFT_ABOVE_HARD, "raise loss.lambda_consistency"),
    ({"soft_mean": 0.80, "hard_mean": 0.95}, Symptom.HARD_ABOVE_SOFT, "lower quantizer.target_assignment_entropy"),
    ({"validation_task_hard": 3.0, "overfitting": 9.0}, Symptom.OVERFITTING, "raise optimizer.weight_decay"),
    ({"perplexity": 1.2}, Symptom.EVALUATION_COLLAPSE, "hardpath diagnose --deep shows where"),
    ({"same_codes": 0.5}, Symptom.SAME_CODES, "raise loss.lambda_entropy"),
    ({"token_drift": TokenDrift(0.1, 0.6)}, Symptom.TOKEN_DRIFT, "hardpath diagnose --deep shows where"),
    ({"loss_shares": {"task": 0.3, "commitment": 0.7}}, Symptom.DOMINATING_TERM, "lower loss.lambda_vq"),
    ({"losses": {"loss": math.nan, "task": 0.5}}, Symptom.NOT_FINITE, "lower optimizer.learning_rate"),
]


LATENT = [
    ({"kl_nats": 0.06}, Symptom.LATENT_COLLAPSE, "lower bottleneck.kl_weight, or raise bottleneck.free_bits"),
    ({"kl_nats": 2.8}, Symptom.LATENT_UNHELD, "raise bottleneck.kl_weight, or lower bottleneck.free_bits"),
    ({"teacher": 0.0}, Symptom.TEACHER_SILENT, "check the task's rules, and bottleneck.teacher_weight"),
    ({"kl_nats": 0.03}, Symptom.LATENT_COLLAPSE, "published"),
    ({"kl_nats": 0.7}, Symptom.LATENT_UNHELD, "published"),
    ({"penalty_reduction": 0.81}, Symptom.LATENT_FREE, "published"),
    ({"kl_after": 0.0, "penalty_reduction": 1.0}, Symptom.LATENT_FREE, "published"),
]
"""Of four codewords in four dimensions: ln K = 1.39, and a mean of 0.01 is 0.04 nats."""


@pytest.fixture
def narrow(record):
    """The epoch behind a healthy bottleneck."""
    healthy = BottleneckRecord(
        kl_raw=0.05,
        kl_after=0.035,
        kl_nats=0.2,
        free_nats=0.4,
        penalty_reduction=0.3,
        kl_weight=3.0,
        teacher_weight=0.3,
        orthogonality=0.1,
        diversity=0.1,
        teacher=0.2,
        validation_kl_raw=0.05,
        validation_task_drawn=0.3,
    )
    return record.model_copy(update={"bottleneck": healthy})


def behind(narrow, **values):
    return narrow.model_copy(update={"bottleneck": narrow.bottleneck.model_copy(update=values)})


@pytest.mark.parametrize(("values", "symptom", "mend"), LATENT)
def test_an_alarm_of_a_bottleneck_says_what_is_wrong(narrow, make_signs_recipe, values, symptom, mend):
    published = mend == "published"
    recipe = make_signs_recipe(bottleneck__enabled=True)
    if published:  # its other thresholds are of larger codebooks
        recipe = recipe.model_copy(update={"alarms": recipe.alarms.model_copy(update={"preset": "published"})})
    latent = {Symptom.LATENT_COLLAPSE, Symptom.LATENT_UNHELD, Symptom.LATENT_FREE, Symptom.TEACHER_SILENT}
    assert not latent & symptoms(narrow, recipe).keys()
    found = symptoms(behind(narrow, **values), recipe)
    assert latent & found.keys() == {symptom}
    assert published or found[symptom].mend == mend


def test_a_bottleneck_is_given_time(narrow, make_signs_recipe):
    recipe = make_signs_recipe(bottleneck__enabled=True)
    growing = behind(narrow, kl_nats=9.0, kl_weight=1.0)
    assert symptoms(growing, recipe) == {}
    frozen = recipe.model_copy(
        update={"optimizer": recipe.optimizer.model_copy(update={"freeze_vision_epochs": narrow.epoch})}
    )
    assert symptoms(behind(narrow, kl_nats=0.0), frozen) == {}


def test_behind_a_bottleneck_what_is_learned_by_heart_is_mended_in_the_published_order(narrow, signs_recipe):
    found = symptoms(changed(narrow, validation_task_hard=3.0, overfitting=9.0), signs_recipe)
    order = "lower bottleneck.teacher_weight, then bottleneck.kl_weight, then optimizer.head_learning_rate"
    assert found[Symptom.OVERFITTING].mend == order


@pytest.mark.parametrize(("values", "symptom", "mend"), DEFECTS)
def test_an_alarm_says_what_is_wrong_and_names_the_mend(record, signs_recipe, values, symptom, mend):
    found = symptoms(changed(record, **values), signs_recipe)
    assert list(found) == [symptom]
    (line,) = alarms(changed(record, **values), signs_recipe)
    assert line == f"{found[symptom].text}; {mend}"
    assert "\n" not in line


def test_every_symptom_is_held_by_a_defect_above():
    of_a_bottleneck = {symptom for _, symptom, _ in LATENT}
    of_their_own = {Symptom.ONE_MODE, Symptom.CODES_WANDER}
    assert {symptom for _, symptom, _ in DEFECTS} | of_a_bottleneck == set(Symptom) - of_their_own


def test_a_router_that_takes_one_mode_for_all_is_an_alarm_only_where_a_balance_was_asked_for(
    record, make_routed_recipe, signs_recipe
):
    one, two = (record.model_copy(update={"mode_shares": shares}) for shares in ((0.0, 0.98, 0.02), (0.4, 0.6, 0.0)))
    recipe = make_routed_recipe()
    assert symptoms(one, recipe)[Symptom.ONE_MODE].text.startswith("98% of the samples are sent in mode 1")
    assert Symptom.ONE_MODE not in symptoms(two, recipe)
    assert Symptom.ONE_MODE not in symptoms(one, make_routed_recipe(loss={"lambda_sym": 0.01}))
    assert Symptom.ONE_MODE not in symptoms(record, signs_recipe)


@pytest.mark.parametrize(
    "values",
    [
        {"vq_entropy": 0.7},
        {"codes_used": 0.5},
        {"symbol_entropy": 0.7},
        {"h_assign": 1.0},
        {"es_db": 0.5},
        {"llr_ratio": 0.5},
        {"llr_ratio": 2.0},
        {"soft_mean": 0.92, "hard_mean": 0.901},
        {"same_codes": 0.49},
        {"token_drift": TokenDrift(0.5, 0.5)},
        {"loss_shares": {"task": 0.5, "commitment": 0.5}},
        {"loss_shares": {"task": 0.9, "usage": 0.1}},
    ],
)
def test_at_its_threshold_nothing_rings(record, signs_recipe, values):
    assert alarms(changed(record, **values), signs_recipe) == []


@pytest.mark.parametrize(
    ("key", "value", "values"),
    [
        ("usage_entropy", 0.4, {"vq_entropy": 0.6}),
        ("codes_used", 0.2, {"codes_used": 0.25}),
        ("usage_entropy", 0.4, {"symbol_entropy": 0.6}),
        ("h_assign_high", 1.1, {"h_assign": 1.01}),
        ("energy_db", 1.0, {"es_db": 0.6}),
        ("llr_factor", 3.0, {"llr_ratio": 2.1}),
        ("soft_hard_gap", 20.0, {"soft_mean": 0.95, "hard_mean": 0.80}),
        ("overfitting_ratio", 99.0, {"validation_task_hard": 3.0, "overfitting": 9.0}),
        ("perplexity_ratio", 0.2, {"perplexity": 1.2}),
        ("same_codes", 0.6, {"same_codes": 0.5}),
        ("token_drift", 0.7, {"token_drift": TokenDrift(0.1, 0.6)}),
        ("term_share", 0.8, {"loss_shares": {"task": 0.3, "commitment": 0.7}}),
    ],
)
def test_each_threshold_is_the_recipes(record, make_signs_recipe, signs_recipe, key, value, values):
    defective = changed(record, **values)
    assert alarms(defective, signs_recipe) != []
    assert alarms(defective, make_signs_recipe(alarms={key: value})) == []


def test_thresholds_scale_with_codebook_and_constellation(record, make_signs_recipe):
    """1.3 nats are enough of ln 4 and under half of ln 16."""
    modest = changed(record, vq_entropy=1.3, symbol_entropy=1.3)
    assert alarms(modest, make_signs_recipe()) == []
    for link, name in (({"codewords": 16}, "codeword"), ({"order": 16}, "symbol")):
        larger = make_signs_recipe(link={"tokens": 4, "codewords": 4, "dim": 4, "order": 4} | link)
        (line,) = alarms(modest, larger)
        assert line.startswith(f"{name} usage entropy 1.30 is under half of ln")


def test_a_soft_assignment_is_no_alarm_while_the_temperature_falls(record, signs_recipe):
    assert alarms(changed(record, h_assign=1.2, vq_temp=0.9), signs_recipe) == []


def test_a_surrogate_that_is_behind_is_no_alarm_before_alignment(record, signs_recipe):
    behind = changed(record, soft_mean=0.80, hard_mean=0.95, hard_forward=False)
    assert alarms(behind, signs_recipe) == []
    assert alarms(changed(behind, soft_mean=0.95, hard_mean=0.80), signs_recipe) != []


def test_overfitting_is_judged_by_the_path_that_is_trained(record, signs_recipe):
    values = {"validation_task_soft": 3.0, "overfitting": 9.0}
    assert alarms(changed(record, **values), signs_recipe) == []
    assert alarms(changed(record, hard_forward=False, **values), signs_recipe) != []


def test_ratios_and_shares_of_a_learned_task_mean_nothing(record, signs_recipe):
    """0.2 nats are 20 times 0.01, and harmless."""
    learned = losses(record, task=0.01)
    assert alarms(changed(record, validation_task_hard=0.2, overfitting=20.0, **learned), signs_recipe) == []
    drowned = {"loss_shares": {"task": 0.1, "energy": 0.9}, "validation_task_hard": 0.2}
    assert alarms(changed(record, **drowned, **learned), signs_recipe) == []


@pytest.mark.parametrize(("samples", "told"), [(100, False), (10_000, True), (None, True)])
def test_a_gap_rings_where_so_many_samples_can_tell_it(record, signs_recipe, samples, told):
    """3 points at 90 %: the standard error of a difference is 4.5 points of 100 samples and 0.45 of 10,000."""
    assert can_be_told_apart(0.915, 0.885, samples) is told
    gap = changed(record, soft_mean=0.915, hard_mean=0.885, validation_samples=samples)
    assert bool(alarms(gap, signs_recipe)) is told


def test_what_an_older_run_did_not_record_raises_no_alarm(record, signs_recipe):
    older = changed(
        record,
        soft_mean=record.hard_mean,
        same_codes=None,
        loss_shares=None,
        validation_task_soft=None,
        validation_task_hard=None,
        overfitting=None,
        soft_hard_gap=None,
        token_drift=None,
        validation_samples=None,
        chance=None,
    )
    assert alarms(older, signs_recipe) == []


def test_an_epoch_without_a_link_raises_none(signs_run, signs_recipe):
    assert alarms(read_metrics(signs_run)[0], signs_recipe) == []


def test_the_published_thresholds_cannot_hold_for_a_healthy_qpsk_link(record, make_signs_recipe):
    published = make_signs_recipe(alarms={"preset": "published"})
    assert math.log(4) < 1.5
    found = symptoms(changed(record, mean_abs_llr=8.1), published)
    assert set(found) == {Symptom.CODE_ENTROPY, Symptom.SYMBOL_ENTROPY, Symptom.LLR}
    fine = changed(record, vq_entropy=2.5, symbol_entropy=1.5, mean_abs_llr=PUBLISHED_MEAN_ABS_LLR)
    assert alarms(fine, published) == []
    assert alarms(changed(fine, h_assign=1.2, es_db=3.0, llr_ratio=9.0, codes_used=0.1), published) == []


@pytest.mark.parametrize(
    ("rows", "epoch", "batch", "alarmed"),
    [
        (32, 39.8, 1.22, True),
        (32, 300.0, 7.9, True),
        (32, 300.0, 8.1, False),
        (32, 1.0, 1.0, False),
        (512, 40.0, 9.9, True),
        (512, 40.0, 10.1, False),
    ],
)
def test_a_codebook_that_wanders_is_told_by_its_batches(record, signs_recipe, rows, epoch, batch, alarmed):
    """A quarter of the epoch's perplexity, or of the rows where a batch has fewer: not of its tokens, which may be alike."""
    usage = BatchUsage(rows, 9, 512, Spread(batch, batch, batch), Spread(batch, batch, batch))
    training = replace(record.train_collapse, perplexity=epoch, batches=usage)
    found = symptoms(record.model_copy(update={"train_collapse": training}), signs_recipe)
    assert (Symptom.CODES_WANDER in found) is alarmed
    older = replace(training, batches=None)
    assert Symptom.CODES_WANDER not in symptoms(record.model_copy(update={"train_collapse": older}), signs_recipe)


@pytest.mark.parametrize(("batch", "epoch", "rings"), [(1.1, 3.9, True), (3.9, 1.1, False), (None, 1.1, True)])
def test_evaluation_collapses_where_its_batches_do(record, signs_recipe, batch, epoch, rings):
    """Over an epoch training has more rows than evaluation, and may wander: batches of as many rows are compared."""
    whole = replace(record.train_collapse, perplexity=4.0)
    batches = whole.batches
    assert batches is not None

    def of(perplexity):
        return None if perplexity is None else replace(batches, perplexity=Spread(*[perplexity] * 3))

    training = replace(whole, batches=of(3.9 if batch else None))
    validation = replace(record.validation_collapse, perplexity=epoch, batches=of(batch))
    found = symptoms(
        record.model_copy(update={"train_collapse": training, "validation_collapse": validation}), signs_recipe
    )
    assert (Symptom.EVALUATION_COLLAPSE in found) == rings
    if rings:
        assert ("of a batch" in found[Symptom.EVALUATION_COLLAPSE].text) == (batch is not None)
