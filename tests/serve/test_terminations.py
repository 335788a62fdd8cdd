"""Signals at bad moments: what is in flight is answered, what comes later is refused, and the process ends."""

import signal

import pytest

from benchmarks.chaos import terminations
from benchmarks.chaos.questions import make_questions

TIMES = 5  # the hundreds are those of benchmarks.chaos.terminations


@pytest.fixture(scope="module")
def questions(link):
    # max_batch of the command is thousands: calls of many rows are under way for a while.
    return make_questions(link, 60, rows=(1, 8, 64, 512))


@pytest.mark.parametrize("_time", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, TIMES))])
def test_what_is_in_flight_at_the_signal_is_answered(bundle_path, questions, _time):
    found = terminations.under_load(bundle_path, questions)
    assert found.lost == ()
    assert (found.exit_code, found.tracebacks) == (0, 0)
    assert found.answered >= 100


@pytest.mark.parametrize(
    "after_s", [0.0, 0.3, 0.6, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.2, 0.4, 0.8, 1.0, 1.5))]
)
def test_a_signal_while_starting_ends_the_process(bundle_path, after_s):
    found = terminations.while_starting(bundle_path, after_s)
    # Before the server handles signals, the system does.
    assert found.exit_code in (0, -signal.SIGTERM)
    assert found.tracebacks == 0


@pytest.mark.parametrize("scene", [terminations.with_an_idle_watch, terminations.with_an_idle_stream])
def test_a_stream_that_says_nothing_does_not_keep_the_server(bundle_path, scene):
    found = scene(bundle_path)
    assert (found.exit_code, found.tracebacks) == (0, 0)


@pytest.mark.slow  # it is waited for until the grace has passed
def test_a_client_that_never_reads_does_not_keep_the_server(bundle_path, questions):
    found = terminations.with_a_client_that_never_reads(bundle_path, questions[9])
    assert (found.exit_code, found.tracebacks) == (0, 0)


def test_a_second_interrupt_ends_the_drain(bundle_path):
    found = terminations.interrupted_twice(bundle_path)
    assert found.exit_code in (0, 130, -signal.SIGINT)
    assert found.tracebacks == 0
