"""A recording over the wire: tables from the server, windows one by one, decisions as they come."""

import asyncio
import shutil

import numpy as np
import pytest

from link.bundle import load_bundle, sha256
from link.durations import negative_binomial
from link.errors import ArgumentError
from link.hdp import Hdp
from link.hsmm import Hsmm
from link.manifest import Manifest
from link.sequence import SequenceStream, SequenceTables, code_probabilities
from link.sequence_file import write_sequence
from link.task import SequenceSpec
from serve.client import AsyncClient, Client
from serve.client.recording import decide, decide_async


@pytest.fixture(scope="module")
def recorded_path(bundle_path, tmp_path_factory):
    """The tiny bundle with a stage over its three classes."""
    folder = tmp_path_factory.mktemp("recorded") / "bundle"
    shutil.copytree(bundle_path, folder)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    mode, random = manifest.modes[0], np.random.default_rng(3)
    transition = np.full((3, 3), np.log(0.5))
    np.fill_diagonal(transition, -np.inf)
    durations = negative_binomial(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0]), 6)
    tables = SequenceTables(
        np.array(0.8),
        np.log(np.array([0.5, 0.3, 0.2])),
        Hdp(
            np.log(random.dirichlet(np.ones(mode.codewords), (4, mode.tokens))) - 0.1,
            random.dirichlet(np.ones(4)),
            0.9,
            marginal=True,
        ),
        np.log(random.dirichlet(np.ones(3), 4)),
        np.array(0.5),
        Hsmm.of(np.log(np.full(3, 1 / 3)), transition, durations),
    )
    write_sequence(tables, folder / "sequence.npz")
    spec = SequenceSpec(sha256=sha256(folder / "sequence.npz"), parts=("hdp", "hsmm"))
    task = manifest.task.model_copy(update={"sequence": spec})
    changed = manifest.model_copy(update={"name": "recorded", "task": task})
    (folder / "manifest.json").write_text(changed.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def recorded(recorded_path, bundle_path, several):
    with several([recorded_path, bundle_path]) as running, Client(running.address, model="recorded") as client:
        yield client


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(7).uniform(0.0, 16.0, size=(11, 8, 8)).astype(np.float32)


def expected_of(path, result, lag):
    """What the stage makes of a whole batch that was received, window by window."""
    bundle = load_bundle(path)
    stream = SequenceStream(bundle.sequence(), lag)
    codes = code_probabilities(result.decoded.llr, bundle.manifest.modes[0]).astype(np.float64)
    said = [stream.push(*row) for row in zip(result.decoded.logits.astype(np.float64), codes, strict=True)]
    return np.stack([answer for answer in (*said, *stream.flush()) if answer is not None])


def test_the_server_tells_of_the_stage_and_gives_its_tables(recorded, recorded_path):
    held = load_bundle(recorded_path)
    assert recorded.model().manifest.task == held.manifest.task
    found, expected = recorded.sequence(), held.sequence()
    for one, other in zip(found.hsmm + found.hdp, expected.hsmm + expected.hdp, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("lag", [0, 3, 20])
def test_windows_are_decided_as_they_come_and_the_last_when_the_recording_ends(recorded, recorded_path, windows, lag):
    log_p = expected_of(recorded_path, recorded.transmit(windows, snr_db=3.0, seed=5, include_llr=True), lag)
    sent = []

    def live():
        for window in windows:
            sent.append(window)
            yield window[None]

    found = list(decide(recorded, live(), snr_db=3.0, seed=5, lag=lag))
    assert [decided.window for decided in found] == list(range(11))
    classes = recorded.model().manifest.task.classes
    assert [decided.class_name for decided in found] == [classes[best] for best in log_p.argmax(axis=1)]
    np.testing.assert_allclose([decided.probability for decided in found], np.exp(log_p.max(axis=1)), atol=1e-6)
    assert len(sent) == 11


def test_batches_of_windows_and_asyncio_decide_the_same(recorded, windows):
    one_by_one = list(decide(recorded, (window[None] for window in windows), snr_db=3.0, seed=5, lag=2))
    assert list(decide(recorded, [windows[:4], windows[4:]], snr_db=3.0, seed=5, lag=2)) == one_by_one

    async def over_asyncio():
        async with AsyncClient(recorded.address, model="recorded") as client:
            return [decided async for decided in decide_async(client, [windows], snr_db=3.0, seed=5, lag=2)]

    assert asyncio.run(over_asyncio()) == one_by_one


def test_a_recording_that_is_left_early_leaves_nothing_behind(recorded, windows):
    first = decide(recorded, (window[None] for window in windows), snr_db=3.0, lag=1)
    assert next(first).window == 0
    first.close()
    assert len(list(decide(recorded, [windows], snr_db=3.0))) == 11


def test_windows_that_neighbours_explain_are_decided_otherwise_than_alone(recorded, windows):
    found = list(decide(recorded, [windows], snr_db=-6.0, seed=1, lag=20))
    received = recorded.transmit(windows, snr_db=-6.0, seed=1, include_llr=True)
    assert [decided.alone for decided in found] == list(received.decoded.class_names)
    assert any(decided.alone != decided.class_name for decided in found)


def test_a_model_without_a_stage_and_a_lag_below_0_are_refused(recorded, windows):
    with pytest.raises(ArgumentError, match="must decide windows of a recording together, tiny does not"):
        recorded.sequence("tiny")
    with pytest.raises(ArgumentError, match="must decide windows of a recording together"):
        next(decide(recorded, [windows], model="tiny", snr_db=3.0))
    with pytest.raises(ArgumentError, match="lag must be at least 0, got -1"):
        next(decide(recorded, [windows], snr_db=3.0, lag=-1))


def test_the_server_itself_refuses_to_give_what_a_model_has_not(recorded):
    import grpc

    from serve.pb.hardpath.v1 import link_pb2 as pb
    from serve.pb.hardpath.v1 import link_pb2_grpc

    with grpc.insecure_channel(recorded.address) as channel:
        stub = link_pb2_grpc.LinkServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModel(pb.GetModelRequest(model="tiny", include_sequence=True))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "tiny decides each sample by itself" in caught.value.details()
        assert not stub.GetModel(pb.GetModelRequest(model="recorded")).sequence
