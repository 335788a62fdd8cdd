import hashlib

import numpy as np
import pytest
import torch

from link.randomness import Draws
from train.tasks import load_task

TASK = load_task("digits")
# sha256 of the rows' pixels and labels in each part: another split is another benchmark.
GOLDEN = {
    "train": "f1f21c90b8f700216bd43c5c0fe61da70a1146f2d054c9a0ec474ba62547a891",
    "validation": "2d9c545d79f79d8c55a36b70418def6ea780d1526dedc22f193885227f80897e",
    "test": "dbbec9ca65ad49e55d9b850060bbc60e383b0377a1ac2e0b064154e3f7d5caa9",
}


def rows_of(split):
    return [(image.tobytes(), int(label)) for image, label in zip(split.inputs["image"], split.labels, strict=True)]


def test_the_split_is_60_20_20(digits_data):
    assert [len(part) for part in (digits_data.train, digits_data.validation, digits_data.test)] == [1078, 359, 360]


def test_the_parts_hold_every_scan_once(digits_data):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32)
    found = rows_of(digits_data.train) + rows_of(digits_data.validation) + rows_of(digits_data.test)
    assert sorted(found) == sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    assert len(set(found)) == len(found)  # no scan stands in two parts, not even as a copy


def test_the_split_is_stratified(digits_data):
    whole = np.bincount(
        np.concatenate([part.labels for part in (digits_data.train, digits_data.validation, digits_data.test)])
    )
    for part in (digits_data.train, digits_data.validation, digits_data.test):
        expected = whole * len(part) / whole.sum()
        assert np.abs(np.bincount(part.labels) - expected).max() <= 1.0


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_the_split_is_fixed(digits_data, name):
    part = getattr(digits_data, name)
    digest = hashlib.sha256(part.inputs["image"].tobytes() + part.labels.tobytes()).hexdigest()
    assert digest == GOLDEN[name]


def test_scans_fit_the_specification(digits_data):
    (spec,) = TASK.inputs
    for part in (digits_data.train, digits_data.validation, digits_data.test):
        image = part.inputs[spec.name]
        assert image.dtype == spec.dtype
        assert image.shape[1:] == spec.shape[1:]
        assert spec.low == image.min()
        assert spec.high == image.max()
        assert part.labels.dtype == np.int64


def test_augmentation_of_a_row_depends_on_the_row_and_its_draws_alone(digits_data):
    inputs = digits_data.train.inputs["image"][:50]
    rows = np.arange(50)
    whole = TASK.augment({"image": inputs}, Draws(1, rows, 4))["image"]
    chosen = np.array([31, 4, 4, 17])
    part = TASK.augment({"image": inputs[chosen]}, Draws(1, chosen, 4))["image"]
    assert np.array_equal(part, whole[chosen])
    assert not np.array_equal(TASK.augment({"image": inputs}, Draws(1, rows, 5))["image"], whole)


def test_augmented_scans_stay_in_their_range_and_leave_the_originals_alone(digits_data):
    inputs = digits_data.train.inputs["image"][:200]
    before = inputs.copy()
    augmented = TASK.augment({"image": inputs}, Draws(1, np.arange(200)))["image"]
    assert augmented.dtype == np.float32
    assert augmented.min() >= 0.0
    assert augmented.max() <= 16.0
    assert np.array_equal(inputs, before)


def test_augmentation_shifts_by_at_most_one_pixel_along_one_axis():
    image = np.zeros((1000, 8, 8), dtype=np.float32)
    image[:, 4, 4] = 16.0
    augmented = TASK.augment({"image": image}, Draws(2, np.arange(1000)))["image"]
    peak = augmented.reshape(1000, -1).argmax(axis=1)
    places, counts = np.unique(peak, return_counts=True)
    assert places.tolist() == [3 * 8 + 4, 4 * 8 + 3, 4 * 8 + 4, 4 * 8 + 5, 5 * 8 + 4]
    # 1,000 draws of five places: within five deviations of 200.
    assert np.abs(counts - 200).max() < 5 * (1000 * 0.2 * 0.8) ** 0.5


def test_what_is_shifted_out_is_gone_and_paper_comes_in():
    image = np.zeros((300, 8, 8), dtype=np.float32)
    image[:, 0, :] = 16.0
    augmented = TASK.augment({"image": image}, Draws(3, np.arange(300)))["image"]
    assert (augmented[:, 7] < 12.0).all()  # noise of deviation 1.6 on paper, clipped
    ink = augmented.mean(axis=2) > 8.0
    assert set(ink.argmax(axis=1)[ink.any(axis=1)]) == {0, 1}
    assert (~ink.any(axis=1)).sum() > 0


def test_encoder_and_head_have_the_shapes_that_the_recipe_asks_for():
    tokens = TASK.encoder(5, 6)(torch.zeros(3, 8, 8))
    assert tokens.shape == (3, 5, 6)
    assert TASK.head(5, 6)(tokens).shape == (3, 10)
