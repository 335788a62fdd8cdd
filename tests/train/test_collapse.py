import math

import numpy as np
import pytest
import torch
from torch import nn

from link.channel.awgn import add_noise
from link.randomness import Draws, Stream
from link.theory import mean_abs_llr
from train.collapse import CollapseMetrics, CollapseMonitor, alarms
from train.recipe import AlarmRecipe, LinkRecipe
from train.transceiver import Heard, Sent, Transceiver

RECIPE = LinkRecipe(tokens=2, codewords=4, dim=4, order=4)
HEALTHY = CollapseMetrics(
    vq_entropy=1.3,
    h_assign=0.5,
    symbol_entropy=1.3,
    mean_abs_llr=6.0,
    llr_ratio=1.0,
    codes_used=1.0,
    perplexity=3.7,
    consistency=0.1,
    es_db=0.0,
)


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
    assert found.vq_entropy == found.symbol_entropy == pytest.approx(math.log(4), rel=1e-6)
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
    assert alarms(found, LinkRecipe(tokens=8, codewords=8, dim=4, order=order), AlarmRecipe()) == []


@pytest.mark.parametrize(("told", "ratio"), [(0.25, 4.0), (4.0, 0.25)])
def test_the_llr_ratio_tells_a_wrong_noise_variance(told, ratio):
    """Max-log LLRs are inversely proportional to it, and so are all LLRs of QPSK."""
    for order, demapper in ((4, "app"), (16, "max-log")):
        found, error = one_pass(order, demapper, told)
        assert abs(found.llr_ratio - ratio) < 5.0 * error + 1e-3 * ratio
        (alarm,) = alarms(found, LinkRecipe(tokens=8, codewords=8, dim=4, order=order), AlarmRecipe())
        assert "check the noise variance told to the receiver" in alarm


def test_a_healthy_link_raises_no_alarm():
    assert alarms(HEALTHY, RECIPE, AlarmRecipe()) == []


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"vq_entropy": 0.6}, "raise loss.lambda_entropy"),
        ({"codes_used": 0.25}, "raise quantizer.restart_threshold"),
        ({"symbol_entropy": 0.6}, "raise loss.lambda_entropy"),
        ({"h_assign": 1.01}, "raise loss.lambda_assignment"),
        ({"es_db": 0.6}, "raise loss.lambda_energy"),
        ({"llr_ratio": 2.1}, "check the noise variance told to the receiver"),
        ({"llr_ratio": 0.4}, "check the noise variance told to the receiver"),
        ({"llr_ratio": math.nan}, "check the noise variance told to the receiver"),
    ],
)
def test_an_alarm_names_the_mend(changes, mend):
    values = {name: getattr(HEALTHY, name) for name in HEALTHY.__dataclass_fields__} | changes
    (alarm,) = alarms(CollapseMetrics(**values), RECIPE, AlarmRecipe())
    assert mend in alarm


@pytest.mark.parametrize(
    "changes",
    [{"vq_entropy": 0.7}, {"codes_used": 0.5}, {"symbol_entropy": 0.7}, {"h_assign": 1.0}, {"llr_ratio": 0.5}],
)
def test_thresholds_scale_with_codebook_and_constellation(changes):
    values = {name: getattr(HEALTHY, name) for name in HEALTHY.__dataclass_fields__} | changes
    assert alarms(CollapseMetrics(**values), RECIPE, AlarmRecipe()) == []
    larger = LinkRecipe(tokens=2, codewords=16, dim=4, order=16)
    found = alarms(CollapseMetrics(**values), larger, AlarmRecipe())
    assert len(found) == 2  # 1.3 nats of 16 are under half of ln 16
    assert all("under half of ln" in alarm for alarm in found)


@pytest.mark.parametrize(("codewords", "order", "name"), [(16, 4, "codeword"), (4, 16, "symbol")])
def test_codewords_are_held_against_ln_k_and_symbols_against_ln_m(codewords, order, name):
    link = LinkRecipe(tokens=2, codewords=codewords, dim=4, order=order)
    (alarm,) = alarms(HEALTHY, link, AlarmRecipe())
    assert alarm.startswith(f"{name} usage entropy 1.30 is under half of ln")


def test_the_published_thresholds_cannot_hold_for_a_healthy_qpsk_link():
    found = alarms(HEALTHY, RECIPE, AlarmRecipe(preset="published"))
    assert any("symbol entropy 1.30 is below 1.5" in alarm for alarm in found)
    assert math.log(4) < 1.5
    assert any(
        "is above 8" in alarm for alarm in alarms(one_pass(4, "app", 1.0)[0], RECIPE, AlarmRecipe(preset="published"))
    )


def test_the_published_thresholds_are_silent_above_them():
    values = {name: getattr(HEALTHY, name) for name in HEALTHY.__dataclass_fields__}
    fine = CollapseMetrics(**(values | {"vq_entropy": 2.5, "symbol_entropy": 1.5, "mean_abs_llr": 8.0}))
    assert alarms(fine, RECIPE, AlarmRecipe(preset="published")) == []
