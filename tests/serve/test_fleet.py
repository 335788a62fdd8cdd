"""Three servers behind a client that balances its calls itself: one is killed, then each is rolled."""

import signal
from contextlib import ExitStack

import pytest

from benchmarks.chaos.load import Load
from benchmarks.chaos.process import ServerProcess
from benchmarks.chaos.questions import make_questions

SERVERS = 3


@pytest.fixture(scope="module")
def questions(link):
    return make_questions(link, 60)


@pytest.fixture
def fleet(bundle_path):
    with ExitStack() as stack:
        yield [stack.enter_context(ServerProcess(bundle_path)) for _ in range(SERVERS)]


def target(fleet):
    return "ipv4:" + ",".join(server.address for server in fleet)


def start_again(fleet, number, bundle_path, stack):
    fleet[number] = stack.enter_context(ServerProcess(bundle_path, fleet[number].port))


def test_calls_are_shared_among_the_servers(fleet, questions):
    with Load(target(fleet), questions, callers=4) as load:
        load.wait_for(100)
        assert all(server.peers for server in fleet)
    assert load.tally().failures == ()


@pytest.mark.slow
def test_nothing_is_lost_when_one_is_killed_and_when_each_is_rolled(fleet, questions, bundle_path):
    with ExitStack() as stack, Load(target(fleet), questions, retry_s=20.0) as load:
        load.wait_for(200)
        fleet[0].signal(signal.SIGKILL)
        assert fleet[0].wait() == -signal.SIGKILL
        load.wait_for(200)
        start_again(fleet, 0, bundle_path, stack)
        for number in range(SERVERS):
            load.wait_for(100)
            fleet[number].signal(signal.SIGTERM)
            assert fleet[number].wait() == 0
            start_again(fleet, number, bundle_path, stack)
        load.wait_for(200)
        tally = load.stop()
        assert [server.tracebacks() for server in fleet] == [0] * SERVERS
    assert tally.failures == ()
    assert tally.answered >= 900
