"""Some hundred malformed requests; the ten thousands are those of benchmarks.chaos.fuzz."""

import grpc
import pytest

from benchmarks.chaos import fuzz
from benchmarks.chaos.streams import Item, Stream, judge, stream_targets
from benchmarks.chaos.targets import INFERENCE, inference_targets, link_targets


def test_each_malformed_request_is_refused_by_name_and_the_next_is_answered(bundle_path):
    assert list(fuzz.run(bundle_path, 300, derandomize=True)) == []


def test_what_is_spoilt_is_valid_at_first_and_of_both_protocols(server, link):
    with grpc.insecure_channel(server.address) as channel:
        known = (*link_targets(link), *inference_targets(link, channel))
        assert {target.method.split("/")[1] for target in known} == {"hardpath.v1.LinkService", INFERENCE}
        for target in known:
            request = target.valid.SerializeToString()
            if not target.streams:
                channel.unary_unary(target.method)(request, timeout=20)
            else:
                assert len(list(channel.unary_stream(target.method)(request, timeout=20))) == 2


@pytest.mark.parametrize("number", [0, 1], ids=["TransmitStream", "ModelStreamInfer"])
def test_a_stream_of_good_requests_is_answered_as_the_link_does(server, link, number):
    target = stream_targets(link)[number]
    with grpc.insecure_channel(server.address) as channel:
        good = tuple(Item(question.request, question) for question in target.good)
        assert judge(channel, Stream(target, good)) == (("OK",) * len(good), "")


@pytest.mark.parametrize("number", [0, 1], ids=["TransmitStream", "ModelStreamInfer"])
def test_a_stream_is_judged_by_each_of_its_replies(server, link, number):
    target = stream_targets(link)[number]
    first, second = target.good[:2]
    good, spoilt, swapped = Item(first.request, first), Item(b"\xff"), Item(first.request, second)
    with grpc.insecure_channel(server.address) as channel:
        assert judge(channel, Stream(target, (good, spoilt, good))) == (("OK", "INVALID_ARGUMENT", "OK"), "")
        assert "answered wrongly" in judge(channel, Stream(target, (good, spoilt, swapped))).complaint
        misplaced = target._replace(place=lambda n, request: "elsewhere")
        assert "'elsewhere' was asked" in judge(channel, Stream(misplaced, (good,))).complaint
