"""The two bugs of a second published quantiser, whose evaluation had one codeword in use, as switches of the ablation."""

import math

import pytest
import torch

from link.errors import RecipeError
from train.checkpoint import build_transceiver
from train.defective import DefectiveQuantizer
from train.defects import TOGETHER


def perplexities(defects, steps, metric="euclidean"):
    """Usage of 64 codewords step by step, on normal tokens from a random start, and the codebook after the last."""
    quantizer = DefectiveQuantizer(64, 8, 0.95, metric=metric)
    quantizer.defects = frozenset(defects)
    generator = torch.Generator().manual_seed(3)
    quantizer.codebook.normal_(generator=generator)
    quantizer.ema_size.fill_(1.0 / 64)
    quantizer.ema_sum.copy_(quantizer.codebook / 64)
    found = []
    for _ in range(steps):
        tokens = quantizer.tokens(torch.randn(512, 8, generator=generator))
        indices = quantizer.hard(tokens)
        shares = torch.bincount(indices, minlength=64) / 512
        found.append(math.exp(float(torch.special.entr(shares).sum())))
        quantizer.update(tokens, indices)
    return found, quantizer.codebook


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_without_n_perplexity_falls_to_1_by_the_fifth_step_as_published(metric):
    """Whether tokens are normalised by length or not: the codewords were not."""
    found, codebook = perplexities(["ema-without-n"], 12, metric)
    assert found[0] > 25.0
    # The shortest codeword of hundreds is the nearest to every token of a length of 3.
    assert all(perplexity < 1.01 for perplexity in found[5:])
    assert float(codebook.norm(dim=-1).median()) > 50.0
    clean, codebook = perplexities([], 12, metric)
    assert min(clean[1:]) > 25.0
    assert float(codebook.norm(dim=-1).max()) < 8.0


def restarted(defects, tokens_after, metric="euclidean"):
    """Where 2 dead codewords of 4 are put, where they are a step later, and how many restart after that."""
    quantizer = DefectiveQuantizer(4, 2, 0.9, metric=metric)
    quantizer.defects = frozenset(defects)
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 9.0], [0.0, -9.0]]))
    if metric == "cosine":
        quantizer.codebook.copy_(quantizer.tokens(quantizer.codebook))
    quantizer.ema_size.copy_(torch.tensor([0.5, 0.4, 1e-3, 2e-12]))
    quantizer.ema_sum.copy_(quantizer.codebook * quantizer.ema_size[:, None])
    start = quantizer.codebook.clone()
    tokens = quantizer.tokens(torch.tensor([[1.1, 0.1], [0.9, -0.1], [-1.1, 0.2], [-0.9, -0.2]]))
    assert quantizer.restart(tokens, 0.05, seed=1, draw=1) == 2
    placed = quantizer.codebook.clone()
    quantizer.update(quantizer.tokens(tokens_after), torch.zeros(len(tokens_after), dtype=torch.int64))
    return start, placed, quantizer, tokens


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_restart_that_keeps_the_sums_is_dragged_back_by_the_next_step(metric):
    nobody = torch.tensor([[1.0, 0.0]])  # it chooses codeword 0
    start, placed, quantizer, tokens = restarted(["restart-keeps-sums"], nobody, metric)
    assert float((placed[2:] - start[2:]).norm(dim=-1).min()) > 0.5  # the restart moved them onto tokens
    assert all(any(torch.equal(row, token) for token in tokens) for row in placed[2:])
    # Its size was left, so its sum over its size is where it was, however little the size is.
    torch.testing.assert_close(quantizer.codebook[2:], start[2:], rtol=1e-5, atol=1e-6)
    assert quantizer.ema_size[2:].tolist() == pytest.approx([0.9e-3, 1.8e-12], rel=1e-5)
    assert quantizer.restart(tokens, 0.05, seed=1, draw=2) == 2  # dead as before

    start, placed, quantizer, tokens = restarted([], nobody, metric)
    torch.testing.assert_close(quantizer.codebook[2:], placed[2:], rtol=1e-6, atol=1e-6)
    assert quantizer.restart(tokens, 0.05, seed=1, draw=2) == 0


def test_keeping_the_sums_changes_nothing_where_nothing_restarts(same_tensors):
    tokens = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    made = []
    for defects in ((), ("restart-keeps-sums",)):
        quantizer = DefectiveQuantizer(4, 3, 0.9)
        quantizer.defects = frozenset(defects)
        quantizer.codebook.copy_(tokens[:4])
        quantizer.ema_size.fill_(0.25)
        quantizer.ema_sum.copy_(0.25 * tokens[:4])
        for _ in range(20):
            quantizer.update(tokens, quantizer.hard(tokens))
        made.append(quantizer)
    assert same_tensors(made[0].state_dict(), made[1].state_dict())


def test_the_two_bugs_of_the_other_system_are_not_among_those_of_the_first(make_signs_recipe):
    assert not {"ema-without-n", "restart-keeps-sums"} & set(TOGETHER)
    for name in ("ema-without-n", "restart-keeps-sums"):
        model = build_transceiver(make_signs_recipe(defects=[name]))
        assert model.quantizer.defects == {name}
        with pytest.raises(RecipeError, match=f"{name} is of a codebook of kind ema"):
            make_signs_recipe(defects=[name], quantizer__kind="fsq")
