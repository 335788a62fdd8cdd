import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import link
from link import theory
from link.bits import group
from link.channel import build_channel
from link.channel.fence import import_sionna
from link.channel.multipath import Multipath
from link.channel.ofdm import Carrier
from link.constellation import map_bits, max_log_llr
from link.errors import ArgumentError
from link.randomness import Draws, Stream

ROOT = Path(link.__file__).parent.parent
SIGMAS = 4.5
"""Two-sided chance of 7e-6 that one normal mean is farther out."""


def send(channel, samples, num_symbols, snr_db=15.0, seed=3):
    """Random QPSK over a channel: what was sent, and what was received."""
    draws = Draws(seed, np.arange(samples))
    x = map_bits(draws.bits(Stream.BITS, 0, 2 * num_symbols).reshape(samples, num_symbols, 2).astype(np.float32))
    return x, channel(x, np.full(samples, num_symbols), snr_db, draws)


def excess(x, received):
    """|y - x|^2 over the variance that the receiver is told: mean of each sample, and over samples with standard error."""
    of_sample = np.mean(np.sum((received.y - x) ** 2, axis=-1, dtype=np.float64) / received.no, axis=1)
    return of_sample.mean(), of_sample.std(ddof=1) / np.sqrt(len(x))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("name", ["tdl-c", "tdl-e", "cdl-b", "cdl-d"])
@pytest.mark.parametrize(("csi", "pilots"), [("perfect", 0), ("ls", 2), ("lmmse", 1)])
def test_one_sample_alone_hears_what_it_hears_among_others(name, csi, pilots):
    channel = build_channel(name, csi=csi, pilots=pilots, resource_blocks=2)
    lengths = np.array([8, 3, 8, 1, 400, 0, 8])  # 400 take two slots of two blocks
    x = np.random.default_rng(0).normal(size=(7, 400, 2)).astype(np.float32)
    samples, draw = np.array([5, 6, 7, 8, 0, 1, 5]), np.array([0, 0, 0, 0, 0, 0, 2])
    together = channel(x, lengths, 6.0, Draws(1, samples, draw))
    for rows in ([0], [4], [6, 5, 1], [3, 4, 2, 0]):
        alone = channel(x[rows], lengths[rows], 6.0, Draws(1, samples[rows], draw[rows]))
        np.testing.assert_array_equal(alone.y, together.y[rows])
        np.testing.assert_array_equal(alone.no, together.no[rows])
        np.testing.assert_array_equal(alone.num_pilots, together.num_pilots[rows])
    past = np.arange(400) >= lengths[:, None]
    assert np.isinf(together.no[past]).all()
    assert np.isfinite(together.no[~past]).all()
    assert (together.y[past] == 0.0).all()


def test_each_sample_draw_seed_and_snr_fades_on_its_own():
    channel = build_channel("tdl-c")
    x = np.ones((1, 1, 2), dtype=np.float32)

    def gain(sample, draw, seed, snr_db):
        received = channel(x, np.array([1]), snr_db, Draws(seed, np.array([sample]), draw))
        return 10 ** (-snr_db / 10) / received.no.item()

    addresses = [(0, 0, 0, 6.0), (1, 0, 0, 6.0), (0, 1, 0, 6.0), (0, 0, 1, 6.0), (0, 0, 0, 6.5)]
    assert len({round(gain(*address), 4) for address in addresses}) == len(addresses)


def test_blocks_of_rows_that_go_through_sionna_together_change_nothing():
    channel = build_channel("tdl-a", csi="ls", pilots=1)
    x, together = send(channel, 150, 5)
    for start in range(0, 150, 50):
        rows = np.arange(start, start + 50)
        part = channel(x[rows], np.full(50, 5), 15.0, Draws(3, rows))
        np.testing.assert_array_equal(part.y, together.y[rows])


@pytest.mark.parametrize("order", [4, 16])
@pytest.mark.parametrize("name", ["tdl-a", "cdl-c"])
def test_without_a_line_of_sight_bits_fail_as_over_rayleigh_fading(count_errors, name, order):
    wide = build_channel(name, resource_blocks=275)  # 99 MHz, so that symbols of one realisation hardly fade together
    count_errors(wide, order, 8.0, samples=600, symbols=60).assert_rate(theory.ber_rayleigh(order, 8.0), unit_axes=1)


@pytest.mark.parametrize("name", ["tdl-b", "tdl-d", "cdl-a", "cdl-e"])
@pytest.mark.parametrize(("csi", "pilots"), [("perfect", 0), ("lmmse", 1), ("lmmse", 3)])
def test_the_variance_that_the_receiver_is_told_is_that_of_its_errors(name, csi, pilots):
    channel = build_channel(name, csi=csi, pilots=pilots, speed_kmh=120.0)
    mean, error = excess(*send(channel, 300, 60, snr_db=20.0))
    assert abs(mean - 1.0) < SIGMAS * error
    assert error < 0.05


def test_straight_lines_are_calibrated_where_gains_do_not_bend_and_too_sure_where_they_do():
    still = build_channel("tdl-a", csi="ls", pilots=1, speed_kmh=0.0, delay_spread_ns=1.0)
    mean, error = excess(*send(still, 300, 60, snr_db=20.0))
    assert abs(mean - 1.0) < SIGMAS * error
    moving = build_channel("tdl-a", csi="ls", pilots=1, speed_kmh=120.0, delay_spread_ns=1.0)
    mean, error = excess(*send(moving, 300, 60, snr_db=20.0))
    # Held over the slot, the gain at the pilot in symbol 2 is off by 2 (1 - J0(2 pi 389 Hz lag)): up to 0.41 at symbol 13.
    assert mean - SIGMAS * error > 2.0


def test_lmmse_errs_less_than_straight_lines_and_more_pilots_help_both():
    def mse(csi, pilots, snr_db):
        channel = build_channel("tdl-c", csi=csi, pilots=pilots, speed_kmh=120.0)
        return send(channel, 200, 60, snr_db)[1].report["csi_mse"]

    for snr_db in (5.0, 30.0):
        lmmse = [mse("lmmse", pilots, snr_db) for pilots in (1, 2, 3)]
        assert lmmse[0] > lmmse[1] > lmmse[2]
        assert (np.array([mse("ls", pilots, snr_db) for pilots in (1, 2, 3)]) > lmmse).all()
    # In much noise a third pilot symbol does not help straight lines, whose pieces become shorter.
    assert mse("ls", 1, 30.0) > mse("ls", 2, 30.0) > mse("ls", 3, 30.0)


def test_straight_lines_are_those_of_sionna():
    """Sionna's LS estimator and linear interpolation, for one block around which there are no others."""
    import_sionna()
    from sionna.phy.ofdm import LinearInterpolator, PilotPattern

    carrier = Carrier(5, 30, 3)
    mask = np.zeros((1, 1, 14, 60), dtype=bool)
    mask[..., [2, 7, 11], ::2] = True
    rng = np.random.default_rng(0)
    h_ls = rng.normal(size=(4, 90)) + 1j * rng.normal(size=(4, 90))
    pattern = PilotPattern(mask, np.ones((1, 1, 90), dtype=complex), precision="double", device="cpu")
    interpolate = LinearInterpolator(pattern, precision="double", device="cpu")
    expected, _ = interpolate(torch.from_numpy(h_ls).reshape(4, 1, 1, 1, 1, 90), torch.ones(4, 1, 1, 1, 1, 90).double())
    elements = carrier.place(200)
    found = carrier.linear(elements, 0.1)(h_ls)
    np.testing.assert_allclose(found, expected.numpy()[:, 0, 0, 0, 0, elements.symbol, elements.subcarrier], rtol=1e-10)


def test_lmmse_errs_no_more_than_sionnas_which_filters_along_one_axis_after_the_other():
    import_sionna()
    from sionna.phy.ofdm import LMMSEChannelEstimator, PilotPattern, ResourceGrid, tdl_freq_cov_mat, tdl_time_cov_mat

    carrier, multipath, no, samples = Carrier(5, 30, 2), Multipath("tdl-c", speed_kmh=120.0), 0.1, 400
    elements, pilots = carrier.place(carrier.slot_data), carrier.pilots(1)
    paths = multipath.realise(14, 1.0 / carrier.symbol_s, 0, Draws(0, np.arange(samples)))
    turned = np.exp(-2j * np.pi * np.outer(paths.delays, carrier.frequencies(np.arange(60))))
    h = np.einsum("bpt,pf->btf", paths.coefficients, turned)
    noise = Draws(0, np.arange(samples)).normals(Stream.PILOTS, 0, 60) @ np.array([1.0, 1.0j]) * np.sqrt(no / 2.0)
    h_ls = h[:, pilots.symbol, pilots.subcarrier] + noise
    ours = carrier.wiener(elements, no, multipath.covariance)

    mask = np.zeros((1, 1, 14, 60), dtype=bool)
    mask[..., [2, 11], ::2] = True
    where = {"precision": "double", "device": "cpu"}
    pattern = PilotPattern(mask, np.ones((1, 1, 60), dtype=complex), **where)
    grid = ResourceGrid(num_ofdm_symbols=14, fft_size=60, subcarrier_spacing=30e3, pilot_pattern=pattern, **where)
    estimate = LMMSEChannelEstimator(
        grid,
        tdl_time_cov_mat("C", 120 / 3.6, 3.5e9, carrier.symbol_s, 14, **where),
        tdl_freq_cov_mat("C", 30e3, 60, 100e-9, **where),
        order="f-t",
        **where,
    )
    y = np.zeros((samples, 1, 1, 14, 60), dtype=np.complex128)
    y[:, 0, 0, pilots.symbol, pilots.subcarrier] = h_ls
    found, _ = estimate(torch.from_numpy(y), torch.tensor(no))
    at = (slice(None), elements.symbol, elements.subcarrier)
    errors = [np.mean(np.abs(h_hat - h[at]) ** 2, axis=1) for h_hat in (ours(h_ls), found.numpy()[:, 0, 0, 0, 0][at])]
    worse = errors[0] - errors[1]  # of the same realisation and noise
    assert worse.mean() < 4.0 * worse.std(ddof=1) / np.sqrt(samples)
    assert errors[1].mean() < 1.5 * errors[0].mean()  # or it would be another problem that it solves
    assert abs(errors[0].mean() - ours.error_variance.mean()) < SIGMAS * errors[0].std(ddof=1) / np.sqrt(samples)


def test_a_channel_goes_to_a_worker_and_hears_the_same():
    channel = build_channel("tdl-b", csi="lmmse", pilots=1)
    _, here = send(channel, 3, 8)
    _, there = send(pickle.loads(pickle.dumps(channel)), 3, 8)
    np.testing.assert_array_equal(here.y, there.y)


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize(("csi", "pilots"), [("perfect", 0), ("lmmse", 2)])
def test_every_engine_hears_the_same_to_float32(engine, csi, pilots):
    channel = build_channel("cdl-c", csi=csi, pilots=pilots)
    lengths, samples = np.array([5, 0, 9]), np.array([3, 1, 2])
    x = np.random.default_rng(0).normal(size=(3, 9, 2)).astype(np.float32)
    there = torch.from_numpy(x) if engine == "torch" else x
    found = channel(there, lengths, 9.0, Draws(1, samples, engine=engine))
    expected = channel(x, lengths, 9.0, Draws(1, samples))
    np.testing.assert_allclose(np.asarray(found.y), expected.y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.asarray(found.no), expected.no, rtol=1e-6)
    assert isinstance(found.y, type(there))


def test_threads_do_not_take_each_others_numbers():
    channel = build_channel("cdl-b")
    x, together = send(channel, 24, 4)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda row: channel(x[[row]], np.array([4]), 15.0, Draws(3, np.array([row]))), range(24)))
    for row in range(24):
        np.testing.assert_array_equal(alone[row].y[0], together.y[row])


def test_lmmse_stays_finite_where_there_is_next_to_no_noise():
    _, received = send(build_channel("tdl-d", csi="lmmse", pilots=4, no_offset_db=-30.0), 20, 60, snr_db=60.0)
    assert np.isfinite(received.y).all()
    assert (received.no > 0.0).all()
    assert received.report["csi_mse"] < 1e-5


def test_what_the_receiver_is_told_follows_the_offset_and_gains_do_not():
    _, plain = send(build_channel("tdl-c", csi="ls", pilots=2), 20, 30)
    _, told = send(build_channel("tdl-c", csi="ls", pilots=2, no_offset_db=3.0), 20, 30)
    np.testing.assert_array_equal(told.y, plain.y)
    np.testing.assert_allclose(told.no, plain.no * 10**0.3, rtol=1e-6)


def test_pilots_are_sent_in_proportion_where_the_receiver_estimates():
    assert send(build_channel("tdl-a"), 3, 26)[1].pilot_symbols == 0
    # Two symbols with pilots leave 13 data elements a pilot.
    assert send(build_channel("tdl-a", csi="lmmse", pilots=2), 3, 26)[1].num_pilots.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tdl-a", {"csi": "ls", "pilots": 5}, "pilots must be at most 4 OFDM symbols a slot, got 5"),
        ("tdl-a", {"csi": "lmmse"}, "pilots must be in"),
        ("cdl-a", {"speed_kmh": -1.0}, "speed_kmh must be in"),
        ("tdl-a", {"no_offset_db": 31.0}, "no_offset_db must be in"),
        (
            "tdl-e",
            {"delay_spread_ns": 120.0},
            "delay_spread_ns must be at most 113 for tdl-e at 30 kHz, whose cyclic prefix is 2344 ns, got 120",
        ),
        (
            "tdl-a",
            {"delay_spread_ns": 300.0, "spacing_khz": 60},
            "delay_spread_ns must be at most 121 for tdl-a at 60 kHz",
        ),
    ],
)
def test_an_option_that_means_nothing_is_refused(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        build_channel(name, **options)


def test_building_a_channel_or_a_code_imports_neither_sionna_nor_torch():
    done = run(
        """
import sys
from link.channel import build_channel
from link.channel.fec import Ldpc
build_channel("tdl-a"), Ldpc(64, 128)
sys.exit("sionna" in sys.modules or "torch" in sys.modules)
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["sionna", "torch"])
def test_without_sionna_the_answer_is_one_line_that_names_the_extra(package):
    done = run(
        f"import sys; sys.modules[{package!r}] = None; from link.channel import build_channel; build_channel('cdl-a')"
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "link.errors.MissingExtra: sionna is not installed; install it with: pip install 'hardpath[sim]'"


def test_neither_import_nor_use_moves_the_generators_and_their_seeds_move_nothing():
    done = run(
        """
import pickle, random, numpy as np, torch
from link.channel import build_channel
from link.channel.fec import Ldpc
from link.randomness import Draws
states = lambda: (random.getstate(), pickle.dumps(np.random.get_state()), torch.random.get_rng_state().tolist())
random.seed(1), np.random.seed(2), torch.manual_seed(3)
before, heard = states(), []
x = np.ones((2, 3, 2), dtype=np.float32)
for name, seed in (("tdl-a", 4), ("cdl-d", 5)):
    for round in range(2):
        received = build_channel(name, csi="ls", pilots=1)(x, np.full(2, 3), 0.0, Draws(0, np.arange(2)))
        heard.append(received.y.tobytes())
        assert states() == before
        import sionna.phy  # a new seed for Sionna's generators, and for torch's
        sionna.phy.config.seed = seed
        before = states()
assert heard[0] == heard[1] != heard[2] == heard[3]
code = Ldpc(64, 128)
code.decode(2.0 * code.encode(np.zeros((2, 64), dtype=np.uint8)).astype(np.float32) - 1.0)
assert states() == before
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("order", "snr_db"), [(4, 8.0), (16, 14.0)])
def test_bits_fail_as_often_as_in_sionnas_own_chain(order, snr_db):
    """TDL-C at 30 km/h: Sionna's mapper, grid, channel, equaliser and demapper beside link's, a realisation as the unit."""
    m, samples, symbols = {4: 2, 16: 4}[order], 3000, 112
    draws = Draws(11, np.arange(samples))
    bits = draws.bits(Stream.BITS, 0, symbols * m)
    x = map_bits(group(bits.astype(np.float32), m))
    received = build_channel("tdl-c")(x, np.full(samples, symbols), snr_db, draws)
    ours = np.mean((max_log_llr(received.y, received.no, order) > 0) != group(bits, m), axis=(1, 2))
    theirs = sionna_bit_errors(m, snr_db, samples)
    error = np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs))
    assert abs(ours.mean() - theirs.mean()) < 4.0 * error
    assert error < 0.05 * ours.mean()


def sionna_bit_errors(m, snr_db, samples):
    """Share of wrong bits in each of as many OFDM slots of 72 subcarriers."""
    import_sionna()
    from sionna.phy import config
    from sionna.phy.channel import OFDMChannel
    from sionna.phy.channel.tr38901 import TDL
    from sionna.phy.mapping import BinarySource, Demapper, Mapper
    from sionna.phy.mimo import StreamManagement
    from sionna.phy.ofdm import LMMSEEqualizer, ResourceGrid, ResourceGridMapper

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.inference_mode():
        config.seed = 12
        grid = ResourceGrid(
            num_ofdm_symbols=14, fft_size=72, subcarrier_spacing=30e3, cyclic_prefix_length=5, device="cpu"
        )
        tdl = TDL("C", 100e-9, 3.5e9, min_speed=30 / 3.6, device="cpu")
        channel = OFDMChannel(tdl, grid, return_channel=True, device="cpu")
        equalise = LMMSEEqualizer(grid, StreamManagement(np.ones((1, 1)), 1), device="cpu")
        source, mapper, to_grid = (
            BinarySource(device="cpu"),
            Mapper("qam", m, device="cpu"),
            ResourceGridMapper(grid, device="cpu"),
        )
        demapper = Demapper("maxlog", "qam", m, device="cpu")
        no = torch.tensor(10 ** (-snr_db / 10))
        wrong = []
        for _ in range(0, samples, 100):
            bits = source([100, 1, 1, 14 * 72 * m])
            y, h = channel(to_grid(mapper(bits)), no)
            x_hat, no_eff = equalise(y, h, torch.zeros(()), no)
            wrong.append(((demapper(x_hat, no_eff) > 0) != (bits > 0)).double().mean(dim=(1, 2, 3)).numpy())
    return np.concatenate(wrong)
