"""The sequence stage that is learned: where it starts, and that it learns what recordings hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from link.hsmm import log_conditional
from link.sequence import emissions, smoothed
from link.truth import UNJUDGED
from train.scores import macro_f1
from train.sequence import Recordings, SequenceRecipe, SequenceStage, learn_stage, padded, places

C, N, V, T = 3, 2, 6, 24
CODES_OF = np.array([[0, 1], [2, 3], [4, 5]])


def recordings(seed: int, count: int = 40, evidence: float = 1.2, certain: bool = False) -> Recordings:
    """Behaviours 0, 1, 2 in turn, each for 4 to 8 windows; logits that favour the right one a little, and codes."""
    random = np.random.default_rng(seed)
    labels = np.full((count, T), UNJUDGED)
    for row in labels:
        length = random.integers(T // 2, T + 1)
        first = random.integers(C)
        path = np.concatenate([np.full(random.integers(4, 9), (first + turn) % C) for turn in range(T)])
        row[:length] = path[:length]
    known = np.eye(C)[np.maximum(labels, 0)]
    logits = evidence * known + random.normal(size=(count, T, C))
    chosen = CODES_OF[np.maximum(labels, 0)][
        np.arange(count)[:, None, None], np.arange(T)[:, None], random.integers(0, 2, (count, T, N))
    ]
    codes = np.eye(V)[chosen]
    if not certain:
        codes = 0.7 * codes + 0.3 * random.dirichlet(np.ones(V), (count, T, N))
    return Recordings(torch.from_numpy(logits).float(), torch.from_numpy(codes).float(), torch.from_numpy(labels))


def learned(*parts: str, epochs: int = 4, seed: int = 0) -> SequenceStage:
    recipe = SequenceRecipe(parts=parts, behaviours=8, longest=10, stage_epochs=epochs, batch_recordings=8)
    stage = SequenceStage(recipe, C, (N, V))
    learn_stage(stage, recordings(1, certain=True), lambda epoch: recordings(epoch + 1), seed)
    return stage


def f1(stage: SequenceStage, found: Recordings) -> float:
    log_p = smoothed(stage.arrays(), found.logits.numpy(), found.codes.numpy(), found.present.numpy())
    there = found.present.numpy()
    return macro_f1(log_p.argmax(axis=-1)[there], found.labels.numpy()[there], C)


def test_each_part_brings_what_the_recordings_hold_for_it() -> None:
    held_out = recordings(99)
    alone, hdp, hsmm, both = (f1(learned(*parts), held_out) for parts in ((), ("hdp",), ("hsmm",), ("hdp", "hsmm")))
    assert alone < 0.75
    assert hdp > alone + 0.1
    assert hsmm > alone + 0.1
    assert both > max(hdp, hsmm)


def test_durations_and_what_follows_on_what_are_those_of_the_recordings() -> None:
    hsmm = learned("hsmm", epochs=0).tables().hsmm
    assert hsmm is not None
    follows = hsmm.transition.exp()
    assert (follows[torch.arange(C), (torch.arange(C) + 1) % C] > 0.9).all()
    days = torch.arange(1, 11)
    mean = (hsmm.duration.exp() * days).sum(dim=-1)
    # 4 to 8 evenly: a mean of 6; recordings of one stay too few to tell it, and the prior pulls towards geometric.
    assert ((mean - 6.0).abs() < 1.0).all()


def test_the_loss_is_that_of_its_formula() -> None:
    stage, found = learned("hdp", "hsmm", epochs=1), recordings(5)
    tables = stage.tables()
    said = emissions(tables, found.logits, found.codes, found.present)
    elbo = stage.hdp.elbo_terms(found.codes, found.present, share=0.25).elbo
    likelihood = log_conditional(tables.hsmm, said, found.labels, found.present).sum()
    expected = -(likelihood + stage.recipe.lambda_hdp * elbo) / found.present.sum()
    torch.testing.assert_close(stage.loss(found, 0.25), expected)


@pytest.mark.parametrize("parts", [(), ("hdp",), ("hsmm",), ("hdp", "hsmm")])
def test_gradients_reach_every_parameter_and_learning_lowers_the_loss(parts: tuple[str, ...]) -> None:
    recipe = SequenceRecipe(parts=parts, behaviours=8, longest=10, stage_epochs=5, batch_recordings=8)
    stage, told = SequenceStage(recipe, C, (N, V)), []
    learn_stage(
        stage, recordings(1, certain=True), lambda epoch: recordings(2), 0, lambda epoch, loss: told.append(loss)
    )
    assert told[-1] < told[0]
    stage.loss(recordings(2)).backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in stage.parameters())


def test_learning_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = (learned("hdp", "hsmm", epochs=1) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_stands_in_for_codes_without_a_codebook_is_told_apart_by_gaussians() -> None:
    recipe = SequenceRecipe(parts=("hdp", "hsmm"), behaviours=6, longest=10, stage_epochs=2, batch_recordings=8)
    stage = SequenceStage(recipe, C, 4)
    random = np.random.default_rng(0)
    centres = torch.from_numpy(random.normal(size=(C, 4))).float() * 3

    def embedded(seed: int) -> Recordings:
        found = recordings(seed)
        noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(*found.labels.shape, 4))).float()
        return found._replace(codes=centres[found.labels.clamp_min(0)] + noise)

    learn_stage(stage, embedded(1), lambda epoch: embedded(epoch + 1), 0)
    assert f1(stage, embedded(50)) > 0.9


def test_rows_are_parted_where_recordings_are_and_where_they_are_too_long() -> None:
    row, place = places(np.array([3, 3, 3, 3, 3, 1, 8, 8]), 2)
    assert row.tolist() == [0, 0, 1, 1, 2, 3, 4, 4]
    assert place.tolist() == [0, 1, 0, 1, 0, 0, 0, 1]
    values = torch.arange(16.0).reshape(8, 2)
    made = padded(values, np.array([3, 3, 3, 3, 3, 1, 8, 8]), 2, fill=-1.0)
    assert torch.equal(made[torch.from_numpy(row), torch.from_numpy(place)], values)
    assert (made[2, 1] == -1).all()


def test_parts_that_are_named_twice_or_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="parts name one twice"):
        SequenceRecipe(parts=("hdp", "hdp"))
    with pytest.raises(ValueError, match="hdp"):
        SequenceRecipe(parts=("hmm",))


def test_more_behaviours_than_windows_leave_the_last_without_any():
    stage = SequenceStage(SequenceRecipe(parts=("hdp",), behaviours=6), 2, (1, 4))
    codes = torch.nn.functional.one_hot(torch.tensor([[[0], [1], [3]]]), 4).float()
    stage.start(Recordings(torch.zeros(1, 3, 2), codes, torch.tensor([[0, 1, 1]])), seed=0)
    found = smoothed(stage.arrays(), np.zeros((1, 3, 2), dtype=np.float32), codes.numpy())
    assert np.isfinite(found).all()
