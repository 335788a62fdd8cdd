import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.losses import (
    answer_divergence,
    assignment_entropy,
    commitment_loss,
    consistency_loss,
    entropy,
    excess_energy,
    expected_symbols,
    load_balance,
    reconstruction_loss,
    row_losses,
    task_loss,
    usage_entropy,
)

seeds = st.integers(0, 2**31)


def distributions(*shape, seed=0):
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.softmax(logits, dim=-1)


def test_entropy_of_a_uniform_distribution_is_ln_k_and_of_a_certain_one_0():
    assert float(entropy(torch.full((8,), 0.125))) == pytest.approx(math.log(8), rel=1e-6)
    assert entropy(torch.eye(3)).tolist() == [0.0, 0.0, 0.0]
    assert float(entropy(torch.tensor([0.25, 0.75, 0.0]))) == pytest.approx(
        0.25 * math.log(4) + 0.75 * math.log(4 / 3), rel=1e-6
    )


def test_the_task_loss_is_the_mean_negative_log_likelihood():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    assert float(task_loss(logits, torch.tensor([0, 2]))) == pytest.approx(-0.5 * math.log(0.5 * 0.8), rel=1e-6)


def test_commitment_is_the_mean_squared_distance_a_dimension():
    tokens, codewords = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 0.0]], [[0.0, 4.0]]])
    assert float(commitment_loss(tokens, codewords)) == (1.0 + 4.0 + 0.0 + 16.0) / 4.0


def test_consistency_is_the_mean_squared_distance_a_dimension():
    assert float(consistency_loss(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0]))) == (1.0 + 9.0) / 2.0


def test_assignment_entropy_is_the_mean_over_samples_and_positions():
    soft = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]])
    assert float(assignment_entropy(soft)) == pytest.approx(0.5 * math.log(2), rel=1e-6)


def test_usage_entropy_is_that_of_each_positions_mean_over_the_batch():
    # Position 0 is used evenly over the batch; position 1 always sends codeword 1 and says nothing.
    soft = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert float(usage_entropy(soft)) == pytest.approx(0.5 * math.log(2), rel=1e-6)


def test_positions_that_each_send_one_codeword_have_no_usage_entropy():
    soft = torch.eye(4).expand(16, 4, 4)
    assert float(usage_entropy(soft)) == 0.0


@given(seeds)
def test_usage_entropy_is_at_least_the_assignment_entropy(seed):
    """Entropy is concave; the difference is what a position says of its sample."""
    soft = distributions(6, 3, 5, seed=seed)
    assert float(usage_entropy(soft)) >= float(assignment_entropy(soft)) - 1e-12


def test_commitment_pulls_the_tokens_and_not_the_codewords():
    tokens = torch.tensor([[1.0, 2.0]], requires_grad=True)
    codewords = torch.tensor([[0.0, 5.0]], requires_grad=True)
    commitment_loss(tokens, codewords).backward()
    assert tokens.grad.tolist() == [[1.0, -3.0]]  # 2 (z - c) / 2 dimensions
    assert codewords.grad is None


def test_consistency_pulls_the_soft_path_and_not_the_hard_one():
    soft = torch.tensor([1.0, 2.0], requires_grad=True)
    hard = torch.tensor([0.0, 5.0], requires_grad=True)
    consistency_loss(soft, hard).backward()
    assert soft.grad.tolist() == [1.0, -3.0]
    assert hard.grad is None


def test_a_step_down_minus_usage_entropy_evens_the_usage():
    logits = torch.tensor([2.0, 0.0, 0.0]).expand(4, 1, 3).clone().requires_grad_()
    (-usage_entropy(torch.softmax(logits, dim=-1))).backward()
    assert (logits.grad[..., 0] > 0.0).all()
    assert (logits.grad[..., 1:] < 0.0).all()


def test_a_step_down_assignment_entropy_sharpens_each_token():
    logits = torch.tensor([2.0, 0.0, 0.0]).expand(4, 1, 3).clone().requires_grad_()
    assignment_entropy(torch.softmax(logits, dim=-1)).backward()
    assert (logits.grad[..., 0] < 0.0).all()
    assert (logits.grad[..., 1:] > 0.0).all()


@given(seeds, st.integers(2, 5))
def test_a_weight_means_the_same_at_any_batch_size(seed, copies):
    generator = torch.Generator().manual_seed(seed)
    tokens, codewords = (torch.randn(4, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    logits, labels = torch.randn(4, 6, generator=generator, dtype=torch.float64), torch.arange(4)
    soft = distributions(4, 3, 5, seed=seed)
    pairs = [
        (commitment_loss, (tokens, codewords)),
        (consistency_loss, (tokens, codewords)),
        (assignment_entropy, (soft,)),
        (usage_entropy, (soft,)),
        (task_loss, (logits, labels)),
        (reconstruction_loss, (tokens, codewords)),
        (answer_divergence, (logits, logits.flip(0))),
        (lambda soft: expected_symbols(soft, torch.arange(5)), (soft[:, 0],)),
        (load_balance, (soft[:, 0],)),
    ]
    for loss, arguments in pairs:
        repeated = loss(*(torch.cat([argument] * copies) for argument in arguments))
        np.testing.assert_allclose(float(repeated), float(loss(*arguments)), rtol=1e-12)


def test_the_entropies_have_finite_gradients_at_a_certain_assignment():
    """At probability 0 exactly -ln p is infinite: what a saturated float32 softmax feeds back must not be."""
    logits = torch.tensor([[[200.0, 0.0, -200.0]]], requires_grad=True)
    soft = torch.softmax(logits, dim=-1)
    (assignment_entropy(soft) - usage_entropy(soft)).backward()
    assert torch.isfinite(logits.grad).all()


def test_only_energy_above_the_mean_of_the_constellation_costs():
    energies = torch.tensor([1.8, 1.0, 1.0], requires_grad=True)
    loss = excess_energy(energies)
    assert float(loss.detach()) == pytest.approx(0.8 / 3.0)
    loss.backward()
    torch.testing.assert_close(energies.grad, torch.full((3,), 1.0 / 3.0))
    assert float(excess_energy(torch.tensor([0.2, 1.0, 1.8, 0.9]))) == 0.0


def test_the_divergence_of_the_answers_is_that_of_hard_from_soft():
    soft, hard = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.3, 0.5]])
    expected = 0.5 * math.log(0.5 / 0.2) + 0.2 * math.log(0.2 / 0.5)
    assert float(answer_divergence(soft.log(), hard.log())) == pytest.approx(expected, rel=1e-6)
    published = torch.nn.functional.kl_div(hard.log(), soft, reduction="batchmean")
    assert float(answer_divergence(soft.log(), hard.log())) == pytest.approx(float(published), rel=1e-6)
    assert float(answer_divergence(soft.log(), soft.log() + 3.0)) == pytest.approx(0.0, abs=1e-7)


def test_the_divergence_moves_the_hard_answers_to_the_soft_ones_and_leaves_those():
    soft = torch.tensor([[2.0, 0.0]], requires_grad=True)
    hard = torch.tensor([[0.0, 0.0]], requires_grad=True)
    answer_divergence(soft, hard).backward()
    assert soft.grad is None
    # The slope of the cross entropy of a softmax: q - p.
    p = 1.0 / (1.0 + math.exp(-2.0))
    torch.testing.assert_close(hard.grad, torch.tensor([[0.5 - p, p - 0.5]]))


def test_reconstruction_pulls_what_is_received_and_not_what_was_meant():
    received = torch.tensor([1.0, 2.0], requires_grad=True)
    meant = torch.tensor([0.0, 5.0], requires_grad=True)
    reconstruction_loss(received, meant).backward()
    assert received.grad.tolist() == [1.0, -3.0]
    assert meant.grad is None


def test_expected_symbols_are_the_mean_over_the_modes_and_fall_with_the_costly_one():
    logits = torch.tensor([[0.0, 0.0], [100.0, -100.0]], requires_grad=True)
    rate = expected_symbols(torch.softmax(logits, dim=-1), torch.tensor([8, 16]))
    assert float(rate.detach()) == (12.0 + 8.0) / 2.0
    rate.backward()
    assert logits.grad[0, 1] > 0.0 > logits.grad[0, 0]


def test_one_mode_has_a_constant_rate_and_load():
    logits = torch.zeros(5, 1, requires_grad=True)
    soft = torch.softmax(logits, dim=-1)
    loss = expected_symbols(soft, torch.tensor([6])) + load_balance(soft)
    loss.backward()
    assert float(loss.detach()) == 7.0
    assert float(logits.grad.abs().sum()) == 0.0


def test_load_balance_is_1_where_modes_share_the_load_and_their_number_where_one_carries_it():
    assert float(load_balance(torch.eye(4).repeat(3, 1))) == 1.0
    assert float(load_balance(torch.eye(4)[[2]].expand(8, 4))) == 4.0
    # Three samples of four in mode 0, with probability 0.9 each: 2 (3/4 * 0.7 + 1/4 * 0.3).
    soft = torch.tensor([[0.9, 0.1]] * 3 + [[0.1, 0.9]], requires_grad=True)
    load = load_balance(soft)
    assert float(load.detach()) == pytest.approx(2.0 * (0.75 * 0.7 + 0.25 * 0.3))
    load.backward()
    assert (soft.grad[:, 0] > soft.grad[:, 1]).all()  # the overloaded mode is left


def test_positions_that_are_not_judged_have_no_loss():
    logits = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, -1], [0, 1]])
    each = -logits.log_softmax(dim=-1)
    first, second, third = each[0, 0, 1], each[1, 0, 0], each[1, 1, 1]
    assert torch.allclose(task_loss(logits, labels), (first + second + third) / 3)
    assert torch.allclose(row_losses(logits, labels), torch.stack([first, (second + third) / 2]))
    assert torch.allclose(row_losses(logits[:, 0], labels[:, 0]), torch.stack([first, second]))
