"""The simulator's promise: the same points whatever ran them, however often they were interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import psutil
import pytest

import link
from link.errors import ArgumentError, MissingExtra, ResultsError, WorkerError
from link.simulator import Ending, Rule, Task, open_pool, run
from link.simulator.journal import Journal
from link.simulator.points import Point

GRID = (6.0, 13.0, 20.0)
RULE = Rule(limit=40, target_errors=60)


def answers(outcome):
    return [(answer.snr_db, answer.blocks, answer.ending) for answer in outcome.answers]


@pytest.fixture(scope="module")
def expected(coins):
    """Block after block, by hand."""
    found = []
    work = coins()
    for snr_db in GRID:
        blocks, errors = [], 0
        while errors < 60 and len(blocks) < 40:
            blocks.append(work.run(snr_db, len(blocks)))
            errors += blocks[-1].unit_errors
        found.append((snr_db, blocks, Ending.TARGET if errors >= 60 else Ending.LIMIT))
    assert [len(blocks) for _, blocks, _ in found] == [2, 6, 31]
    return found


def test_a_point_is_the_shortest_prefix_that_meets_the_rule(coins, expected):
    assert answers(run(coins(), GRID, RULE)) == expected


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_points(coins, expected, workers):
    assert answers(run(coins(), GRID, RULE, workers=workers)) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_cluster_gives_the_same_points(coins, expected, backend):
    assert answers(run(coins(), GRID, RULE, workers=2, backend=backend)) == expected


def test_neither_the_order_of_the_grid_nor_its_other_points_change_a_point(coins, expected):
    assert answers(run(coins(), GRID[::-1], RULE))[::-1] == expected
    assert answers(run(coins(), GRID[1:2], RULE)) == expected[1:2]


def test_a_point_is_replayed_by_its_number_of_blocks(coins, expected):
    for snr_db, blocks, _ in expected:
        again = run(coins(), (snr_db,), Rule(limit=len(blocks)))
        assert answers(again) == [(snr_db, blocks, Ending.LIMIT)]


def test_both_targets_are_met_where_both_are_set(coins):
    few, narrow = Rule(10**6, target_errors=5), Rule(10**6, rel_width=0.5)
    lengths = [
        len(run(coins(), (13.0,), rule).answers[0].blocks)
        for rule in (few, narrow, Rule(10**6, 5, 0.5), Rule(10**6, 5000, 2.0))
    ]
    assert lengths[0] < lengths[1] == lengths[2] < lengths[3]


def test_a_point_ends_behind_whole_strides(coins):
    (answer,) = run(coins(stride=5), (13.0,), RULE).answers
    assert len(answer.blocks) == 10  # 6 would do


def test_blocks_come_in_any_order_and_beyond_the_end(coins, expected):
    work, (snr_db, blocks, _) = coins(), expected[1]
    more = [work.run(snr_db, block) for block in range(12)]
    point = Point(snr_db, work, RULE)
    for first in (9, 4, 11, 2, 10, 5, 0, 8, 3, 1, 7, 6):
        point.add(first, [more[first]])
    assert (point.whole, point.ending) == (blocks, Ending.TARGET)


def test_gaps_that_a_crash_left_are_run_and_nothing_else(coins, expected, tmp_path):
    work, (snr_db, blocks, _) = coins(), expected[2]
    journal = Journal(tmp_path, work.block_type)
    for first, last in ((0, 3), (5, 6), (9, 20)):
        journal.append(Task(snr_db, first, last - first), blocks[first:last])
    ran = []
    real = work.run
    work.run = lambda snr_db, block: ran.append(block) or real(snr_db, block)
    assert answers(run(work, (snr_db,), RULE, journal=journal)) == expected[2:]
    there = {*range(3), 5, *range(9, 20)}
    assert len(ran) == len(set(ran))
    assert not there & set(ran)
    assert {*range(len(blocks))} - there <= set(ran)


def test_what_was_counted_is_on_disk_before_anyone_hears_of_it(coins, tmp_path):
    journal = Journal(tmp_path, coins.block_type)
    heard = []

    def watch(states):
        on_disk = [block for task, blocks in journal.read({13000}) for block in blocks]
        heard.append(len(on_disk))
        assert states[0].blocks == len(on_disk)

    run(coins(), (13.0,), RULE, journal=journal, watch=watch)
    assert heard[-1] >= 6


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interruption_keeps_a_prefix_that_can_be_replayed_and_gone_on_from(coins, expected, tmp_path, after):
    journal = Journal(tmp_path, coins.block_type)
    calls = []

    def watch(states):
        calls.append(states)
        if len(calls) == after:
            raise KeyboardInterrupt

    cut = run(coins(), GRID, RULE, journal=journal, watch=watch)
    assert isinstance(cut.interrupted, KeyboardInterrupt)
    for snr_db, blocks, ending in answers(cut):
        assert blocks == [coins().run(snr_db, block) for block in range(len(blocks))]
        assert ending in (Ending.INTERRUPT, Ending.TARGET)
    assert len(cut.answers) < len(GRID) or cut.answers[-1].ending is Ending.INTERRUPT
    assert answers(run(coins(), GRID, RULE, journal=journal)) == expected


def test_time_that_runs_out_ends_a_point_at_a_prefix_and_leaves_out_what_has_none(coins):
    work = coins()
    real = work.run
    work.run = lambda snr_db, block: time.sleep(0.02) or real(snr_db, block)
    outcome = run(work, GRID, Rule(limit=1000), max_time=0.2)
    ((snr_db, blocks, ending),) = answers(outcome)
    assert (snr_db, ending, outcome.interrupted) == (6.0, Ending.MAX_TIME, None)
    assert blocks == [coins().run(6.0, block) for block in range(len(blocks))]
    assert 0 < len(blocks) < 1000


def test_a_worker_that_dies_is_replaced_and_its_block_run_again(coins, expected, tmp_path):
    work = coins(dies={3: (str(tmp_path / "dead"), 1)})
    assert answers(run(work, GRID[1:2], RULE, workers=2)) == expected[1:2]
    assert (tmp_path / "dead").read_text() == "x"


def test_a_block_that_kills_two_workers_is_reported_and_the_rest_kept(coins, expected, tmp_path):
    journal = Journal(tmp_path, coins.block_type)
    work = coins(dies={3: (str(tmp_path / "dead"), 5)})
    with pytest.raises(WorkerError, match=r"^two workers died at 13 dB, block") as error:
        run(work, (13.0,), RULE, workers=2, journal=journal)
    assert "\n" not in str(error.value)
    assert answers(run(coins(), (13.0,), RULE, journal=journal)) == expected[1:2]


def test_what_a_worker_raises_is_raised_here(coins):
    work = coins(seed=-1)  # no seed
    with pytest.raises(ArgumentError, match="seed must be in"):
        run(work, (6.0, 13.0), RULE, workers=2)


KILLED = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import Coins
from link.simulator import Rule, run
from link.simulator.journal import Journal
import time
work = Coins()
real = work.run
work.run = lambda snr_db, block: time.sleep(0.01) or real(snr_db, block)
run(work, {grid!r}, Rule(limit=40, target_errors=60), journal=Journal(Path({out!r}), Coins.block_type))
"""


def test_a_run_that_is_killed_goes_on_to_the_same_points(coins, expected, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), grid=GRID, out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(link.__file__).parent.parent)
    file = tmp_path / "blocks.jsonl"
    while process.poll() is None and (not file.exists() or len(file.read_bytes().splitlines()) < 3):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with file.open("ab") as stream:
        stream.write(b'{"snr_db": 6.0, "fir')  # as if it had been writing
    journal = Journal(tmp_path, coins.block_type)
    assert answers(run(coins(), GRID, RULE, journal=journal)) == expected


def test_workers_end_with_the_process_that_was_killed(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), grid=GRID, out=str(tmp_path))
    code = code.replace("journal=", "workers=2, journal=").replace("limit=40, target_errors=60", "limit=10**6")
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(link.__file__).parent.parent) as process:
        file = tmp_path / "blocks.jsonl"
        while process.poll() is None and not file.exists():
            time.sleep(0.01)
        workers = [
            child for child in psutil.Process(process.pid).children() if "LokyProcess" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_a_digit_that_was_changed_is_found(coins, tmp_path):
    journal = Journal(tmp_path, coins.block_type)
    run(coins(), (6.0,), RULE, journal=journal)
    text = journal.file.read_text()
    errors = json.loads(text.splitlines()[0])["blocks"]["errors"][0]
    journal.file.write_text(text.replace(str(errors), str(errors + 1), 1))
    with pytest.raises(ResultsError, match="line 1 cannot be read: its checksum is wrong"):
        journal.read({6000})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first", -1),
        ("first", "0"),
        ("snr_db", "6"),
        ("snr_db", 10**400),
        ("unit_errors", "3"),
        ("unit_errors", 1.5),
        ("unit_errors", None),
        ("errors", float("nan")),
        ("unit_errors", -1),
        ("unit_errors", 201),
        ("note", 10**5 * [[]]),
    ],
)
def test_a_line_with_a_right_checksum_and_wrong_values_is_refused(coins, tmp_path, field, value):
    journal = Journal(tmp_path, coins.block_type)
    run(coins(), (6.0,), RULE, journal=journal)
    entry = json.loads(journal.file.read_text().splitlines()[0])
    del entry["crc32"]
    if field in entry:
        entry[field] = value
    else:
        entry["blocks"][field][0] = value
    head = json.dumps(entry).removesuffix("}")
    journal.file.write_text(f'{head}, "crc32": "{zlib.crc32(head.encode()):08x}"}}\n')
    with pytest.raises(ResultsError, match=r"line 1 cannot be read|cannot be right") as error:
        run(coins(), (6.0,), RULE, journal=journal)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": 5000}, "workers"),
        ({"backend": "mpi"}, "backend"),
        ({"max_time": 0.0}, "max_time"),
        ({"max_time": float("nan")}, "max_time"),
    ],
)
def test_a_wrong_argument_is_named(coins, arguments, field):
    with pytest.raises(ArgumentError) as error:
        run(coins(), (6.0,), RULE, **arguments)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "blocks"),
        ({"limit": 1, "target_errors": 0}, "target_errors"),
        ({"limit": 1, "rel_width": 0.0}, "rel_width"),
        ({"limit": 1, "rel_width": 11.0}, "rel_width"),
    ],
)
def test_a_wrong_rule_is_named(arguments, field):
    with pytest.raises(ArgumentError) as error:
        Rule(**arguments)
    assert error.value.field == field


@pytest.mark.parametrize(
    ("backend", "package", "extra"), [("loky",) * 2 + ("sweep",), ("dask", "distributed", "dask"), ("ray",) * 3]
)
def test_a_backend_that_is_not_installed_names_its_extra(coins, monkeypatch, backend, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(MissingExtra, match=rf"{package} is not installed; .*hardpath\[{extra}\]"),
        open_pool(coins(), 2, backend),
    ):
        pass


@pytest.mark.parametrize(
    ("backend", "variable", "address", "part"),
    [
        ("dask", "DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:1", "no cluster can be reached: Connection refused"),
        ("dask", "DASK_SCHEDULER_ADDRESS", "nonsense", "must be HOST:PORT of a dask cluster"),
        ("dask", "DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:99999", "must be HOST:PORT of a dask cluster"),
        ("ray", "RAY_ADDRESS", "127.0.0.1:1", "no cluster can be reached: Connection refused"),
        ("ray", "RAY_ADDRESS", "ray://127.0.0.1:1", "no cluster can be reached: Connection refused"),
        ("ray", "RAY_ADDRESS", "nonsense", "must be HOST:PORT of a ray cluster"),
    ],
)
def test_a_cluster_that_is_not_there_is_named_at_once(coins, monkeypatch, backend, variable, address, part):
    monkeypatch.setenv(variable, address)
    with pytest.raises(WorkerError, match=f"{variable} is '{address}'") as error:
        run(coins(), (6.0,), RULE, backend=backend)
    assert part in str(error.value)


def test_workers_of_loky_are_started_with_ctrl_c_held_back(coins):
    class Masked(coins):
        def run(self, snr_db, block):
            held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return super().run(snr_db, block)._replace(note="held" if signal.SIGINT in held else "free")

    found = run(Masked(), (6.0,), Rule(limit=4), workers=2).answers[0].blocks
    assert {block.note for block in found} == {"held"}
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
