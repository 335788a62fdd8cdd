import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.recipe import ScheduleRecipe
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
