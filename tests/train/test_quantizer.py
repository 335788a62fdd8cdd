"""The learned codebook, and two published mistakes in its update that the same checks find."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from link.codebook import soft_assignment
from train.losses import assignment_entropy
from train.quantizer import Quantizer

seeds = st.integers(0, 2**31)


def random_quantizer(seed=0, codewords=8, dim=3, ema_decay=0.9):
    """Codewords at random places, size and sum as after a start with equal usage."""
    generator = torch.Generator().manual_seed(seed)
    quantizer = Quantizer(codewords, dim, ema_decay)
    quantizer.codebook.copy_(torch.randn(codewords, dim, generator=generator))
    quantizer.ema_size.fill_(1.0 / codewords)
    quantizer.ema_sum.copy_(quantizer.codebook * quantizer.ema_size[:, None])
    return quantizer


class Published(Quantizer):
    """The update as published, correct: counts and sums of tokens, sizes smoothed by Laplace's rule and scaled back by n."""

    def update(self, tokens, indices):
        chosen = torch.nn.functional.one_hot(indices, self.codewords).to(tokens.dtype)
        if not hasattr(self, "begun"):
            self.begin(len(tokens))
            self.begun = True
        self.ema_size.mul_(self.ema_decay).add_(chosen.sum(dim=0), alpha=1.0 - self.ema_decay)
        self.ema_sum.mul_(self.ema_decay).add_(chosen.T @ tokens, alpha=1.0 - self.ema_decay)
        n = self.ema_size.sum()
        share = (self.ema_size + 1e-5) / (n + 1e-5 * self.codewords)
        self.codebook.copy_(self.ema_sum / self.sizes(share, n)[:, None])

    def begin(self, tokens):
        self.ema_size.mul_(tokens)
        self.ema_sum.mul_(tokens)

    def sizes(self, share, n):
        return share * n


class StartsWithSizeZero(Published):
    """The first published mistake: sum starts at the codewords, size at 0, and neither is corrected."""

    def begin(self, tokens):
        self.ema_size.zero_()
        self.ema_sum.copy_(self.codebook)


class ForgetsTheFactorN(Published):
    """The second published mistake: sums of tokens over shares of them, the factor n left out."""

    def sizes(self, share, n):
        return share


class LeavesTheCountOut(Quantizer):
    """The same mistake elsewhere: the mean of a codeword's tokens moves its sum, without their number."""

    def update(self, tokens, indices):
        chosen = torch.nn.functional.one_hot(indices, self.codewords).to(tokens.dtype)
        counts = chosen.sum(dim=0)
        means = chosen.T @ tokens / counts.clamp_min(1.0)[:, None]
        self.ema_size.mul_(self.ema_decay).add_(counts, alpha=1.0 - self.ema_decay)
        self.ema_sum.mul_(self.ema_decay).add_(means, alpha=1.0 - self.ema_decay)
        self.codebook.copy_(self.ema_sum / self.ema_size.clamp_min(1e-7)[:, None])


class RestartsTheSizeOnly(Quantizer):
    """A mistake: the sum keeps what the dead codeword had gathered."""

    def restart(self, tokens, threshold, *, seed, draw):
        before = self.ema_sum.clone()
        moved = super().restart(tokens, threshold, seed=seed, draw=draw)
        self.ema_sum.copy_(before)
        return moved


class RestartsTheSumOnly(Quantizer):
    """A mistake: the size keeps what the dead codeword had left."""

    def restart(self, tokens, threshold, *, seed, draw):
        before = self.ema_size.clone()
        moved = super().restart(tokens, threshold, seed=seed, draw=draw)
        self.ema_size.copy_(before)
        return moved


def check_that_codewords_without_tokens_stay(kind):
    quantizer = kind(4, 2, ema_decay=0.9)
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [30.0, 30.0], [-50.0, 40.0]]))
    quantizer.ema_size.fill_(0.25)
    quantizer.ema_sum.copy_(0.25 * quantizer.codebook)
    unused = quantizer.codebook[2:].clone()
    generator = torch.Generator().manual_seed(1)
    for step in range(3000):
        tokens = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(8, 1) + 0.1 * torch.randn(16, 2, generator=generator)
        quantizer.update(tokens, quantizer.hard(tokens))
        if step % 20 == 0:
            assert torch.isfinite(quantizer.codebook).all()
            # The ratio of two numbers that shrink alike: one rounding each a step, until the size counts as nothing.
            torch.testing.assert_close(quantizer.codebook[2:], unused, rtol=1e-5, atol=0.0)


def check_that_codewords_move_to_the_mean_of_their_tokens(kind):
    quantizer = kind(4, 2, ema_decay=0.9)
    quantizer.codebook.copy_(torch.tensor([[2.0, 2.0], [-2.0, 2.0], [2.0, -2.0], [-2.0, -2.0]]))
    quantizer.ema_size.fill_(0.25)
    quantizer.ema_sum.copy_(0.25 * quantizer.codebook)
    means = torch.tensor([[3.0, 3.0], [-3.0, 1.0], [1.0, -3.0], [-1.0, -1.0]])
    spread = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    tokens = (means[:, None, :] + spread).reshape(-1, 2)
    for _ in range(300):
        indices = quantizer.hard(tokens)
        assert indices.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4  # a perplexity of 4, at every step
        quantizer.update(tokens, indices)
    # What is left of the start is 0.9 ** 300; the rest is rounding.
    torch.testing.assert_close(quantizer.codebook, means, rtol=0.0, atol=1e-5)


def check_that_a_restarted_codeword_stays_at_its_token(kind):
    quantizer = kind(4, 2, ema_decay=0.9)
    quantizer.codebook.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 9.0], [0.0, -9.0]]))
    quantizer.ema_size.copy_(torch.tensor([0.5, 0.4, 1e-3, 2e-3]))
    quantizer.ema_sum.copy_(quantizer.codebook * quantizer.ema_size[:, None])
    tokens = torch.tensor([[1.1, 0.1], [0.9, -0.1], [-1.1, 0.2], [-0.9, -0.2]])
    assert quantizer.restart(tokens, 0.05, seed=1, draw=1) == 2
    placed = quantizer.codebook.clone()
    assert all(any(torch.equal(row, token) for token in tokens) for row in placed[2:])
    # A step in which nobody chooses it must not drag it back.
    quantizer.update(tokens[:1], torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(quantizer.codebook[2:], placed[2:], rtol=1e-6, atol=1e-7)
    # And it is not dead at once, nor of more weight than a fair share.
    assert quantizer.ema_size[2:].tolist() == pytest.approx([0.9 * 0.903 / 4] * 2, rel=1e-6)


def test_codewords_without_tokens_stay_where_they_are_over_thousands_of_steps():
    check_that_codewords_without_tokens_stay(Quantizer)


def test_that_check_fails_where_size_starts_at_zero_and_sum_at_the_codewords():
    with pytest.raises(AssertionError):
        check_that_codewords_without_tokens_stay(StartsWithSizeZero)


def test_codewords_move_to_the_mean_of_their_tokens():
    check_that_codewords_move_to_the_mean_of_their_tokens(Quantizer)


@pytest.mark.parametrize("kind", [ForgetsTheFactorN, LeavesTheCountOut])
def test_that_check_fails_where_the_number_of_tokens_is_left_out(kind):
    with pytest.raises(AssertionError):
        check_that_codewords_move_to_the_mean_of_their_tokens(kind)


class Step(NamedTuple):
    perplexity: float
    longest: float
    recovered: int


def twenty_steps(kind):
    """Normal tokens and a random start of 64 codewords: usage step by step, and the return of those unused in the first."""
    quantizer = kind(64, 8, ema_decay=0.95)
    generator = torch.Generator().manual_seed(3)
    quantizer.codebook.normal_(generator=generator)
    quantizer.ema_size.fill_(1.0 / 64)
    quantizer.ema_sum.copy_(quantizer.codebook / 64)
    unused, steps = None, []
    for _ in range(20):
        tokens = torch.randn(512, 8, generator=generator)
        indices = quantizer.hard(tokens)
        counts = torch.bincount(indices, minlength=64)
        unused = counts == 0 if unused is None else unused
        entropy = float(torch.special.entr(counts / 512).sum())
        steps.append(
            Step(math.exp(entropy), float(quantizer.codebook.norm(dim=-1).max()), int((counts[unused] > 0).sum()))
        )
        quantizer.update(tokens, indices)
    assert int(unused.sum()) > 0
    return int(unused.sum()), steps


def check_that_the_codebook_stays_in_use(kind):
    """No tokens beyond 8 sigma, so no codeword there; those that began unused come into use; nothing collapses."""
    unused, steps = twenty_steps(kind)
    assert max(step.longest for step in steps) < 8.0
    assert max(step.recovered for step in steps) == unused
    assert min(step.perplexity for step in steps[1:]) > 32.0


@pytest.mark.parametrize("kind", [Quantizer, Published])
def test_a_random_codebook_comes_into_use(kind):
    check_that_the_codebook_stays_in_use(kind)


@pytest.mark.parametrize("kind", [StartsWithSizeZero, ForgetsTheFactorN, LeavesTheCountOut])
def test_that_check_fails_for_the_published_mistakes(kind):
    with pytest.raises(AssertionError):
        check_that_the_codebook_stays_in_use(kind)


def test_with_size_zero_unused_codewords_blow_up_in_one_step_and_never_return():
    _, steps = twenty_steps(StartsWithSizeZero)
    assert steps[0].longest < 8.0
    assert steps[1].longest > 1e4
    assert [step.recovered for step in steps] == [0] * 20


def test_without_the_factor_n_one_codeword_is_left_by_the_fifth_step():
    _, steps = twenty_steps(ForgetsTheFactorN)
    assert steps[0].perplexity > 32.0
    assert [step.perplexity for step in steps[5:]] == [1.0] * 15


def test_a_restart_sets_size_and_sum():
    check_that_a_restarted_codeword_stays_at_its_token(Quantizer)


@pytest.mark.parametrize("kind", [RestartsTheSizeOnly, RestartsTheSumOnly])
def test_that_check_fails_where_a_restart_sets_one_of_them(kind):
    with pytest.raises(AssertionError):
        check_that_a_restarted_codeword_stays_at_its_token(kind)


def test_only_codewords_below_the_threshold_restart():
    quantizer = random_quantizer(codewords=4)
    quantizer.ema_size.copy_(torch.tensor([0.4, 0.3, 0.26, 0.04]))  # a fair share is 0.25
    before = quantizer.codebook.clone()
    tokens = torch.randn(9, 3, generator=torch.Generator().manual_seed(2))
    assert quantizer.restart(tokens, 0.1, seed=0, draw=0) == 0
    assert torch.equal(quantizer.codebook, before)
    assert quantizer.restart(tokens, 0.2, seed=0, draw=0) == 1
    assert torch.equal(quantizer.codebook[:3], before[:3])
    assert not torch.equal(quantizer.codebook[3], before[3])


def test_restarted_codewords_go_to_different_tokens_told_by_seed_and_draw():
    tokens = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    places = {}
    for seed, draw in ((1, 1), (1, 1), (1, 2), (2, 1)):
        quantizer = random_quantizer(codewords=8)
        quantizer.ema_size.copy_(torch.tensor([1.0] + [0.0] * 7))
        assert quantizer.restart(tokens, 0.5, seed=seed, draw=draw) == 7
        assert len(torch.unique(quantizer.codebook[1:], dim=0)) == 7
        previous = places.setdefault((seed, draw), quantizer.codebook)
        assert torch.equal(previous, quantizer.codebook)
    assert not torch.equal(places[1, 1], places[1, 2])
    assert not torch.equal(places[1, 1], places[2, 1])


def test_with_fewer_tokens_than_dead_codewords_the_rest_stay():
    quantizer = random_quantizer(codewords=8)
    quantizer.ema_size.copy_(torch.tensor([1.0] + [0.0] * 7))
    before = quantizer.codebook.clone()
    assert quantizer.restart(torch.ones(2, 3), 0.5, seed=0, draw=0) == 2
    assert int((quantizer.codebook != before).any(dim=1).sum()) == 2


def test_a_first_step_from_nothing_is_unbiased():
    quantizer = Quantizer(2, 2, ema_decay=0.99)
    quantizer.codebook.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    tokens = torch.tensor([[2.0, 0.0], [4.0, 2.0], [-3.0, -1.0]])
    quantizer.update(tokens, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[3.0, 1.0], [-3.0, -1.0]]), rtol=1e-6, atol=0.0)


@given(seeds, st.floats(0.5, 0.999), st.integers(1, 4))
def test_codewords_are_the_ratio_of_bias_corrected_means(seed, decay, steps):
    """Recomputed from all steps at once: weights a^(t-s) (1-a), their sum divided out."""
    generator = np.random.default_rng(seed)
    quantizer = Quantizer(4, 3, ema_decay=decay)
    batches = [(generator.normal(size=(n, 3)), generator.integers(0, 4, n)) for n in generator.integers(1, 20, steps)]
    size, total = np.zeros(4), np.zeros((4, 3))
    for step, (tokens, indices) in enumerate(batches):
        quantizer.update(torch.from_numpy(tokens.astype(np.float32)), torch.from_numpy(indices))
        weight = decay ** (steps - 1 - step) * (1.0 - decay) / (1.0 - decay**steps)
        for token, index in zip(tokens, indices, strict=True):
            size[index] += weight / len(tokens)
            total[index] += weight * token / len(tokens)
    used = size > 0.0
    # float32 sums of up to 20 tokens of size 3.
    np.testing.assert_allclose(quantizer.codebook.numpy()[used], total[used] / size[used, None], rtol=1e-4, atol=1e-5)
    assert (quantizer.codebook.numpy()[~used] == 0.0).all()
    np.testing.assert_allclose(quantizer.ema_size.numpy() / (1.0 - decay**steps), size, rtol=1e-4, atol=1e-6)


def start(quantizer, tokens, **changes):
    settings = {"temperature": 0.7, "target_entropy": 0.5, "bit_error_rates": np.full(3, 0.1), "seed": 5} | changes
    quantizer.start(tokens, **settings)


def test_a_start_finds_the_clusters_and_uses_every_codeword(clustered_tokens):
    tokens, corner = clustered_tokens
    quantizer = Quantizer(8, 3)
    start(quantizer, tokens)
    indices = quantizer.hard(tokens)
    assert torch.bincount(indices, minlength=8).tolist() == [50] * 8
    for k in range(8):
        members = tokens[corner == k]
        own = quantizer.codebook[int(indices[corner == k][0])]
        torch.testing.assert_close(own, members.mean(dim=0), rtol=1e-5, atol=1e-6)


def test_a_start_leaves_size_and_sum_consistent_with_the_codebook(clustered_tokens):
    tokens, _ = clustered_tokens
    quantizer = Quantizer(8, 3)
    start(quantizer, tokens)
    torch.testing.assert_close(quantizer.ema_sum / quantizer.ema_size[:, None], quantizer.codebook)
    torch.testing.assert_close(quantizer.ema_size, torch.full((8,), 1.0 / 8.0))


@pytest.mark.parametrize(("temperature", "target"), [(0.7, 0.5), (0.7, 0.8), (2.0, 0.1), (0.3, 1.5)])
def test_the_scale_gives_the_target_entropy_at_the_temperature(temperature, target):
    tokens = torch.randn(500, 4, generator=torch.Generator().manual_seed(4))
    quantizer = Quantizer(8, 4)
    start(quantizer, tokens, temperature=temperature, target_entropy=target)
    soft = soft_assignment(tokens.double(), quantizer.codebook.double(), float(quantizer.scale), temperature)
    assert float(assignment_entropy(soft)) == pytest.approx(target, abs=1e-9)
    # The model's own float32 softmax.
    assert float(assignment_entropy(quantizer.soft(tokens, temperature))) == pytest.approx(target, abs=1e-5)


def test_the_soft_assignment_is_the_softmax_of_scaled_distances():
    quantizer = random_quantizer()
    quantizer.scale.fill_(1.7)
    tokens = torch.randn(6, 3, generator=torch.Generator().manual_seed(4)).double()
    distances = (tokens[:, None, :] - quantizer.codebook.double()).square().sum(dim=-1)
    expected = torch.softmax(-1.7 * distances / 0.7, dim=-1)
    torch.testing.assert_close(quantizer.soft(tokens.float(), 0.7).double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(quantizer.hard(tokens.float()), distances.argmin(dim=-1))


def test_labels_after_a_start_are_a_permutation_with_their_bits(clustered_tokens):
    quantizer = Quantizer(8, 3)
    start(quantizer, clustered_tokens[0])
    labels = quantizer.labels.tolist()
    assert sorted(labels) == list(range(8))
    spelled = [[int(digit) for digit in f"{label:03b}"] for label in labels]
    assert quantizer.label_bits.tolist() == spelled
    assert quantizer.bits_of(torch.tensor([[3, 0]])).tolist() == [[spelled[3], spelled[0]]]


def test_neighbouring_corners_of_a_cube_get_labels_that_differ_in_one_bit(clustered_tokens):
    quantizer = Quantizer(8, 3)
    start(quantizer, clustered_tokens[0])
    corners = (quantizer.codebook > 0.0).long()
    apart = (corners[:, None] != corners).sum(dim=-1)
    bits_apart = (quantizer.label_bits[:, None] != quantizer.label_bits).sum(dim=-1)
    assert torch.equal(apart == 1, bits_apart == 1)


def test_a_start_is_a_function_of_tokens_and_seed(clustered_tokens, same_tensors):
    tokens = torch.randn(300, 3, generator=torch.Generator().manual_seed(6))
    first, second, other = Quantizer(8, 3), Quantizer(8, 3), Quantizer(8, 3)
    start(first, tokens)
    np.random.default_rng().normal(size=3)
    start(second, tokens)
    start(other, tokens, seed=6)
    assert same_tensors(first.state_dict(), second.state_dict())
    assert not same_tensors(first.state_dict(), other.state_dict())


def test_a_start_takes_any_seed_that_a_recipe_may_have(clustered_tokens):
    start(Quantizer(8, 3), clustered_tokens[0], seed=2**63 - 1)


def test_the_prior_is_the_smoothed_usage():
    quantizer = random_quantizer(codewords=4)
    quantizer.ema_size.copy_(torch.tensor([0.6, 0.3, 0.1, 0.0]) * 0.9)
    quantizer.refresh_prior()
    expected = (np.array([0.6, 0.3, 0.1, 0.0]) + 5e-4) / (1.0 + 4 * 5e-4)
    np.testing.assert_allclose(quantizer.log_prior.exp().numpy(), expected, rtol=1e-5)


@given(seeds, st.integers(1, 8))
def test_the_prior_is_a_distribution_without_zeros(seed, bits):
    quantizer = Quantizer(2**bits, 2)
    usage = np.random.default_rng(seed).dirichlet(np.full(2**bits, 0.1)).astype(np.float32)
    quantizer.ema_size.copy_(torch.from_numpy(usage))
    quantizer.refresh_prior()
    assert torch.isfinite(quantizer.log_prior).all()
    assert float(quantizer.log_prior.double().exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_nothing_of_the_codebook_is_a_parameter():
    assert list(Quantizer(8, 3).parameters()) == []


def test_before_a_start_the_labels_spell_the_indices():
    assert Quantizer(4, 2).label_bits.tolist() == [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
