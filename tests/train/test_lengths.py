"""Modes that are lengths of one another, against each mode by itself."""

import pytest
import torch
from pydantic import ValidationError

from link.channel.awgn import add_noise
from train import transceiver as transceivers
from train.lengths import nested, own, shortest, within
from train.modes import LinkRecipe
from train.transceiver import Transceiver

DIM = 4
LENGTHS = (2, 4, 6)


@pytest.fixture
def model():
    link = LinkRecipe(lengths=LENGTHS, codewords=8, dim=DIM, order=4)
    torch.manual_seed(3)
    model = Transceiver(torch.nn.Identity(), torch.nn.Flatten(1), link).eval()
    tokens = model.quantizer.tokens(torch.randn(500, DIM))
    model.quantizer.start(
        tokens, temperature=0.7, target_entropy=0.5, bit_error_rates=torch.full((3,), 0.05).numpy(), seed=1
    )
    return model


def tokens_of(model, counts):
    """Random tokens, so many of each sample's own."""
    tokens = model.quantizer.tokens(
        torch.randn(len(counts), max(LENGTHS), DIM, generator=torch.Generator().manual_seed(1))
    )
    return tokens * (torch.arange(max(LENGTHS)) < torch.tensor(counts)[:, None])[..., None]


def test_lengths_are_modes_of_one_codebook_and_one_constellation():
    link = LinkRecipe(lengths=[2, 4], codewords=8, dim=DIM, order=4)
    assert [(mode.tokens, mode.codewords, mode.order) for mode in link.modes] == [(2, 8, 4), (4, 8, 4)]
    assert LinkRecipe.model_validate(link.model_dump()) == link
    assert LinkRecipe.model_validate_json(link.model_dump_json()) == link


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lengths": [4, 2]}, "lengths must ascend, got 4, 2"),
        ({"lengths": [2, 2]}, "lengths must ascend"),
        ({"lengths": [2, 4], "modes": [{"tokens": 2, "codewords": 8, "order": 4}] * 2}, "lengths are the modes"),
        ({"lengths": [4]}, "modes must be 2 to 32"),
        ({"lengths": 4}, r"1 validation error(.|\n)*lengths"),
    ],
)
def test_what_are_no_lengths_is_refused(values, text):
    with pytest.raises(ValidationError, match=text):
        LinkRecipe.model_validate({"codewords": 8, "dim": DIM, "order": 4} | values)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ([(2, 8, 4), (4, 8, 4)], True),
        ([(2, 8, 4), (4, 4, 4)], False),
        ([(2, 8, 4), (4, 8, 16)], False),
        ([(2, 8, 16), (4, 8, 16)], False),  # 6 bits do not fill symbols of 4
        ([(4, 8, 16), (8, 8, 16)], True),
    ],
)
def test_modes_are_nested_where_a_shorter_one_is_the_beginning_of_a_longer(modes, expected):
    sizes = [dict(zip(("tokens", "codewords", "order"), mode, strict=True)) for mode in modes]
    assert nested(LinkRecipe(dim=DIM, modes=sizes)) is expected


def test_a_sample_is_sent_in_the_shortest_mode_that_holds_it(model):
    tokens = tokens_of(model, [0, 1, 2, 3, 4, 5, 6])
    assert shortest(tokens, model.recipe).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert model.mode_of(tokens).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert len(own(tokens)) == 21


def test_a_hole_in_a_sample_costs_nothing_of_what_lies_behind_it(model):
    tokens = tokens_of(model, [6, 3])
    tokens[:, 1] = 0.0
    assert shortest(tokens, model.recipe).tolist() == [2, 1]


def test_padding_leaves_zero_tokens_zero(model):
    assert not model.quantizer.tokens(torch.zeros(1, DIM)).any()


def test_all_modes_at_once_are_what_each_is_by_itself(model, monkeypatch):
    """The longest mode, cut, against the codec of each mode; what is received of them, too."""
    tokens = tokens_of(model, [6] * 9)  # sent in modes shorter than they are, too
    mode = torch.arange(9) % 3
    llr_in = torch.randn(9, model.recipe.num_bits)

    def results():
        hard, soft = model.send_hard(tokens, mode), model.send_soft(tokens, 0.7, 1.0, mode)
        no = torch.full(hard.symbols.shape[:2], 0.2)
        y = add_noise(hard.symbols, no, torch.randn(hard.symbols.shape, generator=torch.Generator().manual_seed(5)))
        heard = [model.receive(y, no, given, mode) for given in (None, llr_in)]
        return [*hard, *soft, *heard[0][:3], *heard[1][:3]], [each.embedding for each in heard]

    at_once, embeddings = results()
    monkeypatch.setattr(transceivers, "nested", lambda link: False)
    one_by_one, expected = results()
    for found, wanted in zip(at_once, one_by_one, strict=True):
        assert torch.allclose(found, wanted, rtol=0, atol=1e-6)
    sent = within(mode, model.recipe, "tokens")[..., None]
    for found, wanted in zip(embeddings, expected, strict=True):
        assert torch.allclose(found, wanted * sent, rtol=0, atol=1e-6)


def test_what_was_not_sent_is_received_as_nothing(model):
    mode = torch.tensor([0, 2])
    symbols = torch.full((2, model.recipe.num_symbols, 2), 3.0)
    heard = model.receive(symbols, torch.full(symbols.shape[:2], 0.1), None, mode)
    rates = model.recipe.rates
    assert not heard.llr[0, rates[0].num_bits :].any()
    assert not heard.indices_hat[0, rates[0].tokens :].any()
    assert not heard.embedding[0, rates[0].tokens :].any()
    assert heard.llr[1].all()
    assert heard.embedding[1].any(dim=-1).all()
