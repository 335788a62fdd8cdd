"""Some hundred malformed requests; the ten thousands are those of benchmarks.chaos.fuzz."""

from benchmarks.chaos import fuzz


def test_each_malformed_request_is_refused_by_name_and_the_next_is_answered(bundle_path):
    assert list(fuzz.run(bundle_path, 300, derandomize=True)) == []
