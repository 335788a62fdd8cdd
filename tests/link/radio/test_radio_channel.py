import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from link.channel.frames import FrameCounts
from link.constellation import max_log_llr, points
from link.errors import ArgumentError, RadioError
from link.radio.channel import RadioChannel, _packed
from link.radio.frontend import Block, Capabilities, FrontEnd
from link.radio.modem.frame import Header
from link.radio.spec import RadioSpec
from link.randomness import Draws
from link.snr import NO_MIN

LOOPBACK = RadioSpec(frontend={"kind": "loopback"}, timeout_s=0.1)


def qam(order, *shape, seed=0):
    """(..., 2) float32, as symbols come."""
    return points(order)[np.random.default_rng(seed).integers(order, size=shape)].astype(np.float32)


def draws(rows, draw=0):
    return Draws(5, np.arange(rows), draw)


def impaired(**options):
    modem = options.pop("modem", {})
    return RadioSpec(frontend={"kind": "impaired", **options}, modem=modem)


class Cable(FrontEnd):
    """A loopback with something done to each burst, a function from samples to a list of blocks, on their way."""

    def __init__(self, change=lambda samples: [Block(samples)], **capabilities):
        self.abilities = Capabilities(**{"chunk": 1 << 22, "exclusive": False, **capabilities})
        self.change, self.blocks, self.opened, self.closed = change, [], 0, 0
        self.sent = []

    @property
    def capabilities(self):
        return self.abilities

    def open(self):
        self.opened += 1

    def send(self, samples, timeout_s):
        self.sent.append(samples)
        self.blocks += self.change(samples)
        return len(samples)

    def recv(self, most, timeout_s):
        return self.blocks.pop(0) if self.blocks else Block()

    def close(self):
        self.closed += 1


def over(change, **capabilities):
    return RadioChannel(LOOPBACK, Cable(change, **capabilities))


def carried(radio, x, lengths=None, snr_db=10.0):
    lengths = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
    return radio(x, lengths, snr_db, draws(len(x)))


def erased(received, row):
    """Whether all of a row's symbols are erasures, of which nothing is known."""
    llr = max_log_llr(received.y[row], received.no[row], 16)
    return (received.y[row] == 0).all() and np.isinf(received.no[row]).all() and (llr == 0).all()


rows_of = st.lists(st.integers(0, 90), min_size=0, max_size=12)


@given(rows_of, st.integers(16, 60), st.data())
def test_packing_takes_each_symbol_once_and_keeps_rows_whole(lengths, most, data):
    lengths = np.array(lengths, dtype=np.int64)
    orders = np.array([data.draw(st.sampled_from([4, 16])) for _ in lengths], dtype=int)
    symbols = np.concatenate(
        [np.zeros(0, complex)]
        + [qam(int(order), length, seed=7) @ [1, 1j] for order, length in zip(orders, lengths, strict=True)]
    )
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    packs = list(_packed(symbols, lengths, most))
    assert sorted(np.concatenate([np.zeros(0, int), *packs]).tolist()) == list(range(len(symbols)))
    assert all(0 < len(pack) <= most for pack in packs)
    frame_of = np.empty(len(symbols), dtype=int)
    for number, pack in enumerate(packs):
        frame_of[pack] = number
        assert len(set(orders[row_of[pack]].tolist())) == 1
        assert (np.diff(pack) > 0).all()
    for row, length in enumerate(lengths):
        frames = set(frame_of[row_of == row].tolist())
        # A row that fits is whole; one that does not is in as few as it takes, the first of them begun by itself.
        assert len(frames) == -(-length // most)


def test_short_rows_share_a_frame():
    lengths = np.array([30, 30, 30, 30])
    packs = list(_packed(qam(16, 120) @ [1, 1j], lengths, 64))
    assert [len(pack) for pack in packs] == [60, 60]


def test_rows_come_back_as_they_went_and_what_was_not_sent_is_nothing():
    x, lengths = qam(16, 5, 40), [40, 0, 7, 39, 1]
    with RadioChannel(LOOPBACK) as radio:
        received = carried(radio, x, lengths)
    sent = np.arange(40) < np.array(lengths)[:, None]
    assert np.abs(received.y - x)[sent].max() < 0.05
    assert np.isfinite(received.no[sent]).all()
    assert (received.no[sent] >= NO_MIN).all()
    assert (received.y[~sent] == 0).all()
    assert np.isinf(received.no[~sent]).all()
    assert (received.y.dtype, received.no.dtype) == (np.float32, np.float32)


def test_where_nothing_is_to_be_sent_the_radio_stays_silent():
    cable = Cable()
    received = carried(RadioChannel(LOOPBACK, cable), qam(4, 3, 5), [0, 0, 0])
    assert cable.sent == []
    assert all(erased(received, row) for row in range(3))
    assert received.pilot_symbols == 0


@settings(max_examples=15)
@given(st.lists(st.integers(0, 1500), min_size=1, max_size=5).filter(any))
def test_overhead_adds_up_to_all_symbols_of_the_frames(lengths):
    x = qam(16, len(lengths), max(lengths))
    cable = Cable()
    radio = RadioChannel(LOOPBACK, cable)
    received = carried(radio, x, lengths)
    frame = LOOPBACK.modem.frame
    sizes = [
        len(pack)
        for pack in _packed(
            np.concatenate([x[r, :n] for r, n in enumerate(lengths)]) @ [1, 1j], np.array(lengths), 1024
        )
    ]
    symbols = sum(frame.frame_symbols(size) for size in sizes)
    assert received.pilot_symbols == symbols - sum(lengths)
    assert received.frames.frames == len(sizes)
    assert len(received.num_pilots) == len(lengths)
    assert (received.num_pilots >= 0).all()
    # Each row's share is its part of the payload, to a rounding on either side.
    shares = np.array(lengths) * received.pilot_symbols / sum(lengths)
    assert np.abs(received.num_pilots - shares).max() <= 1
    assert sum(map(len, cable.sent)) == (symbols - 1) * 4 + 81 + LOOPBACK.tail_samples


def frames_of_rows(count, size=1000):
    """Rows that take a frame each."""
    return qam(16, count, size, seed=3)


def place(row, size=1000):
    """First sample of a row's frame, its guard's."""
    return 40 + 4 * row * LOOPBACK.modem.frame.frame_symbols(size)


@pytest.mark.parametrize("lost", [[0], [1], [0, 2], [0, 1, 2]])
def test_a_lost_frame_is_an_erasure_of_its_rows_alone(lost):
    def drowned(samples):
        samples = samples.copy()
        for row in lost:
            samples[place(row) : place(row + 1)] = 0
        return [Block(samples)]

    x = frames_of_rows(3)
    received = carried(over(drowned), x)
    for row in range(3):
        if row in lost:
            assert erased(received, row)
        else:
            assert np.abs(received.y[row] - x[row]).max() < 0.06
            assert np.isfinite(received.no[row]).all()
    assert (received.frames.frames, received.frames.lost, received.frames.crc_failed) == (3, len(lost), 0)


def test_a_row_that_is_longer_than_a_frame_loses_the_part_that_was_lost():
    def cut(samples):
        samples = samples.copy()
        samples[place(1, 1024) + 100 : place(1, 1024) + 700] = 0
        return [Block(samples)]

    x = qam(16, 1, 2500)
    received = carried(over(cut), x)
    gone = np.isinf(received.no[0])
    assert np.flatnonzero(gone).tolist() == list(range(1024, 2048))
    assert (received.y[0, gone] == 0).all()
    assert np.abs(received.y[0] - x[0])[~gone].max() < 0.06
    assert (received.frames.frames, received.frames.lost) == (3, 1)


@pytest.mark.parametrize("counted", [True, False])
def test_a_gap_costs_the_frames_that_it_is_in(counted):
    def with_gap(samples):
        first, last = place(1) + 2000, place(1) + 2600
        return [Block(samples[:first]), Block(samples[last:], last - first if counted else None)]

    x = frames_of_rows(4)
    received = carried(over(with_gap), x)
    assert [erased(received, row) for row in range(4)] == [False, True, False, False]
    assert (received.frames.gaps, received.frames.lost) == (1, 1)


def test_a_burst_whose_end_never_comes_loses_it():
    x = frames_of_rows(3)
    received = carried(over(lambda samples: [Block(samples[: place(2) + 40])]), x)
    assert [erased(received, row) for row in range(3)] == [False, False, True]


def test_frames_of_an_earlier_burst_are_not_taken_for_this_one_s():
    """The device gives everything a burst late."""
    late = []

    def delayed(samples):
        late.append(samples)
        return [Block(late[-2] if len(late) > 1 else np.zeros_like(samples))]

    radio = over(delayed)
    for _ in range(3):
        received = carried(radio, frames_of_rows(2))
        assert all(erased(received, row) for row in range(2))
        assert received.frames.lost == 2


def test_of_a_frame_that_comes_twice_the_first_is_taken():
    def echoed(samples):
        hiss = np.random.default_rng(1).normal(scale=0.2, size=(len(samples), 2)) @ [1, 1j]
        return [Block(np.concatenate([samples, samples + hiss]).astype(np.complex64))]

    x = frames_of_rows(2)
    received = carried(over(echoed), x)
    assert np.abs(received.y - x).max() < 0.06
    assert (received.frames.frames, received.frames.lost, received.frames.received) == (2, 0, 2)


def test_a_frame_that_says_another_length_or_mode_than_was_sent_is_nobody_s():
    x = frames_of_rows(2)
    radio = over(lambda samples: [Block(samples)])
    send = radio.modem.send

    def lying(payloads, first):
        burst = send(payloads, first)
        headers = [Header(1, 2, first, 999), burst.headers[1]._replace(mode=3)]
        return burst._replace(headers=headers)

    radio.modem.send = lying
    received = carried(radio, x)
    assert all(erased(received, row) for row in range(2))


def test_a_frame_of_another_version_is_counted_and_erased(monkeypatch):
    x = frames_of_rows(2)
    radio = over(lambda samples: [Block(samples)])
    monkeypatch.setattr("link.radio.modem.receiver.VERSION", 9)
    payloads = [row @ [1, 1j] for row in x]
    drop = radio.drop(payloads, None, draws(1))
    assert (drop.frames, drop.other_versions, drop.headers_lost) == ({}, 2, 0)
    received = carried(radio, x)
    assert all(erased(received, row) for row in range(2))
    assert received.frames.lost == 2


def test_sequence_numbers_go_on_over_a_device_and_begin_anew_over_a_simulation():
    x = frames_of_rows(2)
    cable = RadioChannel(LOOPBACK, Cable())
    cable._sequence = 65535
    payloads = [row @ [1, 1j] for row in x]
    found = [[h.sequence for h in cable.drop(payloads, None, draws(1)).burst.headers] for _ in range(2)]
    assert found == [[65535, 0], [1, 2]]
    assert sorted(cable.drop(payloads, None, draws(1)).frames) == [0, 1]
    with RadioChannel(impaired()) as simulated:
        again = [[h.sequence for h in simulated.drop(payloads, 20.0, draws(1)).burst.headers] for _ in range(2)]
    assert again == [[0, 1], [0, 1]]


def test_a_call_over_a_simulation_is_a_function_of_its_arguments():
    x = frames_of_rows(2)
    spec = impaired(cfo=1e-3, taps=(0.9, 0, 0, "0.3j"))
    with RadioChannel(spec) as radio, RadioChannel(spec) as other:
        first = carried(radio, x, snr_db=12.0)
        carried(radio, x, snr_db=9.0)
        again, elsewhere = carried(radio, x, snr_db=12.0), carried(pickle.loads(pickle.dumps(other)), x, snr_db=12.0)
        for same in (again, elsewhere):
            assert np.array_equal(first.y, same.y)
            assert np.array_equal(first.no, same.no)
        assert not np.array_equal(radio(x, np.full(2, 1000), 12.0, draws(2, 1)).y, first.y), "another draw"


def test_clipped_samples_are_counted():
    spec = RadioSpec(frontend={"kind": "impaired", "bits": 12, "full_scale": 0.5})
    x = frames_of_rows(1)
    with RadioChannel(spec) as radio:
        received = carried(radio, x, snr_db=30.0)
        burst = radio.modem.send([x[0] @ [1, 1j]]).samples
    beyond = (np.abs(burst.real) > 0.5) | (np.abs(burst.imag) > 0.5)
    assert received.frames.clipped == beyond.sum() > 100


def test_amplitude_and_power_follow_the_snr_that_is_asked_for():
    spec = LOOPBACK.model_copy(update={"amplitude": 0.5, "full_snr_db": 30.0})
    cable = Cable()
    radio = RadioChannel(spec, cable)
    x = frames_of_rows(1)
    for snr_db in (30.0, 24.0, 10.0):
        carried(radio, x, snr_db=snr_db)
    reference = np.sum(np.abs(radio.modem.send([x[0] @ [1, 1j]]).samples) ** 2)
    powers = [10 * math.log10(np.sum(np.abs(samples) ** 2) / reference) for samples in cable.sent]
    full = 20 * math.log10(0.5)
    assert powers == pytest.approx([full, full - 6, full - 20], abs=0.02)
    with pytest.raises(ArgumentError, match="snr_db must be at most 30, the radio's at full power, got 31"):
        carried(radio, x, snr_db=31.0)
    plain = Cable()
    carried(RadioChannel(LOOPBACK, plain), x, snr_db=3.0)
    assert np.sum(np.abs(plain.sent[0]) ** 2) == pytest.approx(reference, rel=1e-3), "it is what it is"


def test_a_device_that_fails_is_let_go_of_and_taken_hold_of_by_the_next_call():
    failing = [True]

    def now_and_then(samples):
        if failing:
            failing.pop()
            raise RadioError("the cable is out")
        return [Block(samples)]

    cable = Cable(now_and_then)
    radio = RadioChannel(LOOPBACK, cable)
    x = frames_of_rows(1)
    with pytest.raises(RadioError, match=r"^the cable is out$"):
        carried(radio, x)
    assert (cable.opened, cable.closed) == (1, 1)
    assert not erased(carried(radio, x), 0)
    assert (cable.opened, cable.closed) == (2, 1)
    with radio:
        pass
    assert cable.closed == 2


def test_a_dead_device_ends_a_call_in_time():
    radio = RadioChannel(LOOPBACK, Cable(lambda samples: []))
    with pytest.raises(RadioError, match=r"^the front end gave no sample within 0.1 s$"):
        carried(radio, frames_of_rows(1))


def test_arrays_of_another_shape_are_refused():
    radio = RadioChannel(LOOPBACK)
    with pytest.raises(ArgumentError, match=r"num_symbols must have shape \(2,\)"):
        radio(qam(4, 2, 3), np.array([3]), 10.0, draws(2))
    with pytest.raises(ArgumentError, match=r"samples must have shape \(2,\)"):
        radio(qam(4, 2, 3), np.array([3, 3]), 10.0, draws(1))


def test_counts_of_frames_add_up():
    one = FrameCounts(frames=4, lost=1, crc_failed=2, gaps=3, clipped=5, no=0.3, squared_evm=0.12, papr=4.0)
    both = one.plus(FrameCounts(frames=2, lost=2, no=0.0, papr=6.0))
    assert both == FrameCounts(6, 3, 2, 3, 5, 0.3, 0.12, 6.0)
    assert (both.received, both.snr_db, both.evm) == (3, pytest.approx(10.0), pytest.approx(0.2))
    assert both.papr_db == pytest.approx(10 * math.log10(6))
    nothing = FrameCounts(frames=3, lost=3)
    assert (nothing.snr_db, nothing.evm, nothing.papr_db) == (None, None, None)


def test_counts_are_those_of_the_frames():
    x = frames_of_rows(3)
    with RadioChannel(impaired()) as radio:
        received = carried(radio, x, snr_db=14.0)
    counts, per_row = received.frames, received.no.mean(axis=-1)
    assert (counts.frames, counts.lost, counts.gaps, counts.clipped) == (3, 0, 0, 0)
    assert counts.no == pytest.approx(per_row.sum(), rel=1e-5)
    assert counts.crc_failed == 3, "at 14 dB a bit in 100 is wrong"
    # The error vector from the nearest points is shorter than from the right ones; at 14 dB by less than a tenth.
    assert 0.8 * per_row.mean() < counts.squared_evm / 3 < per_row.mean()
    assert 2.0 < counts.papr_db < 8.0


def test_a_recording_is_no_channel(tmp_path):
    """All frames sent would be told as lost."""
    file = tmp_path / "air.sigmf-meta"
    file.write_text(json.dumps({"global": {"core:datatype": "cf32_le", "core:version": "1.0.0"}}))
    np.zeros(1000, np.complex64).tofile(tmp_path / "air.sigmf-data")
    radio = RadioSpec(frontend={"kind": "sigmf", "file": str(file)})
    with (
        RadioChannel(radio) as channel,
        pytest.raises(ArgumentError, match="frontend must be one that sends: sigmf plays"),
    ):
        channel.drop([np.ones(4) * (1 + 1j) / 2**0.5], None, Draws(0, np.arange(1)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_symbols_that_are_no_numbers_are_not_sent(value):
    x = qam(4, 2, 5)
    x[1, 3, 0] = value
    with RadioChannel(LOOPBACK) as channel, pytest.raises(ArgumentError, match="x must be finite"):
        channel(x, np.array([5, 5]), 10.0, draws(2))
    with RadioChannel(LOOPBACK) as channel:  # what is not sent may be anything
        assert np.abs(channel(x, np.array([5, 3]), 10.0, draws(2)).y[0] - x[0]).max() < 0.02
