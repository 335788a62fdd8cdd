"""The sequence stage: what it is without its parts, with each, on NumPy as on torch, alone as in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from link.durations import negative_binomial
from link.errors import ArgumentError
from link.hdp import Hdp, infer, push
from link.hsmm import Hsmm, forward_backward
from link.sequence import SequenceStream, SequenceTables, emissions, smoothed

C, K, N, V, T = 3, 4, 2, 5, 7


def log_rows(random: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    return np.log(random.dirichlet(np.ones(shape[-1]), shape[:-1]))


def tables(hdp: bool = True, hsmm: bool = True, seed: int = 0) -> SequenceTables:
    random = np.random.default_rng(seed)
    transition = random.uniform(0.1, 1.0, (C, C)) * (1 - np.eye(C))
    with np.errstate(divide="ignore"):
        log_transition = np.log(transition / transition.sum(axis=1, keepdims=True))
    model = Hsmm.of(
        log_rows(random, C), log_transition, negative_binomial(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0]), 6)
    )
    weights = random.dirichlet(np.ones(K))
    return SequenceTables(
        np.array(0.7),
        log_rows(random, C),
        Hdp(log_rows(random, K, N, V) - 0.1, weights, 0.8, marginal=True) if hdp else None,
        log_rows(random, K, C) if hdp else None,
        np.array(0.3) if hdp else None,
        model if hsmm else None,
    )


def received(seed: int, *leading: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return random.normal(size=(*leading, T, C)) * 2, random.dirichlet(np.ones(V), (*leading, T, N))


def as_torch(found: SequenceTables) -> SequenceTables:
    def turned(value: object) -> object:
        if isinstance(value, tuple):
            return type(value)(*map(turned, value))  # type: ignore[call-arg]
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    return SequenceTables(*map(turned, found))  # type: ignore[arg-type]


def test_with_neither_part_and_a_scale_of_1_a_window_is_decided_by_itself() -> None:
    plain = tables(hdp=False, hsmm=False)._replace(scale=np.array(1.0))
    logits, _ = received(1)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(smoothed(plain, logits), expected, atol=1e-12)


def test_emissions_are_posteriors_over_the_prior_to_the_scale() -> None:
    plain = tables(hdp=False)
    logits, _ = received(2)
    posterior = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        np.exp(emissions(plain, logits)), (posterior / np.exp(plain.log_prior)) ** 0.7, rtol=1e-12
    )


def test_behaviours_say_what_classes_they_are_evidence_of() -> None:
    whole, logits_codes = tables(), received(3)
    found = infer(whole.hdp, logits_codes[1]).responsibilities
    said = np.log(found @ np.exp(whole.log_classes)) - whole.log_prior
    alone = emissions(whole._replace(hdp=None), logits_codes[0])
    np.testing.assert_allclose(emissions(whole, *logits_codes), alone + 0.3 * said, atol=1e-9)


def test_what_is_decided_are_the_marginals_of_the_hsmm_under_the_emissions() -> None:
    whole, (logits, codes) = tables(), received(4)
    expected = forward_backward(whole.hsmm, emissions(whole, logits, codes)).log_marginals
    np.testing.assert_array_equal(smoothed(whole, logits, codes), expected)
    np.testing.assert_allclose(np.exp(expected).sum(axis=-1), 1.0, atol=1e-12)


@pytest.mark.parametrize("hdp", [False, True])
@pytest.mark.parametrize("hsmm", [False, True])
def test_torch_and_numpy_agree(hdp: bool, hsmm: bool) -> None:
    found, (logits, codes) = tables(hdp, hsmm), received(5, 3)
    other = smoothed(as_torch(found), torch.from_numpy(logits), torch.from_numpy(codes))
    np.testing.assert_allclose(other.numpy(), smoothed(found, logits, codes), atol=1e-10)


@pytest.mark.parametrize("hdp", [False, True])
@pytest.mark.parametrize("hsmm", [False, True])
def test_a_recording_in_a_batch_is_decided_as_it_is_alone(hdp: bool, hsmm: bool) -> None:
    found, (logits, codes) = tables(hdp, hsmm), received(6, 3)
    lengths = np.array([7, 1, 4])
    present = np.arange(T) < lengths[:, None]
    whole = smoothed(found, logits, codes, present)
    for row, length in enumerate(lengths):
        alone = smoothed(found, logits[row, :length], codes[row, :length])
        np.testing.assert_allclose(whole[row, :length], alone, atol=1e-10)


def test_a_window_that_says_nothing_is_decided_by_its_neighbours() -> None:
    found = tables(hdp=False)
    logits = np.tile(np.array([0.0, 9.0, 0.0]), (T, 1))
    logits[3] = found.log_prior  # the prior is what says nothing
    assert smoothed(found, logits)[3].argmax() == 1
    assert smoothed(found._replace(hsmm=None), logits)[3].argmax() == found.log_prior.argmax() != 1


def test_what_does_not_fit_is_refused() -> None:
    found, (logits, codes) = tables(), received(7)
    with pytest.raises(ArgumentError, match=r"logits must have shape \(\.\.\., windows, 3\), got \(7, 2\)"):
        smoothed(found, logits[:, :2], codes)
    with pytest.raises(ArgumentError, match="codes must be given"):
        smoothed(found, logits)
    with pytest.raises(ArgumentError, match="codes must have shape"):
        smoothed(found, logits, codes[..., :4])


@pytest.mark.parametrize("lag", [1.5, float("nan"), "2", None])
@pytest.mark.parametrize("hsmm", [True, False])
def test_a_lag_is_a_whole_number(lag: object, hsmm: bool) -> None:
    found = tables() if hsmm else tables()._replace(hsmm=None)
    with pytest.raises(ArgumentError, match="lag must be a whole number of windows"):
        SequenceStream(found, lag)  # type: ignore[arg-type]


@pytest.mark.parametrize("lag", [0, 2, 20])
def test_a_stream_decides_as_the_recording_until_then_and_waits_for_its_lag(lag: int) -> None:
    found = tables(hdp=False)
    logits, _ = received(8)
    stream = SequenceStream(found, lag)
    for _ in range(2):  # it is ready for another one when it is flushed
        said = [stream.push(window) for window in logits]
        assert [answer is None for answer in said] == [window < lag for window in range(T)]
        for window, answer in enumerate(said[lag:]):
            np.testing.assert_allclose(answer, smoothed(found, logits[: window + lag + 1])[window], atol=1e-10)
        left = stream.flush()
        assert len(left) == min(lag, T)
        np.testing.assert_allclose(np.reshape(left, (-1, C)), smoothed(found, logits)[T - len(left) :], atol=1e-10)


def test_behaviours_of_a_stream_are_those_of_windows_so_far() -> None:
    found, (logits, codes) = tables(hsmm=False), received(9)
    stream, state = SequenceStream(found), found.hdp.prior
    for window in range(T):
        known, state = push(found.hdp, state, codes[window])
        alone = emissions(found._replace(hdp=None), logits[window][None])[0]
        expected = alone + 0.3 * (np.log(known @ np.exp(found.log_classes)) - found.log_prior) + found.log_prior
        said = stream.push(logits[window], codes[window])
        np.testing.assert_allclose(np.exp(said), np.exp(expected) / np.exp(expected).sum(), atol=1e-9)
    assert stream.flush() == []
    again = stream.push(logits[0], codes[0])
    np.testing.assert_array_equal(again, SequenceStream(found).push(logits[0], codes[0]))


def test_a_stream_refuses_a_lag_below_0_and_missing_codes() -> None:
    with pytest.raises(ArgumentError, match="lag must be at least 0, got -1"):
        SequenceStream(tables(), -1)
    with pytest.raises(ArgumentError, match="codes must be given"):
        SequenceStream(tables()).push(np.zeros(C))
