"""The chain against all sequences, written out."""

import itertools

import pytest
import torch

from train.chain import Chain, chain_scores

LENGTH, PIECES = 4, 3


@pytest.fixture
def scores():
    generator = torch.Generator().manual_seed(4)
    own = torch.randn(2, LENGTH, PIECES, generator=generator, dtype=torch.float64)
    pairs = torch.randn(2, LENGTH - 1, PIECES, PIECES, generator=generator, dtype=torch.float64)
    return own, pairs


def sequences(own, pairs):
    """Each sequence of candidates, and its score, (B,)."""
    for chosen in itertools.product(range(PIECES), repeat=LENGTH):
        total = sum(own[:, place, piece] for place, piece in enumerate(chosen))
        yield chosen, total + sum(pairs[:, place, a, b] for place, (a, b) in enumerate(itertools.pairwise(chosen)))


@pytest.mark.parametrize("search", ["marginal", "viterbi"])
def test_a_candidate_is_scored_by_all_sequences_that_hold_it(scores, search):
    found = chain_scores(*scores, search)
    every = list(sequences(*scores))
    for place, piece in itertools.product(range(LENGTH), range(PIECES)):
        terms = torch.stack([score for chosen, score in every if chosen[place] == piece])
        wanted = terms.logsumexp(dim=0) if search == "marginal" else terms.amax(dim=0)
        assert torch.allclose(found[:, place, piece], wanted)


def test_viterbi_answers_the_best_sequence(scores):
    best = [max(sequences(*scores), key=lambda item, row=row: float(item[1][row]))[0] for row in range(2)]
    assert [tuple(row) for row in chain_scores(*scores, "viterbi").argmax(dim=-1).tolist()] == best


def make(search="marginal", candidates=PIECES):
    torch.manual_seed(2)
    chain = Chain(PIECES + 2, candidates, 4, search).eval()
    for parameter in chain.parameters():
        parameter.data.mul_(10.0)
    return chain


def test_without_pairs_nothing_changes():
    chain = make()
    chain.left.data.zero_()
    scores = torch.randn(2, LENGTH, PIECES + 2)
    found = chain(scores, torch.ones(2, LENGTH, dtype=torch.bool))
    assert torch.allclose(found, scores.log_softmax(dim=-1), atol=1e-6)


@pytest.mark.parametrize("candidates", [2, PIECES + 2])
def test_what_comes_out_are_probabilities(candidates):
    found = make(candidates=candidates)(torch.randn(2, LENGTH, PIECES + 2), torch.ones(2, LENGTH, dtype=torch.bool))
    assert torch.allclose(found.exp().sum(dim=-1), torch.ones(2, LENGTH))


def test_positions_that_are_absent_say_nothing_of_those_that_are_there():
    chain = make()
    scores = torch.randn(1, LENGTH, PIECES + 2)
    present = torch.tensor([[True, True, False, False]])
    other = scores.clone()
    other[:, 2:] = torch.randn(1, 2, PIECES + 2)
    assert torch.allclose(chain(scores, present)[:, :2], chain(other, present)[:, :2])
    assert torch.allclose(chain(scores, present)[:, :2], chain(scores[:, :2], present[:, :2]), atol=1e-6)
    everywhere = torch.ones_like(present)
    assert not torch.allclose(chain(scores, everywhere)[:, :2], chain(other, everywhere)[:, :2])


def test_training_sums_whatever_is_searched_for():
    scores, present = torch.randn(1, LENGTH, PIECES + 2), torch.ones(1, LENGTH, dtype=torch.bool)
    marginal, viterbi = make("marginal"), make("viterbi")
    assert not torch.allclose(marginal(scores, present), viterbi(scores, present))
    assert torch.equal(marginal.train()(scores, present), viterbi.train()(scores, present))
