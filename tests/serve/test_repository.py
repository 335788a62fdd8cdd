"""A new version of a bundle takes over from the old one on a real server, under load; a bad one does not."""

import asyncio
import gc
import json
import os
import shutil
import threading
import time
import weakref
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper, numpy_helper

from link.bundle import load_bundle, sha256
from link.chain import Link
from link.channel import build_channel
from link.errors import BundleError
from link.randomness import Draws
from serve.config.schema import ServerConfig
from serve.engine.batcher import Workers
from serve.engine.means import Means
from serve.engine.repository import Repository
from serve.messages.tensor import tensor_from_message, tensor_to_message
from serve.pb.hardpath.v1 import admin_pb2, admin_pb2_grpc
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.inference import grpc_service_pb2 as oip
from serve.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

WATCHED = {"watch": True, "watch_interval_s": 0.1}
SERVING = health_pb2.HealthCheckResponse.SERVING


def describe(folder, **changes):
    """Write the manifest anew, last, with the hashes of the graphs as they are."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for graph in (manifest["transmitter"], manifest["receiver"]):
        graph["sha256"] = sha256(folder / graph["file"])
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def weigh(folder, factor):
    """Multiply the weights of the receiver's last layer."""
    graph = onnx.load(str(folder / "receiver.onnx"))
    (head,) = (weights for weights in graph.graph.initializer if tuple(weights.dims) == (10, 3))
    head.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(head), head.name))
    onnx.save(graph, str(folder / "receiver.onnx"))


@pytest.fixture(scope="module")
def versions(bundle_path, tmp_path_factory):
    """Three versions of a bundle, and a link of each."""
    made = []
    for version in (1, 2, 3):
        folder = tmp_path_factory.mktemp(f"version{version}") / "bundle"
        shutil.copytree(bundle_path, folder)
        weigh(folder, version)
        made.append(describe(folder, version=version))
    return SimpleNamespace(paths=made, links=[Link(load_bundle(path)) for path in made])


@pytest.fixture
def folder(versions, tmp_path):
    """Of the first version; to be changed."""
    return shutil.copytree(versions.paths[0], tmp_path / "served")


def transmit(images, seed=0, model=""):
    return pb.TransmitRequest(
        inputs={"image": tensor_to_message("image", images)},
        settings=pb.LinkSettings(snr_db=4.0, seed=seed),
        model=model,
    )


@contextmanager
def load(own, images):
    """Calls from two threads while the block runs; all are answered, and the counter tells by which version."""
    answered, stop, replies = Counter(), threading.Event(), []

    def call(seed):
        while not stop.is_set():
            rows = 1 + seed % len(images)
            reply = own.stub.Transmit(transmit(images[:rows], seed), timeout=60)
            replies.append((seed, rows, reply))
            answered[reply.model_version] += 1
            seed += 2

    threads = [threading.Thread(target=call, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    found = SimpleNamespace(answered=answered, replies=replies, failed=False)
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def assert_each_is_of_one_version(replies, versions, images):
    for seed, rows, reply in replies:
        link = versions.links[reply.model_version - 1]
        expected = link.transmit({"image": images[:rows]}, build_channel("awgn"), 4.0, Draws(seed, np.arange(rows)))
        logits = tensor_from_message("logits", reply.decoded.logits)
        # Matrix products of other heights add in other orders: 10 terms of float32, magnitudes below 8 times the weight.
        tolerance = 10 * 8 * reply.model_version * 2**-23
        np.testing.assert_allclose(logits, expected.decoded.logits, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(
            tensor_from_message("indices_hat", reply.decoded.indices_hat), expected.decoded.indices_hat
        )


def export(source, folder):
    """In place, as a trainer does: the manifest last."""
    for name in ("transmitter.onnx", "receiver.onnx", "manifest.json"):
        shutil.copy(source / name, folder / name)


def by_admin(own, source, folder):
    export(source, folder)
    reply = admin_pb2_grpc.AdminServiceStub(own.channel).ReloadModel(
        admin_pb2.ReloadModelRequest(model="tiny"), timeout=60
    )
    assert reply.models[0].changed


def by_repository(own, source, folder):
    export(source, folder)
    GRPCInferenceServiceStub(own.channel).RepositoryModelLoad(
        oip.RepositoryModelLoadRequest(model_name="tiny.link"), timeout=60
    )


def by_export(own, source, folder):
    export(source, folder)


def by_rename(own, source, folder):
    fresh, spent = folder.with_name("fresh"), folder.with_name("spent")
    shutil.rmtree(spent, ignore_errors=True)
    shutil.copytree(source, fresh)
    folder.rename(spent)
    fresh.rename(folder)


def by_link(own, source, folder):
    flipped = folder.with_name("flipped")
    flipped.symlink_to(source)
    flipped.replace(folder)


@pytest.mark.parametrize("swap", [by_admin, by_repository, by_export, by_rename, by_link])
def test_a_new_version_takes_over_under_load_without_one_wrong_reply(serving, versions, folder, images, until, swap):
    if swap is by_link:
        moved = folder.rename(folder.with_name("first"))
        folder.symlink_to(moved)
    by_call = swap in (by_admin, by_repository)
    with serving(folder, lifecycle={} if by_call else WATCHED) as own, load(own, images) as under:
        for number in (1, 2):
            until(lambda number=number: under.answered[number] > 5)
            swap(own, versions.paths[number], folder)
            until(lambda number=number: under.answered[number + 1] > 5)
        assert own.stub.GetModel(pb.GetModelRequest(), timeout=20).model.version == 3
        (model,) = own.admin.statistics().models
    assert model == ("tiny", 3, 2, 0)
    assert_each_is_of_one_version(under.replies, versions, images)
    told = [reply.model_version for _, _, reply in under.replies]
    assert set(told) == {1, 2, 3}


def fail_when_run(folder):
    """A graph that loads, and looks up a row that its table does not have."""
    model = onnx.load(str(folder / "receiver.onnx"))
    graph = model.graph
    name = graph.output[2].name
    for node in graph.node:
        node.output[:] = ["raw_scores" if output == name else output for output in node.output]
    for constant, value in {"far": np.array([[99]], np.int64), "rows": np.zeros(3, np.float32)}.items():
        graph.initializer.append(numpy_helper.from_array(value, constant))
    graph.node.extend(
        [
            helper.make_node("ArgMax", ["raw_scores"], ["best"], axis=1, keepdims=1),
            helper.make_node("Add", ["best", "far"], ["row"]),
            helper.make_node("Gather", ["rows", "row"], ["nothing"]),
            helper.make_node("Add", ["raw_scores", "nothing"], [name]),
        ]
    )
    assert graph.output[2].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(model, str(folder / "receiver.onnx"))
    describe(folder, version=2)


def truncated(folder):
    graph = (folder / "receiver.onnx").read_bytes()
    (folder / "receiver.onnx").write_bytes(graph[: len(graph) // 2])
    describe(folder, version=2)


def wrong_hash(folder):
    weigh(folder, 5)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))


def damaged(folder):
    """A graph alone: the manifest is as it was."""
    data = bytearray((folder / "receiver.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "receiver.onnx").write_bytes(data)


def no_manifest(folder):
    (folder / "manifest.json").unlink()


def pipe_for_a_manifest(folder):
    no_manifest(folder)
    os.mkfifo(folder / "manifest.json")


def other_name(folder):
    describe(folder, name="other")


def not_json(folder):
    (folder / "manifest.json").write_text("{")


BAD = {
    truncated: "receiver.onnx is no graph that ONNX Runtime can load",
    wrong_hash: "receiver.onnx is not the file that manifest.json describes",
    damaged: "receiver.onnx is not the file that manifest.json describes",
    no_manifest: "is no bundle: it has no manifest.json",
    other_name: "holds other, where tiny is served",
    not_json: "cannot be read",
    fail_when_run: "cannot be served",
}


def told(caplog):
    return [record.getMessage() for record in caplog.records if "goes on as it was" in record.getMessage()]


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_bundle_is_refused_by_call_and_the_old_one_goes_on(serving, versions, folder, images, caplog, spoil):
    with serving(folder) as own:
        spoil(folder)
        stub = admin_pb2_grpc.AdminServiceStub(own.channel)
        with load(own, images) as under, pytest.raises(grpc.RpcError) as refused:
            stub.ReloadModel(admin_pb2.ReloadModelRequest(), timeout=60)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert BAD[spoil] in refused.value.details()
        assert refused.value.details().startswith("tiny")
        assert str(folder.parent) not in refused.value.details()
        assert own.admin.statistics().models == (("tiny", 1, 0, 1),)
        (line,) = told(caplog)
        assert str(folder) in line
        assert own.stub.Transmit(transmit(images), timeout=20).model_version == 1
    assert_each_is_of_one_version(under.replies, versions, images)


def test_a_pipe_for_a_manifest_does_not_hold_the_server_up(serving, folder):
    with serving(folder) as own:
        pipe_for_a_manifest(folder)
        stub = admin_pb2_grpc.AdminServiceStub(own.channel)
        with pytest.raises(grpc.RpcError, match="is no file but a pipe or a device"):
            stub.ReloadModel(admin_pb2.ReloadModelRequest(), timeout=20)


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_bundle_is_refused_once_where_files_are_watched(serving, versions, folder, images, caplog, until, spoil):
    with serving(folder, lifecycle=WATCHED) as own:
        spoil(folder)
        until(lambda: own.admin.statistics().models[0].refusals)
        time.sleep(0.5)  # five more looks
        assert own.admin.statistics().models == (("tiny", 1, 0, 1),)
        (line,) = told(caplog)
        assert BAD[spoil] in line
        assert own.stub.Transmit(transmit(images), timeout=20).model_version == 1
        export(versions.paths[2], folder)  # and the watch goes on
        until(lambda: own.admin.statistics().models[0] == ("tiny", 3, 1, 1))
        assert own.stub.Transmit(transmit(images), timeout=20).model_version == 3


def test_a_graph_that_comes_after_its_manifest_is_waited_for(serving, versions, folder, until):
    with serving(folder, lifecycle=WATCHED) as own:
        shutil.copy(versions.paths[1] / "manifest.json", folder)
        until(lambda: own.admin.statistics().models[0].refusals == 1)
        shutil.copy(versions.paths[1] / "receiver.onnx", folder)
        until(lambda: own.admin.statistics().models[0].version == 2)


def test_an_unchanged_bundle_is_not_loaded_again(serving, folder):
    with serving(folder) as own:
        before = own.engine.model()
        (model,) = (
            admin_pb2_grpc.AdminServiceStub(own.channel).ReloadModel(admin_pb2.ReloadModelRequest(), timeout=60).models
        )
        assert (model.name, model.previous_version, model.version, model.changed) == ("tiny", 1, 1, False)
        assert own.engine.model() is before
        assert own.admin.statistics().models == (("tiny", 1, 0, 0),)


def test_an_unknown_model_is_not_reloaded(serving, folder):
    with serving(folder) as own:
        for call in (
            lambda: admin_pb2_grpc.AdminServiceStub(own.channel).ReloadModel(
                admin_pb2.ReloadModelRequest(model="cats"), timeout=20
            ),
            lambda: GRPCInferenceServiceStub(own.channel).RepositoryModelLoad(
                oip.RepositoryModelLoadRequest(model_name="cats"), timeout=20
            ),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert "tiny" in refused.value.details()


def test_the_old_version_is_freed_without_a_collection(serving, versions, folder, images, until):
    with serving(folder) as own:
        for method in (own.stub.Transmit, own.stub.Transmit):
            method(transmit(images), timeout=20)
        old = weakref.ref(own.engine.model().link)
        gc.collect()
        gc.freeze()  # as a server does once it is ready: what is there now is never looked at again
        try:
            by_admin(own, versions.paths[1], folder)
            own.stub.Transmit(transmit(images), timeout=20)
            until(lambda: old() is None)
        finally:
            gc.unfreeze()


def test_a_bad_bundle_is_told_alike_over_the_other_protocol(serving, folder):
    with serving(folder) as own:
        wrong_hash(folder)
        with pytest.raises(grpc.RpcError) as refused:
            GRPCInferenceServiceStub(own.channel).RepositoryModelLoad(
                oip.RepositoryModelLoadRequest(model_name="tiny"), timeout=60
            )
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.value.details().startswith("tiny: receiver.onnx is not the file that manifest.json describes")


@pytest.mark.parametrize("given", ["ABSOLUTE", "LINK", ".", "../served", "../served/"])
def test_a_caller_is_told_the_model_and_never_where_its_folder_is(versions, folder, tmp_path, monkeypatch, given):
    monkeypatch.chdir(folder)
    (tmp_path / "link").symlink_to(folder)
    path = {"ABSOLUTE": folder, "LINK": tmp_path / "link"}.get(given, given)

    def fail(found, receiver=None):
        raise OSError(13, "Permission denied", str((found / "receiver.onnx").resolve()))

    async def run():
        repository = Repository([path], None, Means(workers=Workers(1)))
        monkeypatch.setattr("serve.engine.repository.load_bundle", fail)
        describe(folder, version=2)
        try:
            await repository.reload()
        finally:
            repository.close()

    with pytest.raises(BundleError) as error:
        asyncio.run(run())
    assert str(error.value) == "tiny: cannot be served: [Errno 13] Permission denied: 'tiny/receiver.onnx'"


def test_a_reload_that_its_caller_gives_up_can_be_made_again(versions, folder, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def slow(path, receiver=None):
        bundle = load_bundle(path, receiver)
        begun.set()
        assert go.wait(20)
        return bundle

    async def run():
        repository = Repository([folder], None, Means(workers=Workers(1)))
        monkeypatch.setattr("serve.engine.repository.load_bundle", slow)
        export(versions.paths[1], folder)
        first = asyncio.create_task(repository.reload())
        await asyncio.to_thread(begun.wait, 20)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        go.set()
        (swap,) = await repository.reload()
        repository.close()
        return swap, repository.engine.model().version

    assert asyncio.run(run()) == (("tiny", 1, 2, True), 2)


def test_two_bundles_of_one_name_are_refused(versions):
    config = ServerConfig(bundles=tuple(versions.paths[:2]))
    with pytest.raises(BundleError, match=r"a model named tiny is served already, from another folder"):
        Repository(config.bundles, None, Means())


def test_several_bundles_answer_by_name_and_none_without(versions, tmp_path, images, several):
    second = shutil.copytree(versions.paths[1], tmp_path / "second")
    describe(second, name="wee")
    with several([versions.paths[0], second]) as own:
        listed = own.stub.ListModels(pb.ListModelsRequest(), timeout=20).models
        assert [(model.name, model.version) for model in listed] == [("tiny", 1), ("wee", 2)]
        assert own.stub.Transmit(transmit(images, model="tiny"), timeout=20).model_version == 1
        assert own.stub.Transmit(transmit(images, model="wee"), timeout=20).model_version == 2
        for call, request in (
            (own.stub.Transmit, transmit(images)),
            (own.stub.Encode, pb.EncodeRequest(inputs=transmit(images).inputs)),
            (own.stub.Decode, pb.DecodeRequest()),
            (own.stub.GetModel, pb.GetModelRequest()),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=20)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert refused.value.details() == "model must be one of tiny, wee, got ''"

        health = health_pb2_grpc.HealthStub(own.channel)
        names = [f"{name}{part}" for name in ("tiny", "wee") for part in ("", ".transmitter", ".receiver", ".link")]
        for name in names:
            assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status == SERVING
        with pytest.raises(grpc.RpcError) as refused:
            health.Check(health_pb2.HealthCheckRequest(service="cats"), timeout=20)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND

        describe(second, version=7)
        reloaded = (
            admin_pb2_grpc.AdminServiceStub(own.channel).ReloadModel(admin_pb2.ReloadModelRequest(), timeout=60).models
        )
        assert [(m.name, m.previous_version, m.version, m.changed) for m in reloaded] == [
            ("tiny", 1, 1, False),
            ("wee", 2, 7, True),
        ]
