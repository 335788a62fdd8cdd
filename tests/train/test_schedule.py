import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.recipe import ScheduleRecipe
from train.recipe_file import load_recipe
from train.schedule import Phase, learning_rate_factor, plan

SCHEDULE = ScheduleRecipe(epochs=30, warmup_epochs=4, alignment_start_epoch=21, temp_decay=0.9)


def test_epochs_count_from_1_and_phases_change_where_the_recipe_says():
    phases = {epoch: plan(SCHEDULE, epoch).phase for epoch in (1, 4, 5, 20, 21, 30)}
    assert phases == {
        1: Phase.WARMUP,
        4: Phase.WARMUP,
        5: Phase.LEARNING,
        20: Phase.LEARNING,
        21: Phase.ALIGNMENT,
        30: Phase.ALIGNMENT,
    }


def test_learning_begins_at_the_start_temperature_and_decays_each_epoch():
    assert plan(SCHEDULE, 5).vq_temp == 1.0
    assert plan(SCHEDULE, 6).vq_temp == 0.9
    assert plan(SCHEDULE, 7).vq_temp == pytest.approx(0.81)


def test_the_temperature_stops_at_the_floor():
    # 0.9 ** 4 < 0.7 is reached in the fifth learning epoch.
    assert plan(SCHEDULE, 8).vq_temp > 0.7
    assert [plan(SCHEDULE, epoch).vq_temp for epoch in (9, 15, 20)] == [0.7, 0.7, 0.7]


def test_alignment_holds_the_floor_even_where_annealing_had_not_reached_it():
    schedule = ScheduleRecipe(epochs=9, warmup_epochs=1, alignment_start_epoch=3, temp_decay=0.99)
    assert plan(schedule, 2).vq_temp == 1.0
    assert plan(schedule, 3).vq_temp == 0.7


def test_only_alignment_sends_hard_symbols_and_only_learning_restarts_codewords():
    for epoch in range(1, 31):
        settings = plan(SCHEDULE, epoch)
        assert settings.epoch == epoch
        assert settings.hard_forward == (settings.phase is Phase.ALIGNMENT)
        assert settings.restarts == (settings.phase is Phase.LEARNING)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.floats(0.01, 1.0), st.floats(0.05, 2.0))
def test_the_temperature_never_rises_and_never_falls_below_the_floor(warmup, learning, alignment, decay, floor):
    schedule = ScheduleRecipe(
        epochs=warmup + learning + alignment,
        warmup_epochs=warmup,
        alignment_start_epoch=warmup + learning + 1,
        temp_start=2.0,
        temp_decay=decay,
        temp_freeze_floor=floor,
    )
    temperatures = [plan(schedule, epoch).vq_temp for epoch in range(1, schedule.epochs + 1)]
    assert temperatures == sorted(temperatures, reverse=True)
    assert min(temperatures) >= floor
    assert temperatures[-1] == floor


def test_the_learning_rate_is_a_cosine_to_zero():
    assert [learning_rate_factor(step, 8) for step in (0, 4, 8)] == pytest.approx([1.0, 0.5, 0.0])
    assert learning_rate_factor(2, 8) == pytest.approx(0.5 + 0.5 * math.sqrt(0.5))
    # The last step of a run still moves.
    assert learning_rate_factor(7, 8) > 0.0


def of_preset(name):
    return load_recipe("digits", presets=[name]).schedule


def published(epoch):
    """The formula of the published system; its tables round otherwise (0.85 in epoch 5, where this is 0.885)."""
    return 0.97 ** (epoch - 1)


@pytest.mark.parametrize(
    ("preset", "last_learning", "floor"), [("basic", 20, 0.7), ("conservative", 25, 0.8), ("aggressive", 15, 0.6)]
)
def test_the_two_phase_presets_learn_and_align_when_the_published_ones_do(preset, last_learning, floor):
    schedule = of_preset(preset)
    for epoch in range(2, 31):
        settings = plan(schedule, epoch)
        learning = epoch <= last_learning
        assert settings.phase is (Phase.LEARNING if learning else Phase.ALIGNMENT)
        assert (settings.hard_forward, settings.restarts) == (not learning, learning)
        assert settings.vq_temp == pytest.approx(max(floor, published(epoch)) if learning else floor, rel=1e-12)
        assert settings.symbol_temp == settings.vq_temp
        assert settings.hardness == 1.0
    assert plan(schedule, 1).phase is Phase.WARMUP


def test_the_failure_anneals_to_the_published_temperature_and_never_sends_hard():
    schedule = of_preset("anneal")
    settings = [plan(schedule, epoch) for epoch in range(2, 31)]
    assert [found.vq_temp for found in settings] == pytest.approx([published(epoch) for epoch in range(2, 31)])
    assert round(settings[-1].vq_temp, 3) == 0.413
    assert {(found.phase, found.hard_forward) for found in settings} == {(Phase.LEARNING, False)}
    # 0.97^75 = 0.102 and 0.97^76 = 0.099: left to go on, it would end at 0.1.
    longer = schedule.model_copy(update={"epochs": 100})
    assert [round(plan(longer, epoch).vq_temp, 3) for epoch in (76, 77, 100)] == [0.102, 0.1, 0.1]


@pytest.mark.parametrize(("preset", "floor", "reached"), [("floor-0.5", 0.5, 24), ("floor-0.7", 0.7, 13)])
def test_the_band_aid_stays_soft_at_its_floor(preset, floor, reached):
    schedule = of_preset(preset)
    for epoch in range(2, 31):
        settings = plan(schedule, epoch)
        assert settings.vq_temp == pytest.approx(floor if epoch >= reached else published(epoch))
        assert (settings.vq_temp == floor) == (epoch >= reached)
        assert (settings.phase, settings.hard_forward) == (Phase.LEARNING, False)


def test_freezing_early_steps_to_the_floor_or_stays_where_it_was():
    schedule = of_preset("freeze-15")
    annealing = [published(epoch) for epoch in range(2, 16)]
    for freeze_at, held in (("floor", 0.5), ("reached", published(15))):
        found = [plan(schedule.model_copy(update={"freeze_at": freeze_at}), epoch) for epoch in range(2, 31)]
        assert [settings.vq_temp for settings in found] == pytest.approx(annealing + 15 * [held])
        assert not any(settings.hard_forward for settings in found)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(0, [1, 1, 1, 1]), (1, [1, 1, 1, 1]), (2, [0.5, 1, 1, 1]), (4, [0.25, 0.5, 0.75, 1]), (10, [0.1, 0.2, 0.3, 0.4])],
)
def test_hardening_goes_from_soft_to_hard_over_the_first_epochs_of_alignment(epochs, expected):
    schedule = SCHEDULE.model_copy(update={"hardening_epochs": epochs})
    assert [plan(schedule, epoch).hardness for epoch in range(21, 25)] == pytest.approx(expected)
    assert all(plan(schedule, epoch).hard_forward for epoch in range(21, 31))
    assert plan(schedule, 30).hardness == 1.0


def test_the_temperature_of_the_symbols_is_off_unless_tied():
    for epoch in (1, 5, 8, 20, 21, 30):
        assert plan(SCHEDULE, epoch).symbol_temp == 1.0
        tied = plan(SCHEDULE.model_copy(update={"symbol_temp": "tied"}), epoch)
        assert tied.symbol_temp == tied.vq_temp
