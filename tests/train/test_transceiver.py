"""The trainable link: hard and soft differ in the assignment alone, and rows know nothing of each other."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from link.bits import label_bits
from link.constellation import map_bits, points
from link.randomness import Draws, Stream
from train.graphs import ReceiverGraph, TransmitterGraph
from train.mode_codec import tempered
from train.recipe import LinkRecipe
from train.transceiver import Transceiver, straight_through

# 5 tokens of 3 bits on 16-QAM: a token straddles two symbols, and the last symbol has a bit of padding.
RECIPE = LinkRecipe(tokens=5, codewords=8, dim=4, order=16)


@pytest.fixture(params=["app", "max-log"])
def model(request):
    return build(RECIPE.model_copy(update={"demapper": request.param}))


def build(recipe, scale=0.6):
    """A transceiver with a random codebook, labels and prior."""
    generator = torch.Generator().manual_seed(9)
    head = nn.Sequential(nn.Flatten(1), nn.Linear(recipe.tokens * recipe.dim, 3))
    made = Transceiver(nn.Identity(), head, recipe)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    quantizer = made.quantizer
    quantizer.codebook.copy_(torch.randn(recipe.codewords, recipe.dim, generator=generator))
    quantizer.set_labels(torch.randperm(recipe.codewords, generator=generator).numpy())
    quantizer.log_prior.copy_(torch.log_softmax(torch.randn(recipe.codewords, generator=generator), dim=0))
    quantizer.scale.fill_(scale)
    return made.eval()


def some_tokens(model, rows=16):
    generator = torch.Generator().manual_seed(2)
    return model.encode(torch.randn(rows, model.recipe.tokens, model.recipe.dim, generator=generator))


def some_noise(model, rows=16):
    normals = Draws(4, np.arange(rows)).normals(Stream.NOISE, 0, model.recipe.num_symbols)
    return torch.from_numpy(normals.astype(np.float32))


def test_tokens_are_normalised_by_their_own_mean_and_deviation(model):
    raw = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1)) * 3.0 + 7.0
    tokens = model.encode(raw)
    expected = (raw - raw.mean(dim=-1, keepdim=True)) / raw.std(dim=-1, correction=0, keepdim=True)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


def test_the_hard_path_recomputed_with_python_integers(model):
    tokens = some_tokens(model)
    sent = model.send_hard(tokens)
    codebook, labels = model.quantizer.codebook.tolist(), model.quantizer.labels.tolist()
    constellation = points(16)
    for row in range(len(tokens)):
        text = ""
        for position in range(5):
            z = tokens[row, position].tolist()
            distances = [sum((a - b) ** 2 for a, b in zip(z, codeword, strict=True)) for codeword in codebook]
            index = distances.index(min(distances))
            assert int(sent.indices[row, position]) == index
            text += f"{labels[index]:03b}"
        assert sent.bits[row].tolist() == [float(bit) for bit in text]
        symbols = [constellation[int(text.ljust(16, "0")[start : start + 4], 2)] for start in range(0, 16, 4)]
        np.testing.assert_allclose(sent.symbols[row].numpy(), symbols, rtol=1e-6)


def test_soft_bits_are_the_expected_label_bits(model):
    sent = model.send_soft(some_tokens(model), 0.7)
    torch.testing.assert_close(sent.probabilities.sum(dim=-1), torch.ones(16, 5))
    bits = torch.from_numpy(label_bits(model.quantizer.labels.numpy(), 3)).float()
    expected = torch.einsum("bnk,ki->bni", sent.probabilities, bits).reshape(16, 15)
    torch.testing.assert_close(sent.bits, expected)


def test_soft_becomes_hard_as_the_temperature_falls(model):
    tokens = some_tokens(model)
    hard = model.send_hard(tokens)
    distances = torch.cdist(tokens, model.quantizer.codebook).square().sort(dim=-1).values
    gap = distances[..., 1] - distances[..., 0]
    for temperature in (1e-1, 1e-2, 1e-3):
        soft = model.send_soft(tokens, temperature)
        assert torch.equal(soft.indices, hard.indices)
        # What is not on the nearest codeword is at most (K - 1) exp(-s gap / T); a symbol moves by at most twice its
        # largest coordinate for each bit that is wrong by one.
        rest = 7.0 * torch.exp(-0.6 * gap / temperature)
        assert ((soft.bits - hard.bits).abs().reshape(16, 5, 3).amax(dim=-1) <= rest + 1e-5).all()
    clear = (gap > 0.05).all(dim=-1)
    assert clear.sum() >= 8
    torch.testing.assert_close(soft.symbols[clear], hard.symbols[clear], rtol=0.0, atol=1e-5)


def test_the_temperature_of_the_symbols_divides_the_logits_of_the_bits():
    p = torch.tensor([0.02, 0.3, 0.5, 0.9, 0.999], dtype=torch.float64)
    for temperature in (0.1, 0.7, 2.0):
        expected = p ** (1 / temperature) / (p ** (1 / temperature) + (1 - p) ** (1 / temperature))
        torch.testing.assert_close(tempered(p, temperature), expected, rtol=1e-12, atol=0.0)
    assert tempered(p, 1.0) is p


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0])
def test_bits_that_are_certain_keep_their_value_and_a_finite_slope_at_any_symbol_temperature(temperature):
    p = torch.tensor([0.0, 1e-38, 1e-9, 0.5, 1.0 - 6e-8, 1.0, 1.0 + 1.2e-7], requires_grad=True)
    found = tempered(p, temperature)
    found.sum().backward()
    assert torch.isfinite(p.grad).all()
    assert float(p.grad[3]) == pytest.approx(1.0 / temperature)
    # Logits end at ln(1 / eps) = 15.9: sigmoid(-15.9 / 3) is 0.005.
    certain = torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0])
    torch.testing.assert_close(found.detach(), certain, rtol=0.0, atol=0.0050 if temperature > 1.0 else 2e-7)


def test_a_lower_symbol_temperature_moves_mean_symbols_towards_the_constellation_and_1_is_off(model):
    tokens = some_tokens(model)
    off = model.send_soft(tokens, 0.7)
    assert torch.equal(model.send_soft(tokens, 0.7, 1.0).symbols, off.symbols)
    cold, colder = model.send_soft(tokens, 0.7, 0.7), model.send_soft(tokens, 0.7, 0.05)
    torch.testing.assert_close(cold.bits, tempered(off.bits, 0.7))
    torch.testing.assert_close(cold.probabilities, off.probabilities)
    decided = (off.bits > 0.5).float()
    distances = [float((sent.bits - decided).abs().mean()) for sent in (off, cold, colder)]
    assert distances == sorted(distances, reverse=True)
    assert distances[2] < 0.2 * distances[0]


def test_hard_forward_sends_constellation_points_to_the_last_bit(model):
    tokens = some_tokens(model, rows=200)
    hard, soft = model.send_hard(tokens), model.send_soft(tokens, 0.7)
    assert torch.equal(straight_through(hard.symbols, soft.symbols), hard.symbols)


def test_soft_backward_feeds_back_the_gradient_of_the_soft_symbols(model):
    tokens = some_tokens(model)
    weights = torch.randn(16, 4, 2, generator=torch.Generator().manual_seed(8))
    gradients = []
    for forward in ("soft", "straight through"):
        leaf = tokens.clone().requires_grad_()
        soft = model.send_soft(leaf, 0.7).symbols
        sent = soft if forward == "soft" else straight_through(model.send_hard(leaf).symbols, soft)
        (weights * sent).sum().backward()
        gradients.append(leaf.grad)
    assert float(gradients[0].abs().sum()) > 0.0
    assert torch.equal(*gradients)


def test_hard_symbols_pass_no_gradient_of_their_own(model):
    leaf = some_tokens(model).clone().requires_grad_()
    assert not model.send_hard(leaf).symbols.requires_grad


@pytest.mark.parametrize("path", ["hard", "soft"])
def test_a_sample_alone_is_the_sample_in_a_batch(model, path):
    """Power is a constant of the constellation: no statistic of a batch scales the symbols, soft ones least of all."""

    def chain(tokens, normals):
        sent = model.send_hard(tokens) if path == "hard" else model.send_soft(tokens, 0.7)
        no = torch.full(sent.symbols.shape[:-1], 0.3)
        return sent, model.receive(sent.symbols + 0.15**0.5 * normals, no)

    tokens, normals = some_tokens(model), some_noise(model)
    # Companions of another energy: near a codeword, and between all of them.
    tokens[8:] = model.quantizer.codebook[0] if path == "soft" else 0.0
    sent, heard = chain(tokens, normals)
    for row in range(8):
        sent_alone, heard_alone = chain(tokens[row : row + 1], normals[row : row + 1])
        assert torch.equal(sent_alone.indices[0], sent.indices[row])
        # Matrix products of other shapes add in another order; a scaling by a batch statistic is far larger.
        torch.testing.assert_close(sent_alone.symbols[0], sent.symbols[row], rtol=0.0, atol=1e-6)
        torch.testing.assert_close(heard_alone.llr[0], heard.llr[row], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(heard_alone.logits[0], heard.logits[row], rtol=1e-4, atol=1e-4)


def test_soft_symbols_are_mean_symbols_and_never_rescaled(model):
    """With label bits told apart they are what the mapper makes of the probabilities, and carry less energy."""
    tokens = some_tokens(model, rows=64)
    soft, hard = model.send_soft(tokens, 0.7), model.send_hard(tokens)
    padded = torch.cat([soft.bits, torch.zeros(64, 1)], dim=-1).reshape(64, 4, 4)
    torch.testing.assert_close(soft.symbols, map_bits(padded))
    # A coordinate's mean square over the constellation is 1/2; a mean symbol lies inside the constellation's hull.
    assert float(soft.symbols.square().mean()) < float(hard.symbols.square().mean())
    assert float(soft.symbols.abs().max()) <= float(hard.symbols.abs().max()) + 1e-6


def test_rows_of_the_receiver_are_independent(model):
    leaf = model.send_hard(some_tokens(model)).symbols.clone().requires_grad_()
    heard = model.receive(leaf + some_noise(model), torch.full((16, 4), 2.0))
    heard.logits[3].sum().backward()
    touched = leaf.grad.abs().sum(dim=(1, 2)) > 0.0
    assert torch.nonzero(touched)[:, 0].tolist() == [3]


def test_rows_of_the_transmitter_are_independent(model):
    leaf = some_tokens(model).clone().requires_grad_()
    model.send_soft(leaf, 0.7).symbols[3].sum().backward()
    touched = leaf.grad.abs().sum(dim=(1, 2)) > 0.0
    assert torch.nonzero(touched)[:, 0].tolist() == [3]


def test_erased_symbols_leave_the_mean_embedding_of_the_prior(model):
    heard = model.receive(torch.zeros(3, 4, 2), torch.full((3, 4), torch.inf))
    assert torch.equal(heard.llr, torch.zeros(3, 15))
    mean = model.quantizer.log_prior.exp() @ model.quantizer.codebook
    torch.testing.assert_close(heard.embedding, mean.expand(3, 5, 4))
    assert (heard.indices_hat == model.quantizer.log_prior.argmax()).all()


def test_one_erased_symbol_erases_its_bits_and_no_others(model):
    sent = model.send_hard(some_tokens(model))
    y, no = sent.symbols.clone(), torch.full((16, 4), 0.1)
    whole = model.receive(y, no)
    y[:, 1], no[:, 1] = 0.0, torch.inf
    heard = model.receive(y, no)
    assert torch.equal(heard.llr[:, 4:8], torch.zeros(16, 4))
    rest = [*range(4), *range(8, 15)]
    assert torch.equal(heard.llr[:, rest], whole.llr[:, rest])


def test_llr_in_is_added_to_the_demapped_llrs(model):
    sent, no = model.send_hard(some_tokens(model)), torch.full((16, 4), 1.0)
    llr_in = torch.randn(16, 15, generator=torch.Generator().manual_seed(3))
    without, with_it = model.receive(sent.symbols, no), model.receive(sent.symbols, no, llr_in)
    assert torch.equal(with_it.channel_llr, without.channel_llr)
    torch.testing.assert_close(with_it.llr, without.channel_llr + llr_in)


def test_llrs_are_clipped_after_the_sum(model):
    sent, no = model.send_hard(some_tokens(model)), torch.full((16, 4), 1e-3)
    heard = model.receive(sent.symbols, no, torch.full((16, 15), -5.0))
    assert float(heard.channel_llr.abs().max()) > 100.0
    torch.testing.assert_close(heard.llr, (heard.channel_llr - 5.0).clamp(-30.0, 30.0))


def test_llr_in_alone_decides_where_all_is_erased(model):
    sent = model.send_hard(some_tokens(model))
    heard = model.receive(torch.zeros(16, 4, 2), torch.full((16, 4), torch.inf), 20.0 * (2.0 * sent.bits - 1.0))
    assert torch.equal(heard.indices_hat, sent.indices)
    torch.testing.assert_close(heard.embedding, model.quantizer.codebook[sent.indices], rtol=0.0, atol=1e-6)


def test_without_noise_the_receiver_finds_what_was_sent(model):
    sent = model.send_hard(some_tokens(model))
    heard = model.receive(sent.symbols, torch.full((16, 4), 1e-3))
    assert torch.equal(heard.indices_hat, sent.indices)
    torch.testing.assert_close(heard.embedding, model.quantizer.codebook[sent.indices], rtol=0.0, atol=1e-6)
    assert torch.equal((heard.llr > 0.0).float(), sent.bits)


def test_the_embedding_is_the_mean_over_all_codewords_under_the_bits_posterior():
    model = build(RECIPE.model_copy(update={"demapper": "app"}))
    sent, no = model.send_hard(some_tokens(model)), torch.full((16, 4), 0.5)
    heard = model.receive(sent.symbols + 0.5 * some_noise(model), no)
    one = torch.sigmoid(heard.llr).double().reshape(16, 5, 3)
    prior, labels = model.quantizer.log_prior.exp().double(), model.quantizer.labels.tolist()
    weights = torch.empty(16, 5, 8, dtype=torch.float64)
    for k, label in enumerate(labels):
        bits = [int(digit) for digit in f"{label:03b}"]
        weights[..., k] = prior[k] * torch.stack(
            [one[..., i] if bit else 1.0 - one[..., i] for i, bit in enumerate(bits)], dim=-1
        ).prod(dim=-1)
    expected = weights / weights.sum(dim=-1, keepdim=True) @ model.quantizer.codebook.double()
    torch.testing.assert_close(heard.embedding.double(), expected, rtol=0.0, atol=1e-5)


def test_the_graphs_say_what_was_sent_and_heard(model):
    tokens = some_tokens(model)
    mode, indices, bits, num_bits, symbols, num_symbols = TransmitterGraph(model)(tokens)
    # The graph normalises what the encoder gives; normalised tokens stay, up to rounding.
    sent = model.send_hard(model.encode(tokens))
    assert torch.equal(indices, sent.indices)
    assert bits.dtype == torch.uint8
    assert torch.equal(bits.float(), sent.bits)
    assert torch.equal(symbols, sent.symbols)
    assert mode.tolist() == [0] * 16
    assert num_bits.tolist() == [15] * 16
    assert num_symbols.tolist() == [4] * 16
    no, llr_in = torch.full((16, 4), 0.5), torch.ones(16, 15)
    found, heard = ReceiverGraph(model)(symbols, no, mode, llr_in), model.receive(symbols, no, llr_in)
    for left, right in zip(found, (heard.llr, heard.indices_hat, heard.logits), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(("codewords", "order"), list(itertools.product((2, 16), (4, 64, 256))))
def test_any_grouping_of_bits_into_symbols_is_undone_by_the_receiver(codewords, order):
    model = build(LinkRecipe(tokens=3, codewords=codewords, dim=4, order=order))
    sent = model.send_hard(some_tokens(model))
    heard = model.receive(sent.symbols, torch.full(sent.symbols.shape[:-1], 1e-4))
    assert torch.equal(heard.indices_hat, sent.indices)
