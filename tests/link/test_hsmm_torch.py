"""The same recursions in torch: same numbers, and gradients."""

import numpy as np
import pytest
import torch

from link.durations import categorical, negative_binomial
from link.hsmm import Hsmm, forward_backward, log_conditional, log_evidence, log_joint
from link.log_space import log_softmax
from link.smoother import FixedLagSmoother
from link.viterbi import viterbi

STARTS = ("boundary", "middle")


def tables(seed, classes=3, longest=4, start="boundary"):
    """A NumPy model with probabilities of 0 in each table."""
    generator = np.random.default_rng(seed)
    initial, transition = generator.normal(size=classes), generator.normal(size=(classes, classes))
    logits = generator.normal(size=(classes, longest))
    initial[0] = transition[0, -1] = logits[0, 0] = logits[-1, -1] = -np.inf
    np.fill_diagonal(transition, -np.inf)
    tail = np.log(generator.uniform(0.2, 0.8, classes))
    tail[1] = -np.inf
    return Hsmm.of(log_softmax(initial), log_softmax(transition), categorical(logits, tail), start)


def in_torch(model, dtype=torch.float64):
    return Hsmm(*(torch.from_numpy(table).to(dtype) for table in model))


def recordings(seed, *shape):
    emissions = np.random.default_rng(seed).normal(size=shape)
    emissions[..., 1, 1] = -np.inf
    return emissions


@pytest.mark.parametrize("start", STARTS)
def test_torch_finds_the_same(start):
    model, emissions = tables(0, start=start), recordings(0, 2, 9, 3)
    labels = np.random.default_rng(0).integers(-1, 3, (2, 9))
    present = np.arange(9) < np.array([[9], [6]])
    other, given = in_torch(model), tuple(map(torch.from_numpy, (emissions, labels, present)))
    for one, found in zip(
        forward_backward(model, emissions, present), forward_backward(other, given[0], given[2]), strict=True
    ):
        np.testing.assert_allclose(found.numpy(), one, rtol=1e-12, atol=1e-12)
    for function in (log_joint, log_conditional):
        found = function(other, *given).numpy()
        np.testing.assert_allclose(found, function(model, emissions, labels, present), rtol=1e-12, atol=1e-12)
    best, path = viterbi(model, emissions), viterbi(other, given[0])
    assert path.labels.dtype == torch.int64
    np.testing.assert_array_equal(path.labels.numpy(), best.labels)
    np.testing.assert_allclose(path.log_probability.numpy(), best.log_probability, rtol=1e-13)


def test_a_stream_of_torch_is_answered_in_torch_batch_by_batch():
    model, emissions = tables(1), recordings(1, 2, 6, 3)
    smoother = FixedLagSmoother(in_torch(model), 2)
    answers = [smoother.push(torch.from_numpy(emissions[:, t])) for t in range(6)]
    assert answers[:2] == [None, None]
    expected = forward_backward(model, emissions).log_marginals
    found = torch.stack([*answers[-1:], *smoother.flush()], dim=1)
    np.testing.assert_allclose(found.numpy(), expected[:, 3:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", STARTS)
def test_gradients_reach_all_tables(start):
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[0, 0, 1, 2, 2, 2], [2, -1, -1, 0, 1, 1]])
    present = torch.arange(6) < torch.tensor([[6], [4]])
    same = torch.eye(3, dtype=torch.bool)

    def values(initial, transition, mean, shape, emissions):
        rows = transition.masked_fill(same, -torch.inf).log_softmax(dim=-1)
        model = Hsmm.of(initial.log_softmax(dim=-1), rows, negative_binomial(mean, shape, 3), start)
        return (
            log_evidence(model, emissions, present),
            log_joint(model, emissions, labels, present),
            log_conditional(model, emissions, labels),
            *forward_backward(model, emissions, present),
        )

    def leaf(*shape, offset=0.0):
        return (torch.rand(shape, generator=generator, dtype=torch.float64) + offset).requires_grad_()

    inputs = leaf(3), leaf(3, 3), leaf(3, offset=1.5), leaf(3, offset=0.5), leaf(2, 6, 3)
    assert torch.autograd.gradcheck(values, inputs)


def test_probabilities_of_0_leave_no_nan_in_gradients():
    model = Hsmm(*(table.requires_grad_() for table in in_torch(tables(2))))
    emissions = torch.from_numpy(recordings(2, 7, 3)).requires_grad_()
    found = forward_backward(model, emissions)
    seen = found.log_marginals[found.log_marginals > -torch.inf]
    loss = seen.sum() + found.log_evidence + log_conditional(model, emissions, torch.tensor([1, 0, 0, 2, 2, 1, 1]))
    loss.backward()
    for leaf in (emissions, *model):
        assert leaf.grad.isfinite().all()
    assert (emissions.grad[1, 1] == 0.0).all()


def test_an_impossible_recording_leaves_no_nan_in_gradients_of_the_others():
    model, emissions = in_torch(tables(3)), torch.from_numpy(recordings(3, 2, 5, 3))
    emissions[1, 2] = -torch.inf
    emissions.requires_grad_()
    evidence = log_evidence(model, emissions)
    assert evidence.isfinite().tolist() == [True, False]
    evidence[0].backward()
    assert emissions.grad.isfinite().all()


def test_the_gradient_of_the_evidence_is_the_marginals():
    """Fisher's identity, for which the backward recursion knows nothing of the forward one."""
    model, emissions = in_torch(tables(4, start="middle")), torch.from_numpy(recordings(4, 8, 3)).requires_grad_()
    log_evidence(model, emissions).backward()
    expected = forward_backward(model, emissions.detach()).log_marginals.exp()
    np.testing.assert_allclose(emissions.grad.numpy(), expected.numpy(), rtol=1e-11, atol=1e-13)


def test_float32_holds_over_a_long_recording():
    model, emissions = tables(5, longest=20), 30.0 + 3.0 * np.random.default_rng(5).normal(size=(1500, 3))
    expected = forward_backward(model, emissions)
    short = Hsmm(*(table.astype(np.float32) for table in model))
    for found in (
        forward_backward(short, emissions.astype(np.float32)),
        forward_backward(in_torch(model, torch.float32), torch.from_numpy(emissions).float()),
    ):
        marginals = np.exp(np.asarray(found.log_marginals))
        assert marginals.dtype == np.float32
        # Messages are some 100 at most, of which float32 keeps 4e-6, whatever went before; a window has several roundings.
        np.testing.assert_allclose(marginals, np.exp(expected.log_marginals), atol=2e-5)
        np.testing.assert_allclose(float(found.log_evidence), expected.log_evidence, rtol=1e-5)


def test_a_long_path_in_float32_is_that_of_float64():
    short = Hsmm(*(table.astype(np.float32) for table in tables(7, longest=20)))
    emissions = (30.0 + np.random.default_rng(7).normal(size=(3000, 3))).astype(np.float32)
    expected = viterbi(Hsmm(*(table.astype(np.float64) for table in short)), emissions.astype(np.float64))
    for found in (viterbi(short, emissions), viterbi(in_torch(short, torch.float32), torch.from_numpy(emissions))):
        np.testing.assert_array_equal(np.asarray(found.labels), expected.labels)
        np.testing.assert_allclose(float(found.log_probability), expected.log_probability, rtol=1e-7)


def test_logits_in_float32_meet_tables_in_float64():
    model, emissions = tables(6), recordings(6, 5, 3).astype(np.float32)
    assert forward_backward(model, emissions).log_marginals.dtype == np.float64
    assert forward_backward(in_torch(model), torch.from_numpy(emissions)).log_marginals.dtype == torch.float64
