import gc
import json
import shutil
import weakref

import grpc
import numpy as np
import pytest

from link.bundle import load_bundle
from serve.engine.model import Model
from serve.pb.inference import grpc_service_pb2 as pb

NAMES = ["tiny.transmitter", "tiny.receiver", "tiny.link"]


def error_of(call, request):
    with pytest.raises(grpc.RpcError) as refused:
        call(request)
    return refused.value


def test_a_server_that_drains_is_alive_and_not_ready(oip, bundle_path):
    draining = []
    with oip.serving([bundle_path], ready=lambda: not draining) as server:
        asked = (
            lambda: server.stub.ServerReady(pb.ServerReadyRequest()).ready,
            lambda: server.stub.ModelReady(pb.ModelReadyRequest(name="tiny.link")).ready,
        )
        assert all(ask() for ask in asked)
        draining.append(True)
        assert not any(ask() for ask in asked)
        assert server.stub.ServerLive(pb.ServerLiveRequest()).live


def test_the_index_lists_three_models_a_bundle(oip, bundle_path, routed_bundle):
    with oip.serving([bundle_path, routed_bundle]) as server:
        index = server.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models
        error = error_of(server.stub.RepositoryIndex, pb.RepositoryIndexRequest(repository_name="other"))
    rings = [name.replace("tiny", "rings") for name in NAMES]
    assert [(model.name, model.version, model.state) for model in index] == [
        (name, "1", "READY") for name in rings + NAMES
    ]
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_bundle_is_loaded_anew_by_any_of_its_names(oip, bundle_path):
    loaded = []

    async def reload(name):
        loaded.append(name)

    with oip.serving([bundle_path], reload=reload) as server:
        load = server.stub.RepositoryModelLoad
        for name in ("tiny", "tiny.link", "tiny.receiver"):
            load(pb.RepositoryModelLoadRequest(model_name=name))
        assert loaded == ["tiny"] * 3
        overridden = pb.RepositoryModelLoadRequest(model_name="tiny")
        overridden.parameters["config"].string_param = "{}"
        assert error_of(load, overridden).details().startswith("parameters.config must be absent")
        error = error_of(load, pb.RepositoryModelLoadRequest(model_name="tin"))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert loaded == ["tiny"] * 3
        assert "model_repository" in server.stub.ServerMetadata(pb.ServerMetadataRequest()).extensions


def test_extensions_are_those_that_the_server_was_given_the_means_for(stub):
    metadata = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert list(metadata.extensions) == ["classification", "model_configuration", "parameters", "statistics"]


@pytest.fixture(scope="session")
def next_bundle(bundle_path, tmp_path_factory):
    """Version 2 of the bundle: another name for its last class."""
    folder = tmp_path_factory.mktemp("next") / "bundle"
    shutil.copytree(bundle_path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["version"] = 2
    manifest["task"]["classes"][2] = "comet"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_version_that_takes_over_is_seen_by_every_call_and_the_one_before_is_let_go(
    oip, bundle_path, next_bundle, images
):
    with oip.serving([bundle_path]) as server:
        request = oip.request("tiny.link", {"image": images}, outputs=["class_names", "decisions"])
        before = server.stub.ModelInfer(request)
        model = Model(load_bundle(next_bundle), server.engine.means)

        async def swap():
            return weakref.ref(server.engine.put(model))

        old = server.run(swap())
        gc.collect()
        assert old() is None
        after = server.stub.ModelInfer(request)
        assert (before.model_version, after.model_version) == ("1", "2")
        renamed = [name.replace("star", "comet") for name in oip.arrays(before)["class_names"]]
        assert oip.arrays(after)["class_names"] == renamed
        assert list(server.stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny.link")).versions) == ["2"]
        request.model_version = "1"
        assert error_of(server.stub.ModelInfer, request).details() == "model_version must be 2 or empty, got '1'"


def test_statistics_count_requests_samples_and_runs(oip, bundle_path, images):
    with oip.serving([bundle_path]) as server:
        assert "statistics" in server.stub.ServerMetadata(pb.ServerMetadataRequest()).extensions
        good = oip.request("tiny.link", {"image": images})
        for _ in range(3):
            server.stub.ModelInfer(good)
        list(server.stub.ModelStreamInfer(iter([good, good])))
        for parameters in ({"snr_db": 99}, {"timeout": 1}):
            error_of(server.stub.ModelInfer, oip.request("tiny.link", {"image": images}, parameters=parameters))
        reply = server.stub.ModelStatistics(pb.ModelStatisticsRequest(name="tiny.link"))
        everything = server.stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
        failures = server.statistics.operation("tiny.link").snapshot().failures
        error = error_of(server.stub.ModelStatistics, pb.ModelStatisticsRequest(name="tin.link"))
    (counted,) = reply.model_stats
    assert (counted.name, counted.version) == ("tiny.link", "1")
    assert counted.inference_count == 5 * len(images)
    assert counted.execution_count == len([rows for operation, rows in server.runs if operation == "tiny.link"])
    spent = counted.inference_stats
    parts = [spent.queue, spent.compute_input, spent.compute_infer, spent.compute_output]
    assert [part.count for part in [spent.success, *parts]] == [5] * 5
    assert sum(part.ns for part in parts) == spent.success.ns
    assert spent.compute_infer.ns > 0
    assert spent.fail.count == 2
    assert (failures.invalid, failures.expired) == (1, 1)
    assert sum(batch.compute_infer.count for batch in counted.batch_stats) == counted.execution_count
    assert all(batch.batch_size >= len(images) for batch in counted.batch_stats)
    assert [each.name for each in everything] == NAMES
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_a_reply_does_not_depend_on_who_else_is_in_the_batch(inference, oip, images):
    del inference.runs[:]
    requests = [
        oip.request(
            "tiny.link",
            {"image": np.roll(images, seed, axis=0)[: 1 + seed % 3]},
            outputs=["y", "logits", "bits"],
            parameters={"seed": seed, "snr_db": float(seed % 4)},
        )
        for seed in range(60)
    ]
    alone = [inference.stub.ModelInfer(request) for request in requests]
    together = [future.result() for future in [inference.stub.ModelInfer.future(request) for request in requests]]
    assert together == alone
    assert len(inference.runs) < 2 * len(requests)
