"""Faults of every kind beside good calls, for some seconds; the hours are those of benchmarks.chaos.soak."""

import numpy as np
import pytest

from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.soak import Look, run, slope


@pytest.mark.slow
def test_good_calls_are_answered_rightly_whatever_others_do(bundle_path, tmp_path):
    found = run(bundle_path, samples=10_000, minutes=2.0, callers=4, log=tmp_path / "soak.csv")
    assert found.failures == ()
    assert (found.tracebacks, found.exit_code) == (0, 0)
    assert found.looks[-1].samples >= 10_000
    assert set(found.faults) == set(KINDS)
    assert len((tmp_path / "soak.csv").read_text().splitlines()) == len(found.looks) + 1


def test_growth_is_told_per_million_requests_and_the_warm_up_does_not_count():
    random = np.random.default_rng(0)
    requests = np.arange(0, 2_000_000, 10_000)
    warm = 60.0 + 30.0 * np.minimum(requests / 400_000, 1.0)
    looks = [
        Look(0.0, n, n, rss + 1.5e-6 * n + error, 9)
        for n, rss, error in zip(requests.tolist(), warm, random.normal(scale=0.1, size=200), strict=True)
    ]
    found, error = slope(looks)
    assert found == pytest.approx(1.5, abs=4 * error)
    assert 0.0 < error < 0.05
