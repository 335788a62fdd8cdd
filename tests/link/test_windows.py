"""Windows of recordings: rates, gaps, labels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from link.errors import ArgumentError
from link.recordings import Recording
from link.windows import channels_of, resampled, windows_of, without_gaps


def recording(samples: ArrayLike, labels: list[str] | None = None, rate_hz: float | None = 100.0) -> Recording:
    values = np.array(samples, dtype=np.float32)
    values = values[:, None] if values.ndim == 1 else values
    names = tuple(f"c{place}" for place in range(values.shape[1]))
    return Recording("r", "s", rate_hz, names, values, None if labels is None else np.array(labels))


def test_a_sine_below_the_new_limit_survives_resampling_and_one_above_it_does_not_fold_back() -> None:
    time = np.arange(2000) / 200.0
    low, high = np.sin(2 * np.pi * 3.0 * time), np.sin(2 * np.pi * 47.0 * time)
    made = resampled(recording(np.stack([low, high], axis=1), rate_hz=200.0), 50.0)
    inner = slice(50, -50)
    np.testing.assert_allclose(made.samples[inner, 0], low[::4][inner], atol=0.01)
    assert np.abs(made.samples[inner, 1]).max() < 0.01
    assert made.rate_hz == 50.0
    assert len(made.samples) == 500


def test_a_rate_that_does_not_divide_keeps_the_time_of_each_sample() -> None:
    time = np.arange(320) / 32.0
    made = resampled(recording(np.sin(time), rate_hz=32.0), 50.0)
    assert len(made.samples) == 500
    np.testing.assert_allclose(made.samples[30:-30, 0], np.sin(np.arange(500) / 50.0)[30:-30], atol=0.01)


def test_labels_are_those_of_the_nearest_sample() -> None:
    made = resampled(recording(np.zeros(8), ["a"] * 4 + ["b"] * 4, 100.0), 50.0)
    assert made.labels is not None
    assert made.labels.tolist() == ["a", "a", "b", "b"]


def test_a_short_gap_is_filled_by_the_line_between_its_ends_and_a_long_one_cuts() -> None:
    nan = np.nan
    whole = recording(
        [[0, 9], [nan, 9], [2, 9], [3, 9], [nan, nan], [nan, 9], [nan, 9], [7, 9], [nan, 9]], list("abcdefghi")
    )
    parts, filled = without_gaps(whole, 2)
    assert filled == 1
    assert [part.samples[:, 0].tolist() for part in parts] == [[0, 1, 2, 3], [7]]
    assert parts[1].labels is not None
    assert parts[1].labels.tolist() == ["h"]
    (all_of_it,) = without_gaps(whole.part(0, 8), 3)[0]
    np.testing.assert_allclose(all_of_it.samples[:, 0], np.arange(8))
    assert (all_of_it.samples[:, 1] == 9).all()
    assert np.isnan(whole.samples[1, 0])


def test_a_recording_without_a_sample_has_no_stretch() -> None:
    assert without_gaps(recording([np.nan, np.nan]), 5) == ([], 0)


def test_windows_across_a_change_of_label_are_left_out_and_part_what_is_before_from_what_is_after() -> None:
    labels = ["a"] * 5 + ["b"] * 5
    first, second = windows_of(recording(np.arange(10), labels), 2, 2)
    assert first.samples[..., 0].tolist() == [[0, 1], [2, 3]]
    assert second.samples[..., 0].tolist() == [[6, 7], [8, 9]]
    assert first.labels is not None
    assert second.labels is not None
    assert (first.labels.tolist(), second.labels.tolist()) == (["a", "a"], ["b", "b"])


def test_windows_begin_where_they_are_told_to_and_none_is_short() -> None:
    (made,) = windows_of(recording(np.arange(10)), 4, 3, 1)
    assert made.samples[..., 0].tolist() == [[1, 2, 3, 4], [4, 5, 6, 7]]
    assert made.labels is None
    assert windows_of(recording(np.arange(3)), 4, 4) == []


def test_channels_are_taken_by_name_and_a_missing_one_is_named() -> None:
    made = channels_of(recording([[1, 2, 3]]), ("c2", "c0"))
    assert made.samples.tolist() == [[3, 1]]
    assert made.channels == ("c2", "c0")
    with pytest.raises(ArgumentError, match="lacks c7; it has c0, c1"):
        channels_of(recording([[1, 2]]), ("c0", "c7"))


def test_rates_that_differ_by_less_than_a_filter_tells_are_one_and_those_too_far_apart_are_refused() -> None:
    made = recording([[1], [2], [3]])._replace(rate_hz=50.004)
    np.testing.assert_array_equal(resampled(made, 50.0).samples, made.samples)
    with pytest.raises(ArgumentError, match=r"within 1:1000 of the recording's 50\.004 Hz, got 0\.01 Hz"):
        resampled(made, 0.01)
