from benchmarks.chaos import swaps
from benchmarks.chaos.questions import make_questions


def test_versions_take_each_others_place_under_load_and_no_call_is_lost(bundle_path, link):
    found = swaps.under_load(bundle_path, make_questions(link, 60), times=3)
    assert (found.swaps, found.failed, found.tracebacks) == (3, 0, 0)
    assert found.answered >= 200
