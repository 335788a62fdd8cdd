"""Several models at once, of one mode and of several, of numbers and of texts: each caller gets what is its own."""

import asyncio
import json
import shutil
import threading

import grpc
import pytest

from benchmarks.chaos.questions import make_questions
from link.bundle import MANIFEST_NAME, load_bundle
from link.chain import Link


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, bundle_path, steered_bundle, text_bundle_path, with_tokenizer):
    """Folders of bundles with names of their own."""
    found = {
        "numbers": bundle_path,
        "numbers-of-modes": steered_bundle,
        "texts": text_bundle_path,
        "texts-of-modes": with_tokenizer(steered_bundle),
    }
    for name, bundle in found.items():
        folder = tmp_path_factory.mktemp(name) / "bundle"
        shutil.copytree(bundle, folder)
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest | {"name": name}), encoding="utf-8")
        found[name] = folder
    return list(found.values())


@pytest.mark.parametrize("workers", [1, 3])
def test_who_asks_several_models_at_once_gets_the_answers_of_one_asked_alone(several, bundles, workers, until):
    asked = [make_questions(Link(load_bundle(bundle)), 36, rows=(1, 3, 8, 2)) for bundle in bundles]
    questions = [question for together in zip(*asked, strict=True) for question in together]
    batching = {"auto": False, "max_rows": 64, "workers": workers}
    with several(bundles, batching=batching) as server:
        go = threading.Event()
        held(server.engine, go)

        async def ask():
            async with grpc.aio.insecure_channel(server.address) as channel:
                calls = [channel.unary_unary(question.method)(question.request, timeout=60) for question in questions]
                await asyncio.to_thread(until, lambda: server.engine.means.admission.requests == len(questions))
                go.set()
                return [await call for call in calls]

        replies = asyncio.run(ask())
        runs = sum(operation.executions for operation in server.admin.statistics().operations)
    assert [question.is_answered_by(reply) for question, reply in zip(questions, replies, strict=True)] == [True] * 144
    assert runs <= workers * 3 * len(bundles)  # all that waited for an operation went together


def held(engine, go):
    """Have all workers wait, and all runs for them."""
    for _ in range(engine.means.workers.count):
        engine.means.workers.submit(lambda: go.wait(20))
    for model in engine.models:
        for batcher in model._batchers.values():
            batcher._quick_s = 0.0
