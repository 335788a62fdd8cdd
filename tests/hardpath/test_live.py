"""The table that a running sweep draws, and what it says where there is no terminal."""

import io
import sys

import pytest

from hardpath.live import clock, live_table, seconds_left
from link.ber import ModemSpec, ber
from link.simulator import Ending
from link.simulator.run import State
from link.stopping import Tally

STATES = [
    State(0.0, 3, Tally(3000, 60, 6000, 75, 105), 1.0, 1.5, Ending.TARGET),
    State(6.0, 2, Tally(2000, 0, 4000, 0, 0), 0.25, 2.0, None),
    State(12.0, 0, Tally(0, 0, 0, 0, 0), 0.0, 0.0, None),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(monkeypatch, states):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr("hardpath.live._REFRESH_SECONDS", 0.0)
    with live_table("sweeping awgn", "bit errors") as watch:
        watch(states)
    return terminal.getvalue()


def test_each_point_has_its_errors_interval_rate_and_time_left(monkeypatch):
    text = drawn(monkeypatch, STATES)
    for part in (
        "sweeping awgn",
        "bit errors",
        "75",
        "0.0125",
        "4e+03",
        "target",
        "25 %",
        "6 s",
        "waiting",
        "1 of 3 points",
    ):
        assert part in text, part
    assert "at least 6 s left" in text, "of the last point nothing is known"


def test_what_was_not_seen_is_an_upper_bound(monkeypatch):
    assert "< 0.0018" in drawn(monkeypatch, STATES), "none in 2,000 units"


@pytest.mark.parametrize(
    "fields",
    [
        {"frame_symbols": 64, "block_frames": 8, "blocks": 3},
        {"frame_symbols": 64, "block_frames": 8, "blocks": 3, "channel": "rayleigh"},
        {"sampling": "importance", "blocks": 3},
    ],
)
def test_whatever_is_counted_is_drawn_as_it_comes(monkeypatch, fields):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr("hardpath.live._REFRESH_SECONDS", 0.0)
    with live_table("counting", "bit errors") as watch:
        result = ber(ModemSpec(snr_db=(2.0, 21.0), order=4, **fields), watch=watch)
    assert "2 of 2 points" in terminal.getvalue()
    assert str(result.points[0].stopped_by) in terminal.getvalue()


def test_weights_of_importance_sampling_are_shown_by_what_they_tell(monkeypatch):
    # 30^2 / 9 = 100 effective errors: 1.96 / sqrt(100)
    text = drawn(monkeypatch, [State(21.0, 3, Tally(3000, 0, 6000, 30.0, 9.0), 0.5, 1.5, None)])
    assert "~100" in text
    assert "+-20 %" in text


def test_a_long_grid_is_shown_where_it_is_running(monkeypatch):
    ended = [STATES[0]._replace(snr_db=float(point)) for point in range(40)]
    text = drawn(monkeypatch, [*ended, STATES[1]._replace(snr_db=77.0)])
    assert "77" in text
    assert "40 of 41 points" in text


def test_nothing_but_the_title_is_written_where_there_is_no_terminal(monkeypatch, capsys):
    with live_table("sweeping awgn", "bit errors") as watch:
        watch(STATES)
    assert capsys.readouterr() == ("", "sweeping awgn\n")


@pytest.mark.parametrize(("state", "expected"), [(0, 0.0), (1, 6.0), (2, None)])
def test_time_left_follows_from_the_share_that_is_done(state, expected):
    assert seconds_left(STATES[state]) == expected


def test_a_clock_rounds_to_seconds():
    assert [clock(seconds) for seconds in (0.2, 59.4, 59.6, 3599.7)] == ["0 s", "59 s", "1:00", "1:00:00"]
