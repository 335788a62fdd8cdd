import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.bits import label_bits
from link.codebook import lookup, nearest, posterior, posterior_logits, scores, soft_assignment, softmax

seeds = st.integers(0, 2**31)


def random_problem(seed, tokens=20, codewords=16, dim=5):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(tokens, dim)), generator.normal(size=(codewords, dim))


@given(seeds)
def test_scores_are_negative_squared_distances_up_to_a_constant_of_the_token(seed):
    z, codebook = random_problem(seed)
    distances = np.sum((z[:, None, :] - codebook) ** 2, axis=-1)
    offset = scores(z, codebook) + distances
    np.testing.assert_allclose(offset, np.broadcast_to(np.sum(z * z, axis=-1)[:, None], offset.shape), atol=1e-12)


@given(seeds)
def test_the_nearest_codeword_has_the_least_distance(seed):
    z, codebook = random_problem(seed)
    distances = np.sum((z[:, None, :] - codebook) ** 2, axis=-1)
    np.testing.assert_array_equal(nearest(z, codebook), distances.argmin(axis=-1))


def test_ties_go_to_the_lowest_index():
    codebook = np.array([[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert nearest(np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), codebook).tolist() == [1, 1, 2]


@given(seeds)
def test_the_softmax_sharpens_into_the_argmax(seed):
    z, codebook = random_problem(seed)
    hard = np.eye(len(codebook))[nearest(z, codebook)]
    gap = np.sort(scores(z, codebook), axis=-1)
    gap = gap[:, -1] - gap[:, -2]
    temperature = 1e-3
    soft = soft_assignment(z, codebook, scale=1.0, temperature=temperature)
    # What is not on the winner is at most (K - 1) exp(-gap / T).
    bound = (len(codebook) - 1) * np.exp(-gap / temperature)
    assert (np.abs(soft - hard).max(axis=-1) <= bound + 1e-12).all()


@given(seeds, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_the_soft_assignment_is_the_softmax_of_scaled_distances(seed, scale, temperature):
    z, codebook = random_problem(seed)
    distances = np.sum((z[:, None, :] - codebook) ** 2, axis=-1)
    weights = np.exp(-scale * (distances - distances.min(axis=-1, keepdims=True)) / temperature)
    expected = weights / weights.sum(axis=-1, keepdims=True)
    # Exponents reach 1e4, of which rounding leaves 1e-11.
    np.testing.assert_allclose(soft_assignment(z, codebook, scale, temperature), expected, atol=1e-10)


def test_lookup_gathers_rows_for_any_shape_of_indices():
    table = np.arange(12.0).reshape(4, 3)
    indices = np.array([[3, 0], [1, 1]])
    np.testing.assert_array_equal(lookup(table, indices), table[indices])


def test_with_no_evidence_the_posterior_is_the_prior():
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    table = label_bits([2, 0, 3, 1], 2).astype(float)
    np.testing.assert_allclose(posterior(np.zeros((5, 2)), table, np.log(prior)), np.tile(prior, (5, 1)), rtol=1e-12)


@given(seeds)
def test_the_posterior_is_bayes_over_independent_bits(seed):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(8)
    prior = generator.dirichlet(np.ones(8))
    # Likelihoods of each bit's observation given 0 and given 1; the LLR is their log ratio.
    likelihood = generator.uniform(0.01, 1.0, (3, 2))
    joint = np.zeros(8)
    for pattern in itertools.product((0, 1), repeat=3):
        label = int("".join(map(str, pattern)), 2)
        codeword = int(np.flatnonzero(labels == label)[0])
        joint[codeword] = prior[codeword] * np.prod([likelihood[i, bit] for i, bit in enumerate(pattern)])
    llr = np.log(likelihood[:, 1] / likelihood[:, 0])
    found = posterior(llr, label_bits(labels, 3).astype(float), np.log(prior))
    np.testing.assert_allclose(found, joint / joint.sum(), rtol=1e-10)


def test_certain_bits_leave_one_codeword():
    labels = np.array([2, 0, 3, 1])
    table = label_bits(labels, 2).astype(float)
    llr = 60.0 * (2.0 * table - 1.0)
    assert posterior_logits(llr, table, np.log(np.full(4, 0.25))).argmax(axis=-1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_softmax_overflows_nowhere(shift):
    x = np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(softmax(x + shift), np.exp(x) / np.exp(x).sum(), rtol=1e-12)
