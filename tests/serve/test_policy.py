import pytest

from serve.engine.cost import CostModel
from serve.engine.policy import Adaptive, Fixed

HANDLING_S = 20e-6
"""Of a run: to form a batch and to hand out its parts."""


def cost_of(seconds, sizes=(1, 4, 16, 64)):
    cost = CostModel()
    for rows in sizes:
        cost.record(rows, seconds(rows))
    return cost


def test_cost_is_interpolated_between_sizes_and_extended_beyond_them():
    cost = cost_of(lambda rows: 2.0 + 0.5 * rows)
    for rows in (1, 3, 16, 40, 200):
        assert cost.seconds(rows) == pytest.approx(2.0 + 0.5 * rows)
    assert cost.saving(5) == pytest.approx(2.0)


def test_cost_follows_what_changes_and_not_what_happens_once():
    cost = cost_of(lambda rows: 1.0)
    cost.record(4, 1000.0)
    assert cost.seconds(4) < 2.0
    for _ in range(200):
        cost.record(4, 3.0)
    assert cost.seconds(4) == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (lambda rows: 5.0 + 0.1 * rows, 128),  # the end of what was measured: twice that is tried
        (lambda rows: 1.0 * rows, 1),  # no gain and no loss: whoever is done goes
        (lambda rows: 0.5 * rows**1.5, 1),  # a batch costs more than its rows
        (lambda rows: 4.0 + rows if rows <= 16 else 3.0 * rows, 16),  # what leaves the cache
    ],
)
def test_a_run_is_as_large_as_makes_a_row_cheapest(seconds, best):
    assert cost_of(seconds).best_rows(4096) == best
    assert cost_of(seconds).best_rows(7) == min(best, 7)


def drive(policy, cost, callers, return_s, runs=2000):
    """Callers of one row each that come back `return_s` after their reply: share of the best throughput.

    A worker's loop in simulated time: run what waits, or wait as the policy says.
    """
    now, done = 0.0, 0
    coming = [i * 1e-5 for i in range(callers)]
    for _ in range(runs):
        coming.sort()
        now = max(now, coming[0])
        waiting = sum(time <= now for time in coming)
        target = policy.gather(waiting, 1.0)
        if target > waiting:
            before, began, last = waiting, now, now
            while waiting < target:
                ends = min(last + policy.patience_s(waiting, 1.0), began + policy.wait_max_s)
                nearest = min((time for time in coming[waiting:]), default=float("inf"))
                if nearest > ends:
                    now = ends
                    break
                now = last = nearest
                waiting = sum(time <= now for time in coming)
            saved_s = cost.saving(before, waiting - before) if waiting > before else 0.0
            policy.gathered(waiting, saved_s, now - began, last - began, in_time=waiting >= target)
        taken = min(waiting, policy.limit())
        now += cost.seconds(taken) + HANDLING_S
        done += taken
        coming = coming[taken:] + [now + return_s + i * 1e-5 for i in range(taken)]
    return done / now


@pytest.mark.parametrize("callers", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("fixed_ms", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("row_ms", [0.01, 0.2])
def test_the_policy_is_close_to_the_best_fixed_one(callers, fixed_ms, row_ms):
    """In simulated time, where nothing is left to chance, over a grid of settings."""

    def seconds(rows):
        return 1e-3 * (fixed_ms + row_ms * rows)

    cost = cost_of(seconds)
    best = max(
        drive(Fixed(rows, wait_s), cost, callers, 3e-4, runs=400)
        for rows in (1, 2, 4, 8, 16, 32, 64)
        for wait_s in (0.0, 5e-4, 1e-3, 5e-3)
    )
    adaptive = drive(Adaptive(cost, 4096), cost, callers, 3e-4)
    alone = drive(Fixed(1), cost, callers, 3e-4, runs=400)
    # Where rows cost the same in any run, the best setting is the one that happens to keep the worker busy.
    assert adaptive >= (0.95 if fixed_ms else 0.9) * best
    assert adaptive >= (0.97 if fixed_ms else 0.95) * alone
