"""Raw samples through GNU Radio and back: what the receiver's tests rest on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.radio.flowgraph import AHEAD, PAD, UNLIKE, channel_model
from benchmarks.radio.stream import QUIET_S, carry
from link.errors import RadioError
from link.radio.frontends import frontend_spec

PATTERNS = ("push-pull", "request-reply")


def noise(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(scale=np.sqrt(0.5), size=(count, 2)).astype(np.float32).view(np.complex64)[:, 0]


def through(graph, samples, missing=PAD, **options):
    """What comes out of a flowgraph, but for the samples that stay inside."""
    with frontend_spec("zmq", {**graph.options, **options}).build() as radio:
        return carry(radio, samples, len(samples) - missing)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_million_samples_come_back_as_they_were_sent(flowgraph, pattern):
    sent = noise(2_000_000)
    assert np.array_equal(through(flowgraph(pattern=pattern), sent, missing=0), sent)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_channel_without_impairments_gives_back_what_was_sent_but_for_a_constant_delay(flowgraph, pattern):
    sent = noise(2_000_000)
    received = through(flowgraph(channel_model(), pattern=pattern), sent)
    assert np.array_equal(received, sent[AHEAD : AHEAD + len(received)])


def test_the_last_samples_stay_inside_until_more_are_sent(flowgraph):
    graph = flowgraph(channel_model())
    sent = noise(5000)
    with frontend_spec("zmq", graph.options).build() as radio:
        carry(radio, sent, len(sent) - PAD)
        assert len(radio.recv(PAD, 0.5).samples) == 0
        assert np.array_equal(carry(radio, np.zeros(PAD, np.complex64), PAD)[: PAD - AHEAD], sent[AHEAD - PAD :])


def cut_otherwise(flowgraph, sent, **impairments):
    """The same stream through the same channel twice, in messages and blocks of other sizes."""
    whole = through(flowgraph(channel_model(**impairments)), sent)
    with frontend_spec(
        "zmq", {**flowgraph(channel_model(**impairments)).options, "message_samples": 777}
    ).build() as radio:
        return whole, carry(radio, sent, len(sent) - PAD, chunk=5000)


def test_a_seed_gives_the_same_bytes_however_the_samples_are_cut(flowgraph):
    sent = noise(300_000)
    whole, cut = cut_otherwise(flowgraph, sent, noise_voltage=0.5, taps=(1.0, 0.2j), seed=3)
    assert np.array_equal(cut, whole)
    assert not np.array_equal(
        through(flowgraph(channel_model(noise_voltage=0.5, taps=(1.0, 0.2j), seed=4)), sent), whole
    )


def test_a_frequency_offset_gives_the_same_samples_up_to_their_last_bit(flowgraph):
    whole, cut = cut_otherwise(flowgraph, noise(300_000), noise_voltage=0.5, frequency_offset=1e-3, seed=3)
    # Its product is rounded otherwise by vector instructions than at the end of a buffer, which lies anywhere.
    assert np.abs(whole).max() < 8
    assert np.abs(whole - cut).max() < 4 * 2**-21  # ulp of a float32 below 8


@pytest.mark.parametrize("noise_voltage", [0.1, 0.5])
def test_noise_has_the_variance_asked_for(flowgraph, noise_voltage):
    sent = noise(400_000)
    received = through(flowgraph(channel_model(noise_voltage=noise_voltage)), sent)
    error = received - sent[AHEAD : AHEAD + len(received)]
    # |n|^2 is exponential: the mean over GNU Radio's pool of 16,384 values has a relative deviation of 1 / sqrt(16,384).
    assert np.mean(np.abs(error) ** 2) == pytest.approx(noise_voltage**2, rel=5 / np.sqrt(16_384))


def test_a_frequency_offset_turns_each_sample_by_as_much(flowgraph):
    sent = np.ones(20_000, np.complex64)
    received = through(flowgraph(channel_model(frequency_offset=1e-3)), sent).astype(complex)
    steps = np.angle(received[1001:] / received[1000:-1]) / (2 * np.pi)
    # The phase is a float32: below 2 pi its steps are 2^-21, its differences twice as coarse.
    assert np.allclose(steps, 1e-3, atol=2**-20)


def test_a_clock_that_is_faster_by_100_ppm_gives_fewer_samples(flowgraph):
    sent = noise(200_000)
    with frontend_spec("zmq", flowgraph(channel_model(epsilon=1.0001)).options).build() as radio:
        received = carry(radio, sent, 199_960)
        assert len(radio.recv(1 << 16, 0.5).samples) <= 20
    late = 20 + AHEAD  # 200,000 samples times 1e-4
    assert np.vdot(received[-500:], sent[late + 199_460 : late + 199_960]).real > 0.9 * 500


def test_the_unlike_link_is_the_same_link_every_time(flowgraph):
    sent = noise(100_000)
    first = through(flowgraph(*UNLIKE), sent, missing=64)
    second = through(flowgraph(*UNLIKE), sent, missing=64, message_samples=777)
    # Its last bit may differ, and where a step of the quantizer is nearer than that so may the step: once in 10^4 streams.
    assert np.count_nonzero(first != second) <= 2


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_flowgraph_killed_in_the_middle_of_a_stream_is_told_by_send_and_by_recv(flowgraph, pattern):
    graph = flowgraph(channel_model(), pattern=pattern)
    with frontend_spec("zmq", graph.options).build() as radio:
        carry(radio, noise(100_000), 100_000 - PAD)
        radio.send(noise(30_000), 0.1)
        os.kill(graph.pid, signal.SIGKILL)
        with pytest.raises(RadioError, match=rf"^the peer at {graph.source} is gone$"):
            until_told(lambda: radio.send(noise(10_000), 0.1))
        with pytest.raises(RadioError, match=rf"^the peer at {graph.sink} is gone$"):
            until_told(lambda: radio.recv(10_000, 0.1))


def test_a_flowgraph_that_dies_gives_what_it_had_sent_before(flowgraph):
    graph = flowgraph(dies_after=50_000)
    with frontend_spec("zmq", graph.options).build() as radio, pytest.raises(RadioError, match="is gone"):
        carry(radio, noise(1_000_000), 1_000_000)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_stream_goes_on_when_the_flowgraph_is_back_and_says_that_samples_are_missing(flowgraph, pattern):
    graph = flowgraph(pattern=pattern)
    with frontend_spec("zmq", graph.options).build() as radio:
        carry(radio, noise(10_000), 10_000)
        graph.kill()
        with pytest.raises(RadioError, match="is gone"):
            until_told(lambda: radio.recv(10_000, 0.1))
        graph.start()
        sent = noise(1000, seed=1)
        taken = persistently(lambda: radio.send(sent, 0.1))
        assert taken == len(sent)
        block = persistently(lambda: radio.recv(1000, 0.1), lambda block: len(block.samples))
        assert block.lost is None
        assert np.array_equal(block.samples, sent[: len(block.samples)])


def test_a_flowgraph_ends_with_the_process_that_started_it(gnuradio):
    program = (
        "from benchmarks.radio.flowgraph import Flowgraph\n"
        "import time\n"
        "graph = Flowgraph(source='tcp://127.0.0.1:9')\n"
        "print(graph.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as starter:
        pid = int(starter.stdout.readline())
        starter.kill()
    end = time.monotonic() + QUIET_S
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"  # not yet buried by who inherited it
    except OSError:
        return False


def until_told(act):
    """Go on until it raises, or for as long as a hang is told from a slow machine."""
    end = time.monotonic() + QUIET_S
    while time.monotonic() < end:
        act()


def persistently(act, done=bool):
    """What it gives in the end, however long the peer is away."""
    end = time.monotonic() + QUIET_S
    while time.monotonic() < end:
        try:
            if done(given := act()):
                return given
        except RadioError:
            time.sleep(0.01)
    pytest.fail("the peer did not come back")
