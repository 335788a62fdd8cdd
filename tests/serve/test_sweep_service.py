"""Sweep of hardpath.v1 on a real server: points as in process, refusals, cancellation, deadlines, and who waits."""

import threading

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from link.semantic import clean_decisions
from link.sweep import SweepSpec
from link.sweep import sweep as sweep_in_process
from serve.client import Client
from serve.engine.aside import WAITING_MAX
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb

GRID = (-6.0, 0.0, 7.5)
LABELS = (0, 2, 1, 0, 1, 2, 2)


@pytest.fixture(scope="module")
def own(serving, bundle_path):
    with serving(bundle_path, limits={"max_batch": 64}, batching={"workers": 1}) as running:
        yield running


@pytest.fixture(scope="module")
def caller(own):
    with Client(own.address) as connected:
        yield connected


def ask(images, snr_db=GRID, settings=None, **fields):
    return pb.SweepRequest(
        inputs={"image": tensor_to_message("image", images)},
        snr_db=snr_db,
        settings=pb.LinkSettings(**(settings or {})),
        **fields,
    )


def assert_same(replied, point):
    for name in replied._fields:
        theirs, ours = getattr(replied, name), getattr(point, name)
        if hasattr(ours, "low"):
            assert theirs == (ours.value, ours.low, ours.high), name
        else:
            assert theirs == (ours.value if name == "stopped_by" else ours), name


@pytest.mark.parametrize(
    "options",
    [
        {"draws": 9, "seed": 5},
        {"channel": "rayleigh", "block_symbols": 2, "draws": 7, "csi": "lmmse", "pilots": 2, "no_offset_db": 1.5},
        {"channel": "rician", "k_factor_db": 2.0, "draws": 5},
        {"draws": 3000, "target_errors": 40, "confidence": 0.9},
        {"draws": 3000, "rel_width": 0.5},
    ],
)
def test_each_point_is_that_of_the_same_sweep_in_process(caller, link, images, options):
    replied = list(caller.sweep(images, GRID, labels=LABELS, **options))
    expected = sweep_in_process(link, {"image": images}, LABELS, SweepSpec(snr_db=GRID, **options)).points
    assert len(replied) == len(expected) == len(GRID)
    for theirs, ours in zip(replied, expected, strict=True):
        assert_same(theirs, ours)


def test_without_labels_what_is_decided_without_noise_is_right(caller, link, images):
    labels = clean_decisions(link, {"image": images})
    assert len(set(labels.tolist())) > 1
    given = list(caller.sweep(images, (-6.0, 60.0), labels=labels.tolist(), draws=3))
    assert list(caller.sweep(images, (-6.0, 60.0), draws=3)) == given
    assert [point.accuracy.value == 1.0 for point in given] == [False, True]


def test_a_data_set_may_be_larger_than_a_batch(caller, link, images):
    many = np.tile(images, (20, 1, 1))
    assert len(many) > 64
    (point,) = caller.sweep(many, (0.0,), draws=2)
    assert (point.samples, point.draws) == (len(many), 2)


def test_how_far_a_sweep_is_and_who_answers_is_told(own, images):
    replies = list(own.stub.Sweep(ask(images), timeout=60))
    assert [(reply.points_done, reply.points, reply.model_version) for reply in replies] == [
        (1, 3, 1),
        (2, 3, 1),
        (3, 3, 1),
    ]


REFUSED = {
    "no points": ({"snr_db": ()}, "snr_db", "must hold 1 to 1000 points, got 0"),
    "too many points": ({"snr_db": np.linspace(-30, 60, 1001)}, "snr_db", "must hold 1 to 1000 points, got 1001"),
    "point twice": ({"snr_db": (1.0, 1.0)}, "snr_db", "must hold each point once (to 0.001 dB), got 1 twice"),
    "point too high": ({"snr_db": (1.0, 61.0)}, "snr_db", "must be in [-30, 60], got 61"),
    "point NaN": ({"snr_db": (np.nan,)}, "snr_db", "should be a finite number, got nan"),
    "snr among the settings": ({"settings": {"snr_db": 3.0}}, "settings.snr_db", "must be absent"),
    "sample offset": (
        {"settings": {"sample_offset": 3}},
        "settings.sample_offset",
        "must be 0: the sweep sets it, got 3",
    ),
    "draw": ({"settings": {"draw": 3}}, "settings.draw", "must be 0: the sweep sets it, got 3"),
    "unknown channel": ({"settings": {"channel": "tin-can"}}, "settings.channel", "must be one of awgn, "),
    "seed": ({"settings": {"seed": -1}}, "settings.seed", "got -1"),
    "csi": ({"settings": {"csi": "guess", "channel": "rayleigh"}}, "settings.csi", "must be one of "),
    "pilots": ({"settings": {"csi": "ls", "channel": "rayleigh", "pilots": 1025}}, "settings.pilots", "got 1025"),
    "noise offset": ({"settings": {"no_offset_db": 31.0}}, "settings.no_offset_db", "must be in [-30, 30], got 31"),
    "K-factor": ({"settings": {"channel": "rician", "k_factor_db": 41.0}}, "settings.k_factor_db", "[-20, 40]"),
    "K-factor of no use": (
        {"settings": {"k_factor_db": 3.0}},
        "settings.k_factor_db",
        "must be absent for channel 'awgn'",
    ),
    "block of no use": ({"settings": {"block_symbols": 4}}, "settings.block_symbols", "must be 0 for channel 'awgn'"),
    "router of no use": ({"settings": {"snr_error_db": 1.0}}, "settings.snr_error_db", "must be 0"),
    "router's error": ({"settings": {"snr_error_db": 31.0}}, "settings.snr_error_db", "got 31"),
    "draws": ({"draws": -1}, "draws", "got -1"),
    "too many draws": ({"draws": 2**31}, "draws", "must be in [1, "),
    "target": ({"target_errors": -1, "draws": 9}, "target_errors", "got -1"),
    "width": ({"rel_width": 11.0, "draws": 9}, "rel_width", "[0.001, 10]"),
    "confidence": ({"confidence": 1.0}, "confidence", "got 1.0"),
    "too few labels": ({"labels": (0, 1)}, "labels", "must have shape (7), got (2)"),
    "no such class": ({"labels": (0, 1, 2, 3, 0, 0, 0)}, "labels", "must be in [0, 3), got [0, 3]"),
    "shape": ({"images": np.zeros((2, 8, 9), np.float32)}, "inputs.image", "must have shape (batch, 8, 8)"),
    "pixel": ({"images": np.full((2, 8, 8), 17, np.float32)}, "inputs.image", "must be in [0, 16]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_argument_is_named_with_what_is_allowed(own, images, case):
    fields, field, text = REFUSED[case]
    with pytest.raises(grpc.RpcError) as refused:
        list(own.stub.Sweep(ask(**({"images": images} | fields)), timeout=60))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violation = error_details_pb2.BadRequest()
    assert rpc_status.from_call(refused.value).details[0].Unpack(violation)
    assert violation.field_violations[0].field == field
    assert text in violation.field_violations[0].description


def test_an_unknown_model_is_not_found(own, images):
    with pytest.raises(grpc.RpcError) as refused:
        list(own.stub.Sweep(ask(images, model="cats"), timeout=60))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "model must be one of tiny, got 'cats'"


class Busy:
    """The thread beside the batches, held until it is let go."""

    def __init__(self, own):
        self.entered, self.go = threading.Event(), threading.Event()
        own.engine.means.aside._pool.submit(self._wait)
        assert self.entered.wait(20)

    def _wait(self):
        self.entered.set()
        assert self.go.wait(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.go.set()


def sweeps(own):
    found = own.counted("sweep")
    return 0 if found is None else found.sweeps


def is_free(own):
    """Whether the thread beside the batches takes the next call."""
    own.engine.means.aside._pool.submit(int).result(20)
    return own.engine.means.aside._calls == 0


def test_what_a_sweep_sent_is_counted_apart_from_the_requests(serving, bundle_path, images, link):
    with serving(bundle_path) as own, Client(own.address) as caller:
        points = list(caller.sweep(images, GRID, draws=9, channel="rayleigh"))
        found = own.counted("sweep")
        assert (found.successes, found.rows) == (1, 9 * len(GRID) * len(images))
        assert found.bits == sum(point.bits for point in points)
        assert found.symbols == sum(round(point.symbols_per_sample * point.samples * point.draws) for point in points)
        assert found.snr_db.count == len(GRID)
        assert dict(found.channels) == {"rayleigh": found.rows}
        assert own.counted("link").successes == 0


def test_a_run_over_a_channel_of_tr_38901_is_counted(serving, bundle_path, images):
    with serving(bundle_path) as own, Client(own.address) as caller:
        caller.transmit(images, snr_db=3.0, channel="tdl-a")
        assert (own.counted("link").executions, own.counted("link").executed_rows) == (1, len(images))


def test_a_cancelled_sweep_makes_room(own, images, until, caplog):
    before = own.counted("sweep").failures.cancelled if own.counted("sweep") else 0
    endless = own.stub.Sweep(ask(images, draws=10**7, snr_db=(-3.0,)))
    until(lambda: sweeps(own) == 1 and own.engine.means.aside._calls == 1)
    endless.cancel()
    until(lambda: sweeps(own) == 0)
    assert is_free(own)
    assert own.counted("sweep").failures.cancelled == before + 1
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert own.admin.statistics().in_flight_requests == 0
    assert len(list(own.stub.Sweep(ask(images), timeout=60))) == len(GRID)


def test_a_sweep_ends_with_its_deadline(own, images, until):
    with pytest.raises(grpc.RpcError) as late:
        list(own.stub.Sweep(ask(images, draws=10**7, snr_db=(-3.0,)), timeout=0.3))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: sweeps(own) == 0)
    assert is_free(own)


def test_inference_goes_on_beside_a_sweep(own, caller, images, until):
    expected = caller.transmit(images, snr_db=0.0, seed=3).decoded.logits
    endless = own.stub.Sweep(ask(images, draws=10**7, snr_db=(-3.0,)))
    until(lambda: sweeps(own) == 1)
    for _ in range(20):
        np.testing.assert_array_equal(caller.transmit(images, snr_db=0.0, seed=3).decoded.logits, expected)
    assert sweeps(own) == 1
    endless.cancel()
    until(lambda: sweeps(own) == 0)


def test_sweeps_wait_for_each_other_and_one_too_many_is_told_when_to_come_back(own, images, until):
    with Busy(own) as busy:
        waiting = [own.stub.Sweep(ask(images, settings={"seed": seed}), timeout=60) for seed in range(1 + WAITING_MAX)]
        until(lambda: sweeps(own) == 1 + WAITING_MAX and own.engine.means.aside._calls == 1 + WAITING_MAX)
        with pytest.raises(grpc.RpcError) as refused:
            list(own.stub.Sweep(ask(images), timeout=60))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(refused.value).details[0].Unpack(retry)
        assert retry.retry_delay.ToNanoseconds() > 0

        waiting[1].cancel()  # which makes room at once: it never runs
        until(lambda: own.engine.means.aside._calls == WAITING_MAX)
        late = own.stub.Sweep(ask(images), timeout=60)
        until(lambda: own.engine.means.aside._calls == 1 + WAITING_MAX)
        busy.go.set()
        for call in (waiting[0], *waiting[2:], late):
            assert len(list(call)) == len(GRID)
    until(lambda: sweeps(own) == 0)
