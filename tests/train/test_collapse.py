import math

import numpy as np
import pytest
import torch
from torch import nn

from link.channel.awgn import add_noise
from link.randomness import Draws, Stream
from link.theory import mean_abs_llr
from train.collapse import (
    CollapseMonitor,
    TokenDrift,
    TokenStatistics,
    loss_shares,
    token_drift,
    token_statistics,
)
from train.mode_codec import Sent
from train.recipe import LinkRecipe, LossRecipe
from train.transceiver import Heard, Transceiver
from train.usage import code_usage

RECIPE = LinkRecipe(tokens=2, codewords=4, dim=4, order=4)


def sent_by_hand(indices, bits, probabilities):
    return Sent(torch.tensor(indices), torch.tensor(probabilities), torch.tensor(bits), torch.tensor([[[1.0, 1.0]]]))


def heard_by_hand(llr, embedding):
    llr = torch.tensor(llr)
    return Heard(llr, llr.clamp(-1.0, 1.0), torch.zeros(1), torch.tensor(embedding), torch.zeros(1))


def test_entropies_and_means_of_counts_made_by_hand():
    """Codewords 0 0 | 0 1 | 2 2 and symbols 00 00 | 00 01 | 11 11, in batches of two rows and of one."""
    monitor = CollapseMonitor(RECIPE)
    even, sure = [[0.5, 0.5, 0.0, 0.0]] * 2, [[0.0, 0.0, 1.0, 0.0]] * 2
    hard = sent_by_hand([[0, 0], [0, 1]], [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]], [even, even])
    monitor.add(
        hard,
        hard,
        heard_by_hand([[0.0] * 4] * 2, [[[1.0] * 4] * 2] * 2),
        heard_by_hand([[4.0, -4.0, 2.0, -2.0], [3.0] * 4], [[[0.0] * 4] * 2] * 2),
        np.array([0.0, 10.0]),
    )
    hard = sent_by_hand([[2, 2]], [[1.0, 1.0, 1.0, 1.0]], [sure])
    monitor.add(
        hard,
        hard,
        heard_by_hand([[0.0] * 4], [[[0.0] * 4] * 2]),
        heard_by_hand([[-9.0] * 4], [[[0.0] * 4] * 2]),
        np.array([3.0]),
    )
    found = monitor.result()
    usage = np.array([3.0, 1.0, 2.0]) / 6.0
    expected = -float(usage @ np.log(usage))
    assert found.vq_entropy == pytest.approx(expected, rel=1e-6)
    assert found.symbol_entropy == pytest.approx(expected, rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(expected), rel=1e-6)
    assert found.codes_used == 0.75
    assert found.h_assign == pytest.approx(2.0 / 3.0 * math.log(2), rel=1e-6)
    # |LLR| as demapped, not as clipped.
    assert found.mean_abs_llr == pytest.approx((3.0 + 3.0 + 9.0) / 3.0)
    assert found.consistency == pytest.approx(2.0 / 3.0)
    assert found.es_db == pytest.approx(10.0 * math.log10(2.0))
    theory = mean_abs_llr(4, np.array([0.0, 10.0, 3.0]), demapper="app").mean()
    # The monitor interpolates a table of half decibels, whose nodes these are.
    assert found.llr_ratio == pytest.approx(5.0 / theory, rel=1e-9)


def test_even_usage_has_the_entropies_ln_k_and_ln_m():
    monitor = CollapseMonitor(RECIPE)
    bits = [[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]]
    hard = sent_by_hand([[0, 1], [2, 3]], bits, [[[0.25] * 4] * 2] * 2)
    heard = heard_by_hand([[1.0] * 4] * 2, [[[0.0] * 4] * 2] * 2)
    monitor.add(hard, hard, heard, heard, np.zeros(2))
    found = monitor.result()
    assert (found.vq_entropy, found.symbol_entropy) == pytest.approx((math.log(4), math.log(4)), rel=1e-6)
    assert found.h_assign == pytest.approx(math.log(4), rel=1e-6)
    assert found.perplexity == pytest.approx(4.0, rel=1e-6)


def one_pass(order, demapper, told):
    """Metrics, and the standard error of the ratio, where random codewords meet noise and the receiver is told `told` no."""
    recipe = LinkRecipe(tokens=8, codewords=8, dim=4, order=order, demapper=demapper)
    model = Transceiver(nn.Identity(), nn.Flatten(1), recipe)
    rows = 3000
    draws = Draws(6, np.arange(rows))
    bits = draws.bits(Stream.BITS, 0, 24).reshape(rows, 8, 3)
    indices = torch.from_numpy(bits.astype(np.int64) @ np.array([4, 2, 1]))
    model.quantizer.codebook.copy_(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)))
    hard = model.send_hard(model.quantizer.codewords_of(indices))
    assert torch.equal(hard.indices, indices)
    snr_db = np.resize([0.0, 7.25, 12.0], rows)
    no = torch.from_numpy(np.repeat(10.0 ** (-snr_db[:, None] / 10.0), hard.symbols.shape[1], axis=1)).float()
    normals = torch.from_numpy(draws.normals(Stream.NOISE, 0, hard.symbols.shape[1])).float()
    heard = model.receive(add_noise(hard.symbols, no, normals), told * no)
    monitor = CollapseMonitor(recipe)
    monitor.add(hard, hard, heard, heard, snr_db)
    found = monitor.result()
    by_row = heard.channel_llr.abs().mean(dim=-1).double().numpy()
    deviation = np.sqrt(np.mean([by_row[snr_db == snr].var() for snr in (0.0, 7.25, 12.0)]))
    return found, deviation / math.sqrt(rows) / (found.mean_abs_llr / found.llr_ratio)


@pytest.mark.parametrize(("order", "demapper"), [(4, "app"), (4, "max-log"), (16, "app"), (64, "max-log")])
def test_the_llr_ratio_of_a_healthy_link_is_1(order, demapper):
    found, error = one_pass(order, demapper, told=1.0)
    assert error < 0.01
    assert abs(found.llr_ratio - 1.0) < 5.0 * error + 1e-3  # the table is interpolated to a few parts in 10,000


@pytest.mark.parametrize(("told", "ratio"), [(0.25, 4.0), (4.0, 0.25)])
def test_the_llr_ratio_tells_a_wrong_noise_variance(told, ratio):
    """Max-log LLRs are inversely proportional to it, and so are all LLRs of QPSK."""
    for order, demapper in ((4, "app"), (16, "max-log")):
        found, error = one_pass(order, demapper, told)
        assert abs(found.llr_ratio - ratio) < 5.0 * error + 1e-3 * ratio


def test_positions_that_send_one_codeword_for_95_percent_of_the_samples_are_counted():
    """20 samples: position 0 always sends 1, position 1 does so 19 times, position 2 18 times, position 3 evenly."""
    indices = torch.tensor([[1, 1, 1, row % 4] for row in range(20)])
    indices[0, 1] = indices[0, 2] = indices[1, 2] = 0
    assert code_usage(indices, 4).same_codes == 0.5
    assert code_usage(indices[:, 2:], 4).same_codes == 0.0


def test_the_same_codes_are_counted_over_all_batches():
    """Each batch by itself sends one codeword; together they send two."""
    monitor = CollapseMonitor(RECIPE)
    heard = heard_by_hand([[1.0] * 4] * 2, [[[0.0] * 4] * 2] * 2)
    for codeword in (0, 3):
        bits = [[float(codeword > 1)] * 4] * 2
        hard = sent_by_hand([[codeword, 1]] * 2, bits, [[[0.25] * 4] * 2] * 2)
        monitor.add(hard, hard, heard, heard, np.zeros(2))
    assert monitor.result().same_codes == 0.5


def test_a_monitor_collects_tokens_as_if_they_came_at_once():
    tokens = torch.randn(30, 2, 4, generator=torch.Generator().manual_seed(3)) * 2.0 + 1.0
    monitor = CollapseMonitor(RECIPE)
    monitor.add_tokens(tokens[:7])
    monitor.add_tokens(tokens[7:])
    found, expected = monitor.token_statistics(), token_statistics(tokens)
    assert found.mean == pytest.approx(expected.mean, rel=1e-9)
    assert found.variance == pytest.approx(expected.variance, rel=1e-9)
    flat = tokens.double().numpy().reshape(30, 8)
    assert expected.mean == pytest.approx(flat.mean(axis=0), rel=1e-9)
    assert expected.variance == pytest.approx(flat.var(axis=0), rel=1e-9)


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        ((0.0, 0.0), (3.0, 4.0), TokenDrift(0.0, 0.0)),
        ((3.0, 4.0), (3.0, 4.0), TokenDrift(1.0, 1.0)),
        ((0.0, 0.0), (0.0, 0.0), TokenDrift(0.0, 1.0)),
        ((0.0, 0.0), (6.0, 8.0), TokenDrift(0.0, 1.0)),
        ((5.0, 0.0), (3.0, 9.0), TokenDrift(1.0, 2.0**0.5)),
    ],
)
def test_drift_in_closed_form_whatever_the_scale(mean, deviation, expected):
    for scale in (1.0, 1e-3, 1e4):
        training = TokenStatistics((0.0, 0.0), (9.0 * scale**2, 16.0 * scale**2))
        evaluation = TokenStatistics(
            (mean[0] * scale, mean[1] * scale), ((deviation[0] * scale) ** 2, (deviation[1] * scale) ** 2)
        )
        found = token_drift(training, evaluation)
        assert (found.mean_shift, found.frechet) == pytest.approx((expected.mean_shift, expected.frechet), abs=1e-9)


def test_an_encoder_that_says_one_thing_only_drifts_by_finite_figures():
    still = TokenStatistics((1.0,), (0.0,))
    assert token_drift(still, still) == TokenDrift(0.0, 0.0)
    assert 1.0 < token_drift(still, TokenStatistics((2.0,), (0.0,))).frechet < float("inf")


def test_shares_of_the_loss_by_hand():
    weights = LossRecipe(
        lambda_vq=0.5, lambda_entropy=0.1, lambda_assignment=0.0, lambda_consistency=2.0, lambda_energy=1.0
    )
    terms = {
        "loss": 9.0,
        "task": 0.4,
        "commitment": 0.2,
        "assignment": 5.0,
        "usage": math.log(4) - 1.0,
        "consistency": 0.1,
        "energy": 0.2,
    }
    found = loss_shares(terms, weights, RECIPE)
    assert found == pytest.approx(
        {"task": 0.4, "commitment": 0.1, "assignment": 0.0, "usage": 0.1, "consistency": 0.2, "energy": 0.2}
    )
    assert sum(found.values()) == pytest.approx(1.0)


def test_usage_at_its_most_has_no_share_and_nothing_weighs_nothing():
    full = {"task": 0.1, "usage": math.log(4)}
    assert loss_shares(full, LossRecipe(lambda_entropy=9.0), RECIPE) == {"task": 1.0, "usage": 0.0}
    assert loss_shares({"task": 0.0}, LossRecipe(), RECIPE) == {"task": 0.0}
