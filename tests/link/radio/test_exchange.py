from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import RadioError
from link.radio import exchange as exchange_module
from link.radio.exchange import exchange
from link.radio.frontend import EMPTY, Block, Capabilities, FrontEnd

BURST = np.exp(1j * np.arange(1000)).astype(np.complex64)


class Device(FrontEnd):
    """Gives back what it took, by a clock that goes on as it is waited for.

    Parameters
    ----------
    takes, gives : int
        Samples a call.
    holds : int
        Taken at most, until some are given back.
    keeps : int
        Samples at the end that never come back.
    until : int or None
        After so many samples sent it takes no more.
    """

    def __init__(self, takes=64, gives=64, holds=1 << 20, keeps=0, until=None, **capabilities):
        self.abilities = Capabilities(**{"chunk": 100, **capabilities})
        self.takes, self.gives, self.holds, self.keeps, self.until = takes, gives, holds, keeps, until
        self.now, self.sent, self.held, self.calls = 0.0, EMPTY, EMPTY, []
        self.before = []

    @property
    def capabilities(self):
        return self.abilities

    def open(self):
        pass

    def close(self):
        pass

    def send(self, samples, timeout_s):
        assert 0 < len(samples) <= self.abilities.chunk
        room = min(self.takes, self.holds - len(self.held))
        if self.until is not None:
            room = min(room, self.until - len(self.sent))
        taken = max(0, min(room, len(samples)))
        self.calls.append("send")
        self.sent, self.held = (np.concatenate([stream, samples[:taken]]) for stream in (self.sent, self.held))
        self.now += 0.0 if taken else timeout_s
        return taken

    def recv(self, most, timeout_s):
        self.calls.append("recv")
        if self.before:
            return self.before.pop(0)
        there = max(0, len(self.held) - self.keeps)
        given = self.held[: min(self.gives, there, most)]
        self.held = self.held[len(given) :]
        self.now += 0.0 if len(given) else timeout_s
        return Block(given)


class Script(Device):
    """Gives blocks as they are listed, whatever is sent."""

    def __init__(self, *blocks, **options):
        super().__init__(**options)
        self.blocks = list(blocks)

    def recv(self, most, timeout_s):
        if not self.sent.size or not self.blocks:
            self.now += timeout_s
            return Block()
        return self.blocks.pop(0)


@pytest.fixture
def over(monkeypatch):
    """Function that exchanges a burst with a device whose clock is the only one."""

    def run(device, samples=BURST, **options):
        monkeypatch.setattr(exchange_module, "time", SimpleNamespace(monotonic=lambda: device.now))
        return exchange(device, samples, **{"timeout_s": 1.0, **options})

    return run


def ones(count):
    return np.ones(count, np.complex64)


@pytest.mark.parametrize("takes", [1, 7, 100])
@pytest.mark.parametrize("gives", [1, 9, 1000])
@pytest.mark.parametrize("holds", [1, 150, 1 << 20])
def test_a_burst_comes_back_whole_however_a_device_cuts_it(over, takes, gives, holds):
    device = Device(takes, gives, holds)
    capture = over(device)
    assert np.array_equal(device.sent, BURST)
    assert [np.array_equal(run, BURST) for run in capture.runs] == [True]
    assert capture[1:] == (0, 0, 0, 0)
    assert device.now < 0.1, "nobody waits for what is there"


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 500), st.integers(0, 256), st.integers(257, 600))
def test_sizes_and_delays_change_nothing(takes, gives, more, keeps, count):
    device = Device(takes, gives, keeps + more, keeps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange_module, "time", SimpleNamespace(monotonic=lambda: device.now))
        capture = exchange(device, BURST[:count], timeout_s=1.0)
    assert np.array_equal(np.concatenate(capture.runs), BURST[: count - keeps])
    assert device.now < 0.5, "256 samples may be held back for good, and are not waited for"


def test_what_came_in_before_is_let_go_of(over):
    device = Device()
    device.before = [Block(ones(50)), Block(ones(100), 3)]
    capture = over(device)
    assert np.array_equal(np.concatenate(capture.runs), BURST)
    assert capture.gaps == 0


def test_a_device_that_never_stops_giving_does_not_hold_up_the_burst(over):
    class Endless(Device):
        def recv(self, most, timeout_s):
            self.now += 1e-3
            return Block(ones(most))

    device = Endless()
    capture = over(device)
    assert len(device.sent) == 1000
    assert 1000 <= len(np.concatenate(capture.runs)) <= 2200
    assert device.now < 1.1


def test_a_device_that_gives_more_than_was_asked_for_is_taken_at_its_word(over):
    capture = over(Script(Block(ones(5000))))
    assert [len(run) for run in capture.runs] == [5000]


@pytest.mark.parametrize("timeout_s", [0.1, 3.0])
def test_a_device_that_takes_nothing_is_given_up(over, timeout_s):
    device = Device(takes=0)
    with pytest.raises(RadioError, match=rf"^the front end took no sample within {timeout_s:g} s$"):
        over(device, timeout_s=timeout_s)
    assert timeout_s < device.now < timeout_s + 0.05


@pytest.mark.parametrize("timeout_s", [0.1, 3.0])
def test_a_device_that_gives_nothing_is_given_up(over, timeout_s):
    device = Device(gives=0)
    with pytest.raises(RadioError, match=rf"^the front end gave no sample within {timeout_s:g} s$"):
        over(device, timeout_s=timeout_s)
    assert timeout_s < device.now < timeout_s + 0.3


@pytest.mark.parametrize("until", [0, 500])
def test_a_device_that_gives_without_end_and_takes_no_more_is_given_up(over, until):
    class Deaf(Device):
        def recv(self, most, timeout_s):
            assert self.now < 10
            self.now += 1e-3
            return Block(ones(most))

    device = Deaf(until=until)
    if until:
        assert over(device).runs
    else:
        with pytest.raises(RadioError, match=r"^the front end took no sample within 1 s$"):
            over(device)
    assert 1.0 < device.now < 2.2


def test_a_device_that_stops_half_way_leaves_what_it_gave(over):
    device = Device(until=700)
    capture = over(device)
    assert np.array_equal(np.concatenate(capture.runs), BURST[:700])
    assert 1.0 < device.now < 1.1
    late = Device(keeps=600)
    capture = over(late)
    assert np.array_equal(np.concatenate(capture.runs), BURST[:400])
    assert 1.0 < late.now < 1.2, "600 are more than software on the way may keep"


def test_a_slow_device_is_waited_for_as_long_as_it_goes_on(over):
    class Slow(Device):
        def recv(self, most, timeout_s):
            self.now += 0.9
            return super().recv(most, 0.0)

    device = Slow(takes=1, gives=1)
    capture = over(device, BURST[:50])
    assert np.array_equal(np.concatenate(capture.runs), BURST[:50])
    assert device.now > 40


@pytest.mark.parametrize("verb", ["send", "recv"])
@pytest.mark.parametrize("calls", [1, 9])
def test_a_device_that_dies_says_so_itself(over, verb, calls):
    class Dying(Device):
        def die(self, verb_):
            if verb_ == verb and self.calls.count(verb_) >= calls:
                raise RadioError("the cable is out")

        def send(self, samples, timeout_s):
            self.die("send")
            return super().send(samples, timeout_s)

        def recv(self, most, timeout_s):
            self.die("recv")
            return super().recv(most, timeout_s)

    with pytest.raises(RadioError, match=r"^the cable is out$"):
        over(Dying())


def test_missing_samples_part_the_runs_and_are_counted_where_they_can_be(over):
    blocks = [
        Block(ones(100)),
        Block(2 * ones(50)),
        Block(3 * ones(80), 20),
        Block(4 * ones(10), None),
        Block(5 * ones(740)),
    ]
    capture = over(Script(*blocks))
    assert [np.unique(run).real.tolist() for run in capture.runs] == [[1, 2], [3], [4, 5]]
    assert (capture.gaps, capture.lost) == (2, 20)


def test_a_gap_that_is_told_without_a_sample_is_a_gap(over):
    capture = over(Script(Block(ones(100)), Block(EMPTY, None), Block(2 * ones(900))))
    assert [len(run) for run in capture.runs if len(run)] == [100, 900]
    assert capture.gaps == 1


def test_missing_samples_are_not_waited_for(over):
    device = Script(Block(ones(300)), Block(ones(300), 400))
    capture = over(device)
    assert (capture.lost, device.now) == (400, pytest.approx(0.0, abs=0.1))


def test_samples_beyond_full_scale_are_limited_and_counted(over):
    device = Device(full_scale=1.0)
    samples = np.array([0.5 + 0.5j, 1.5, -2j, 1 - 1j, -3 + 3j], np.complex64)
    capture = over(device, samples)
    assert capture.clipped == 3
    assert np.array_equal(device.sent, np.array([0.5 + 0.5j, 1, -1j, 1 - 1j, -1 + 1j], np.complex64))
    assert over(Device(), samples).clipped == 0


def test_a_device_by_its_own_clock_is_listened_to_behind_the_burst(over):
    blocks = [Block(ones(100)) for _ in range(100)]
    capture = over(Script(*blocks, real_time=True, sample_rate_hz=10_000.0), latency_s=0.2)
    assert len(np.concatenate(capture.runs)) == 1000 + 2000
    device = Script(*blocks[:29], real_time=True, sample_rate_hz=10_000.0)
    assert len(np.concatenate(over(device, latency_s=0.2).runs)) == 2900
    assert 1.0 < device.now < 1.1, "it is waited for to the end, since its samples go on"


def test_nothing_is_sent_where_a_front_end_only_receives(over):
    class Receiver(Script):
        def recv(self, most, timeout_s):
            self.sent = ones(1)
            return super().recv(most, timeout_s)

        def send(self, samples, timeout_s):
            pytest.fail("sent")

    device = Receiver(*[Block(ones(50)) for _ in range(30)], real_time=True, sample_rate_hz=1000.0)
    device.abilities = replace(device.abilities, sends=False)
    device.blocks.insert(0, Block())
    assert len(np.concatenate(over(device, latency_s=1.0).runs)) == 1000
