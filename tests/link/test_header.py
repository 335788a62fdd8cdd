"""The header's block code, its exact rates, and the frames that share it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, norm

from link.channel import CHANNELS, Awgn, build_channel
from link.errors import ArgumentError
from link.header import carry_headers, frames_of, read_headers, write_headers
from link.header_theory import block_rates, error_rate, loss_rate, uniform_rates
from link.manifest import HeaderSpec
from link.randomness import Draws, Stream
from link.reed_muller import CODES, decode, encode

# Each rate below is compared with its Clopper-Pearson interval at this level: a false alarm in 10^6 runs of fixed seeds.
LEVEL = 1.0 - 1e-6
ONE = HeaderSpec(repeats=1, frame_samples=1, threshold=0.6)


def clopper_pearson(count, total):
    tail = (1.0 - LEVEL) / 2.0
    low = beta.ppf(tail, count, total - count + 1) if count else 0.0
    return low, (beta.ppf(1.0 - tail, count + 1, total - count) if count < total else 1.0)


def assert_rate(count, total, expected):
    low, high = clopper_pearson(count, total)
    assert low <= expected <= high, (count / total, expected, low, high)


every_code = pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))


def codewords(code):
    """All codewords as signs, written out from the definition."""
    n = 2**code.m
    return np.array(
        [[(-1) ** (message // n + bin(message % n & j).count("1")) for j in range(n)] for message in range(2 * n)]
    )


@every_code
def test_the_code_is_that_of_its_definition_with_half_its_length_as_distance(code):
    n = code.code_bits
    symbols = encode(np.arange(2 * n), code=code)
    np.testing.assert_allclose(symbols.reshape(2 * n, n) * math.sqrt(2.0), codewords(code), rtol=0, atol=1e-6)
    distances = {int((a != b).sum()) for a, b in itertools.combinations(codewords(code), 2)}
    assert distances == {n // 2, n}


@every_code
def test_every_message_survives_without_noise_with_a_metric_of_one(code):
    for repeats in (1, 3):
        sent = np.arange(2 ** (code.m + 1))
        symbols = encode(sent, repeats, code)
        assert symbols.shape[1] == repeats * 2**code.m // 2
        messages, metric = decode(symbols, np.full(symbols.shape[:2], 0.1), repeats, code)
        assert messages.tolist() == sent.tolist()
        np.testing.assert_allclose(metric, 1.0, rtol=1e-6)


def test_the_decoder_is_maximum_likelihood_over_all_codewords():
    """Against the least squared distance over the noise variance, for symbols of unequal noise and some erased."""
    random = np.random.default_rng(1)
    no = random.uniform(2.0, 40.0, size=(300, 32)).astype(np.float32)
    no[random.uniform(size=no.shape) < 0.1] = np.inf
    sent = random.integers(64, size=300)
    noise = random.normal(size=(300, 32, 2)) * np.sqrt(np.where(np.isinf(no), 0.0, no) / 2)[..., None]
    y = np.where(np.isinf(no)[..., None], 0.0, encode(sent, 2) + noise)
    candidates = encode(np.arange(64), 2).astype(np.float64)
    distance = (((y[:, None] - candidates) ** 2).sum(axis=-1) / no[:, None]).sum(axis=-1)
    found, metric = decode(y, no, 2)
    assert (found != sent).any()
    np.testing.assert_array_equal(found, distance.argmin(axis=-1))
    correlation = (y * candidates[found] / no[..., None]).sum(axis=(1, 2)) / (1.0 / no).sum(axis=1)
    np.testing.assert_allclose(metric, correlation, rtol=1e-6)


def test_a_block_that_was_erased_has_a_metric_of_zero():
    _, metric = decode(np.zeros((2, 16, 2), np.float32), np.full((2, 16), np.inf, np.float32))
    assert metric.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("snr_db", [-12.0, -5.0, 0.0, 2.0])
@pytest.mark.parametrize(
    ("repeats", "threshold", "code"),
    [(1, 0.0, "rm-1-5"), (1, 0.6, "rm-1-5"), (2, 0.45, "rm-1-4"), (4, 0.7, "rm-1-3")],
)
def test_the_block_rates_are_the_integrals_by_another_quadrature(snr_db, repeats, threshold, code):
    n = CODES[code].code_bits
    s = math.sqrt(10 ** (-snr_db / 10) / (n * repeats))
    within = lambda x: math.erf(x / s / math.sqrt(2))  # noqa: E731
    top = threshold + 1 + 14 * s
    integral = lambda f: quad(f, threshold, top, epsabs=0, epsrel=1e-12, limit=500, points=[1.0])[0]  # noqa: E731
    rates = block_rates(snr_db, repeats, threshold, CODES[code])
    assert rates.right == pytest.approx(integral(lambda x: norm.pdf(x, 1, s) * within(x) ** (n - 1)), rel=1e-10)
    others = (2 * n - 2) * integral(
        lambda x: norm.pdf(x, 0, s) * within(x) ** (n - 2) * (norm.cdf((x - 1) / s) - norm.cdf((-x - 1) / s))
    )
    assert rates.orthogonal == pytest.approx(others, rel=1e-9)
    assert rates.opposite == pytest.approx(integral(lambda x: norm.pdf(x, -1, s) * within(x) ** (n - 1)), rel=1e-9)


@given(st.floats(-30.0, 60.0), st.integers(1, 16), st.floats(0.0, 0.99), st.sampled_from(list(CODES.values())))
def test_the_block_rates_sum_to_one(snr_db, repeats, threshold, code):
    rates = block_rates(snr_db, repeats, threshold, code)
    assert float(sum(rates)) == pytest.approx(1.0, abs=1e-12)
    assert all(0.0 <= rate <= 1.0 + 1e-12 for rate in rates)


def test_the_rates_take_arrays_and_refuse_what_is_out_of_range():
    grid = np.array([[-6.0, 0.0], [3.0, 60.0]])
    assert loss_rate(grid, ONE).shape == (2, 2)
    assert loss_rate(grid, ONE)[0, 1] == loss_rate(0.0, ONE)
    for arguments, field in (((0.0, 1, 1.0), "threshold"), ((0.0, 0, 0.5), "repeats")):
        with pytest.raises(ArgumentError, match=f"^{field} must be "):
            block_rates(*arguments)
    with pytest.raises(ArgumentError, match=r"^mode must be in \[0, 3\)"):
        uniform_rates(0.0, ONE, 3, 3)


@pytest.mark.parametrize(
    ("snr_db", "repeats", "threshold", "code"),
    [
        (-3.0, 1, 0.6, "rm-1-5"),
        (-6.0, 2, 0.7, "rm-1-5"),
        (0.0, 1, 0.5, "rm-1-5"),
        (0.0, 1, 0.5, "rm-1-4"),
        (3.0, 1, 0.2, "rm-1-3"),
    ],
)
def test_a_simulated_block_is_lost_and_wrong_as_often_as_the_closed_form_says(snr_db, repeats, threshold, code):
    blocks = 40_000
    spec = HeaderSpec(code=code, repeats=repeats, frame_samples=1, threshold=threshold)
    draws = Draws(3, np.arange(blocks))
    sent = np.arange(blocks) % 2 ** CODES[code].message_bits
    x = encode(sent, repeats, CODES[code])
    received = Awgn()(x, np.full(blocks, x.shape[1]), snr_db, draws)
    found, metric = decode(received.y, received.no, repeats, CODES[code])
    lost = metric < threshold
    assert_rate(int(lost.sum()), blocks, float(loss_rate(snr_db, spec)))
    assert_rate(int((~lost & (found != sent)).sum()), blocks, float(error_rate(snr_db, spec)))


def test_noise_of_the_wrong_convention_would_be_seen():
    """3 dB, the difference between N0 a dimension and N0 a complex symbol, lies outside of the interval used above."""
    low, high = clopper_pearson(round(40_000 * float(error_rate(-3.0, ONE))), 40_000)
    assert not low <= float(error_rate(0.0, ONE)) <= high
    assert not low <= float(error_rate(-6.0, ONE)) <= high


@pytest.mark.parametrize(("code", "snr_db"), [("rm-1-5", -7.0), ("rm-1-4", -4.0), ("rm-1-3", -1.0)])
@pytest.mark.parametrize(("num_modes", "mode"), [(2, 0), (3, 2), (17, 0), (17, 16), (32, 5)])
def test_the_header_of_a_uniform_frame_is_lost_and_wrong_as_often_as_its_closed_form_says(
    num_modes, mode, code, snr_db
):
    """17 modes include the opposite codeword of modes 0 and 16, 32 modes leave no invalid base mode."""
    frames = 20_000
    spec = HeaderSpec(code=code, repeats=1, frame_samples=1, threshold=0.5 if code == "rm-1-5" else 0.2)
    outcome = carry_headers(np.full(frames, mode), spec, num_modes, 1, Awgn(), snr_db, Draws(4, np.arange(frames)))
    expected = uniform_rates(snr_db, spec, num_modes, mode)
    assert float(sum(expected)) == pytest.approx(1.0, abs=1e-12)
    assert_rate(outcome.headers_lost, frames, float(expected.lost))
    assert_rate(outcome.headers_wrong, frames, float(expected.wrong))
    assert (outcome.mode[outcome.lost] == 1).all()


@given(st.data())
def test_every_choice_of_modes_survives_without_noise(data):
    num_modes = data.draw(st.integers(2, 32))
    spec = HeaderSpec(
        code=data.draw(st.sampled_from(list(CODES))),
        repeats=data.draw(st.integers(1, 2)),
        frame_samples=data.draw(st.integers(1, 64)),
    )
    samples = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=80, unique=True))
    modes = np.array([data.draw(st.integers(0, num_modes - 1)) for _ in samples])
    outcome = carry_headers(modes, spec, num_modes, 0, Awgn(), 40.0, Draws(0, np.array(samples)))
    assert outcome.mode.tolist() == modes.tolist()
    assert not (outcome.lost | outcome.wrong).any()
    assert outcome.right.all()


@pytest.mark.parametrize(
    ("modes", "num_modes", "blocks"),
    [
        ([2, 2, 2, 2], 3, 1),
        ([0], 32, 1),
        ([0, 1], 2, 2),
        ([0, 1, 2, 2], 3, 3),
        ([0, 1, 2], 3, 2),
        ([0] * 63 + [1], 2, 12),
        ([31] * 63 + [30], 32, 55),
    ],
)
def test_a_header_has_the_blocks_that_its_theory_of_operation_says(modes, num_modes, blocks):
    spec = HeaderSpec(repeats=2, frame_samples=64)
    draws = Draws(0, np.arange(len(modes)))
    x, num_symbols = write_headers(np.array(modes), frames_of(draws, 64), spec, num_modes)
    assert num_symbols.tolist() == [blocks * 32]
    assert x.shape == (1, blocks * 32, 2)
    outcome = carry_headers(np.array(modes), spec, num_modes, 0, Awgn(), 30.0, draws)
    assert outcome.header_symbols == blocks * 32
    np.testing.assert_allclose(outcome.symbols, blocks * 32 / len(modes))


@pytest.mark.parametrize(("code", "head", "named"), [("rm-1-5", 1, 27), ("rm-1-4", 2, 32), ("rm-1-3", 2, 40)])
def test_a_shorter_code_has_more_blocks_of_fewer_symbols(code, head, named):
    spec = HeaderSpec(code=code, repeats=1, frame_samples=32)
    for modes, blocks in (([3] * 32, head), ([3] * 31 + [30], head + named)):
        outcome = carry_headers(np.array(modes), spec, 32, 0, Awgn(), 30.0, Draws(0, np.arange(32)))
        assert outcome.header_symbols == blocks * CODES[code].symbols
        assert outcome.mode.tolist() == modes


def test_a_head_that_is_not_padded_with_zeros_is_lost():
    # Base mode 00010, uniform 1, in blocks of 4 bits: 0001 01, and two bits of padding.
    spec = HeaderSpec(code="rm-1-3", repeats=1, frame_samples=4, threshold=0.0)
    frames = frames_of(Draws(0, np.arange(4)), 4)
    for last, lost in ((0b01_00, False), (0b01_01, True), (0b01_10, True)):
        x = encode([[0b0001, last]], 1, CODES["rm-1-3"]).reshape(1, -1, 2)
        modes, found = read_headers(x, np.full(x.shape[:2], 0.1, np.float32), frames, spec, 3)
        assert found.tolist() == [lost]
        assert lost or modes.tolist() == [2, 2, 2, 2]


def test_the_blocks_hold_base_mode_uniform_bit_and_modes_in_the_order_of_the_sample_numbers():
    # Samples 9, 8, 11 of the frame 8..11: modes 1, 2, 2 by number, two bits each, in one block.
    draws = Draws(0, np.array([9, 8, 11]))
    modes = np.array([2, 1, 2])
    x, _ = write_headers(modes, frames_of(draws, 4), HeaderSpec(repeats=1, frame_samples=4), 3)
    np.testing.assert_array_equal(x[0].reshape(2, 16, 2), encode([0b00010_0, 0b01_10_10]))
    x, _ = write_headers(np.array([2, 2, 2]), frames_of(draws, 4), HeaderSpec(repeats=1, frame_samples=4), 3)
    np.testing.assert_array_equal(x[0], encode(0b00010_1))


def perfect(messages, sizes, spec, num_modes):
    """What the receiver makes of frames whose blocks arrive as given, one row a sample."""
    draws = Draws(0, np.concatenate([spec.frame_samples * f + np.arange(size) for f, size in enumerate(sizes)]))
    x = encode(np.array(messages), spec.repeats).reshape(len(sizes), -1, 2)
    return read_headers(x, np.full(x.shape[:2], 0.1, np.float32), frames_of(draws, spec.frame_samples), spec, num_modes)


def test_a_mode_that_the_bundle_does_not_have_makes_the_header_lost():
    spec = HeaderSpec(repeats=1, frame_samples=4)
    for messages, lost in (
        ([0b00010_1, 0], False),
        ([0b00011_1, 0], True),
        ([0b00001_0, 0b00_01_10], False),
        ([0b00011_0, 0b00_01_10], True),
        ([0b00001_0, 0b00_11_10], True),
    ):
        assert perfect([messages], [3], spec, 3)[1].tolist() == [lost], messages
    # The third sample's bits say 3, but a frame of two samples has none.
    modes, lost = perfect([[0b00001_0, 0b00_01_11]], [2], spec, 3)
    assert (modes.tolist(), lost.tolist()) == ([0, 1], [False])


def test_announced_blocks_that_were_not_sent_are_lost_at_any_threshold():
    spec = HeaderSpec(repeats=1, frame_samples=4, threshold=0.0)
    _, lost = perfect([[0b00001_0]], [3], spec, 3)
    assert lost.tolist() == [True]


def test_a_weak_block_loses_the_whole_frame_and_no_other():
    spec = HeaderSpec(repeats=1, frame_samples=4, threshold=0.5)
    draws = Draws(0, np.arange(8))
    frames = frames_of(draws, 4)
    x, _ = write_headers(np.array([0, 1, 2, 0, 2, 1, 0, 0]), frames, spec, 3)
    no = np.full(x.shape[:2], 0.1, np.float32)
    for scale, lost in ((0.49, True), (0.51, False)):
        y = x.copy()
        y[1, 32:] *= scale  # the last of three blocks
        assert read_headers(y, no, frames, spec, 3)[1].tolist() == [False, lost]


def test_a_block_that_is_not_used_loses_nothing():
    spec = HeaderSpec(repeats=1, frame_samples=4)
    x = encode([[0b00010_1, 13]], 1)
    x[:, 1] = 0.0  # noise where nothing was sent would be as good
    frames = frames_of(Draws(0, np.arange(4)), 4)
    modes, lost = read_headers(x.reshape(1, 32, 2), np.full((1, 32), 0.1, np.float32), frames, spec, 3)
    assert (modes.tolist(), lost.tolist()) == ([2, 2, 2, 2], [False])


@pytest.mark.parametrize("name", CHANNELS)
def test_neither_the_order_of_a_batch_nor_its_split_at_frame_borders_changes_an_outcome(name):
    spec = HeaderSpec(repeats=1, frame_samples=4, threshold=0.6)
    channel = build_channel(name)
    modes = np.random.default_rng(2).integers(3, size=200)
    modes[80:160] = 2  # uniform frames beside mixed ones
    samples, draw = np.tile(np.arange(3, 103), 2), np.repeat([0, 7], 100)

    def outcome(rows):
        return carry_headers(modes[rows], spec, 3, 1, channel, -3.0, Draws(5, samples[rows], draw[rows]))

    whole = outcome(np.arange(200))
    assert whole.lost.any()
    assert whole.wrong.any()
    assert 0 < whole.headers_lost < whole.headers

    order = np.random.default_rng(3).permutation(200)
    shuffled = outcome(order)
    parts = [
        outcome(np.flatnonzero(frame))
        for frame in ((samples // 4 + 100 * draw) == f for f in range(0, 800))
        if frame.any()
    ]
    for name_ in ("mode", "lost", "wrong", "symbols"):
        np.testing.assert_array_equal(getattr(shuffled, name_), getattr(whole, name_)[order])
    for name_ in ("headers", "headers_lost", "headers_wrong", "header_symbols"):
        assert getattr(shuffled, name_) == getattr(whole, name_) == sum(getattr(part, name_) for part in parts)
    by_frame = np.lexsort((samples, draw))
    np.testing.assert_array_equal(np.concatenate([part.mode for part in parts]), whole.mode[by_frame])
    np.testing.assert_array_equal(np.concatenate([part.wrong for part in parts]), whole.wrong[by_frame])


def test_a_sample_that_is_there_twice_in_a_draw_is_refused():
    with pytest.raises(ArgumentError, match="samples must hold each number once a draw"):
        frames_of(Draws(0, np.array([1, 2, 1])), 4)
    assert frames_of(Draws(0, np.array([1, 2, 1]), np.array([0, 0, 1])), 4).size.tolist() == [2, 1]


class Recorder:
    """A channel that remembers what it carried."""

    name = "recorder"

    def __init__(self, inner):
        self.inner, self.seen = inner, []

    def __call__(self, x, num_symbols, snr_db, draws):
        received = self.inner(x, num_symbols, snr_db, draws)
        self.seen.append((draws, x, received))
        return received


def test_a_headers_noise_and_fades_are_not_its_payloads():
    recorder = Recorder(build_channel("rayleigh"))
    samples = np.arange(6)
    carry_headers(np.zeros(6, np.int64), ONE, 2, 0, recorder, 3.0, Draws(1, samples))
    ((draws, _, received),) = recorder.seen
    assert draws.within is Stream.HEADER
    payload = build_channel("rayleigh")(encode(np.ones(6, np.int64)), np.full(6, 16), 3.0, Draws(1, samples))
    assert not np.isin(received.no[:, 0], payload.no[:, 0]).any()
    assert len(np.unique(received.no)) == 6, "one gain for the block of each of six frames"


def test_over_fading_the_rates_are_the_means_over_the_gain():
    """Rayleigh block fading: one gain a header of one block, exponential; the mean over it by quadrature."""
    frames, spec = 20_000, HeaderSpec(repeats=1, frame_samples=1, threshold=0.6)
    outcome = carry_headers(
        np.zeros(frames, np.int64), spec, 3, 0, build_channel("rayleigh"), 3.0, Draws(6, np.arange(frames))
    )
    gains = -np.log1p(-(np.arange(4000) + 0.5) / 4000)  # midpoints in probability
    conditional = uniform_rates(np.clip(3.0 + 10 * np.log10(gains), -60.0, None), spec, 3, 0)
    for count, rates in ((outcome.headers_lost, conditional.lost), (outcome.headers_wrong, conditional.wrong)):
        assert_rate(count, frames, float(rates.mean()))


def test_a_headers_randomness_is_addressed_by_frame_draw_and_seed():
    recorder = Recorder(Awgn())

    def received(samples, draw=0, seed=1):
        carry_headers(
            np.zeros(len(samples), np.int64),
            HeaderSpec(frame_samples=4),
            2,
            0,
            recorder,
            0.0,
            Draws(seed, np.array(samples), draw),
        )
        return recorder.seen[-1][2].y

    whole = received(range(8, 16))
    np.testing.assert_array_equal(received([9, 10]), whole[:1])
    np.testing.assert_array_equal(received([15]), whole[1:])
    for other in (received([8], draw=1), received([8], seed=2), received([16]), whole[1:]):
        assert not np.isin(other, whole[0]).any()


TWO = Draws(0, np.arange(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frames_of(TWO, 0), "frame_samples must be at least 1, got 0"),
        (lambda: frames_of(Draws(0, np.zeros(0, np.int64)), 4), r"samples must be a list of .* got shape \(0,\)"),
        (lambda: carry([0, 2]), r"modes must be in \[0, 2\), got \[0, 2\]"),
        (lambda: carry([0, -1]), r"modes must be in \[0, 2\), got \[-1, 0\]"),
        (lambda: carry([0]), r"modes must be 2 integers, got dtype int64 and shape \(1,\)"),
        (lambda: carry([0.0, 1.0]), r"modes must be 2 integers, got dtype float64 and shape \(2,\)"),
        (lambda: carry([0, 1], num_modes=1), r"num_modes must be in \[2, 32\], got 1"),
        (lambda: carry([0, 1], num_modes=33), r"num_modes must be in \[2, 32\], got 33"),
        (lambda: carry([0, 1], default_mode=2), r"default_mode must be in \[0, 2\), got 2"),
        (
            lambda: write_headers(np.zeros(2, np.int64), frames_of(TWO, 2), ONE, 2),
            "frames must have at most 1 samples each, got 2",
        ),
        (lambda: read(np.zeros((2, 16))), r"y must have shape \(2, at most 32, 2\), got \(2, 16\)"),
        (lambda: read(np.zeros((2, 48, 2))), r"y must have shape \(2, at most 32, 2\), got \(2, 48, 2\)"),
        (lambda: read(np.zeros((2, 16, 2)), np.ones((2, 15))), r"no must have shape \(2, 16\), got \(2, 15\)"),
    ],
)
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def carry(modes, num_modes=2, default_mode=0):
    return carry_headers(np.array(modes), ONE, num_modes, default_mode, Awgn(), 3.0, TWO)


def read(y, no=None):
    return read_headers(y, np.ones(y.shape[:2]) if no is None else no, frames_of(TWO, 1), ONE, 2)
