"""Frames through GNU Radio, beside theory. One seed gives the same noise, so what passes once passes always."""

import numpy as np
import pytest

from benchmarks.radio.cases import random_payloads, run_case
from benchmarks.radio.flowgraph import UNLIKE, Flowgraph, Stage, channel_model
from benchmarks.radio.suite import ECHOES, ORDER, Setting, ber_table
from link.errors import RadioError
from link.radio.channel import RadioChannel
from link.radio.modem.options import ModemOptions, ReceiverSpec
from link.radio.spec import RadioSpec
from link.randomness import Draws

pytestmark = pytest.mark.usefixtures("gnuradio")


@pytest.mark.parametrize("snr_db", [8, 12, 16])
def test_bit_errors_over_noise_are_within_half_a_decibel_of_theory(snr_db):
    (row,) = ber_table([Setting("AWGN", snr_db, 60)])
    assert row.case.found == row.case.frames
    assert row.case.bit_errors > 400  # a standard deviation of at most 0.05 dB
    assert 0.0 < row.loss_db < 0.5


@pytest.mark.parametrize("snr_db", [8, 16])
def test_with_echoes_and_a_carrier_offset_it_is_within_a_decibel_of_the_best_linear_equaliser(snr_db):
    (row,) = ber_table([Setting("echoes", snr_db, 60, 1e-3, 1.0, ECHOES)])
    assert row.case.found == row.case.frames
    assert row.case.bit_errors > 400
    assert 0.0 < row.loss_db < 1.0
    # The pilots' bound: sqrt(6 / (2 SNR n)) / (pi 4 * 16 n) cycles a sample, n = 84; five standard deviations at 8 dB.
    assert np.allclose(row.case.cfos, 1e-3, atol=2e-5)


@pytest.mark.parametrize("cfo", [-7.5e-3, -4e-3, 4e-3, 7.5e-3])
def test_a_carrier_up_to_two_cycles_a_sequence_off_is_found(cfo):
    case = run_case([channel_model(noise_voltage=0.1, frequency_offset=cfo)], frames=30)
    assert case.found == 30
    assert np.allclose(case.cfos, cfo, atol=2e-5)


def test_a_clock_100_ppm_off_is_found_and_costs_little():
    (row,) = ber_table([Setting("clock", 16, 60, 0.0, 1.0001)])
    assert row.case.found == row.case.frames
    assert row.loss_db < 0.7
    assert np.abs(np.array(row.case.clocks_ppm) + 100.0).max() < 5.0


@pytest.mark.parametrize("snr_db", [8, 12, 16])
def test_the_noise_variance_told_is_right_and_llrs_mean_what_they_say(snr_db):
    (row,) = ber_table([Setting("echoes", snr_db, 100, 1e-3, 1.0, ECHOES)])
    assert abs(row.case.told_db) < 0.3
    assert row.case.miscalibration < 0.005


@pytest.mark.parametrize(
    ("without", "factor"),
    [({"correct_cfo": False}, 10.0), ({"track_phase": False}, 3.0), ({"equalise": False}, 10.0)],
    ids=["CFO correction", "pilots", "equaliser"],
)
def test_the_link_fails_without(without, factor):
    stage = Setting("", 16, 0, 1e-3, 1.0, ECHOES).stage
    whole = run_case([stage], frames=40)
    maimed = run_case([stage], frames=40, modem=ModemOptions(receiver=ReceiverSpec(**without)))
    assert whole.ber < 8e-3
    assert maimed.found == 0 or maimed.ber > factor * whole.ber


def test_a_link_of_quite_other_faults_loses_no_bit():
    case = run_case(UNLIKE, frames=40)
    assert (case.found, case.bit_errors, case.crc_ok) == (40, 0, 40)


def test_frames_outlast_a_carrier_that_drifts_and_a_channel_that_fades():
    noise = channel_model(noise_voltage=0.1, seed=4)
    drift = Stage("frequency_drift", {"rate_hz": 1.0, "step_hz": 1e-7, "most_hz": 1e-3, "seed": 6})
    fading = Stage("fading", {"sinusoids": 8, "doppler": 1e-6, "line_of_sight": True, "k": 10.0, "seed": 3})
    case = run_case([drift, fading, noise], frames=40)
    assert case.found == 40
    assert case.ber < 1e-2
    assert abs(case.told_db) < 0.3


def test_two_radios_talk_to_each_other_both_ways_at_once():
    payloads, _ = random_payloads(5, ORDER, 3)
    noise = channel_model(noise_voltage=0.05, frequency_offset=5e-4)
    with Flowgraph([noise]) as there, Flowgraph([noise]) as back:
        ends = [
            RadioChannel(RadioSpec(frontend={"kind": "zmq", **graph.options}, tail_samples=2048))
            for graph in (there, back)
        ]
        drops = [end.drop(payloads, None, Draws(0, np.zeros(1, np.int64))) for end in ends]
        for end in ends:
            end.close()
    assert all(sorted(drop.frames) == list(range(5)) and all(f.crc_ok for f in drop.frames.values()) for drop in drops)


def test_a_flowgraph_that_is_killed_is_an_error_and_its_return_mends_the_link():
    payloads, _ = random_payloads(3, ORDER, 3)
    draws = Draws(0, np.zeros(1, np.int64))
    with Flowgraph([channel_model()]) as graph:
        spec = RadioSpec(frontend={"kind": "zmq", **graph.options}, tail_samples=2048, timeout_s=2.0)
        with RadioChannel(spec) as radio:
            assert len(radio.drop(payloads, None, draws).frames) == 3
            graph.kill()
            with pytest.raises(RadioError):
                [radio.drop(payloads, None, draws) for _ in range(50)]  # what the sockets hold is used up first
            graph.start()
            assert len(radio.drop(payloads, None, draws).frames) == 3
