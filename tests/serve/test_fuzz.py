"""Some hundred malformed requests; the ten thousands are those of benchmarks.chaos.fuzz."""

import grpc

from benchmarks.chaos import fuzz
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
            elif target.method.endswith("Sweep"):
                assert len(list(channel.unary_stream(target.method)(request, timeout=20))) == 2
            else:
                (reply,) = channel.stream_stream(target.method)(iter([request]), timeout=20)
                assert b"must" not in reply
