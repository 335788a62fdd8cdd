"""The search against all texts, written out, and against what is told."""

import itertools

import pytest
import torch

from train.autoregressive import AutoregressiveDecoder
from train.pieces import END_ID
from train.search import foremost

PIECES, LENGTH, WIDTH = 5, 4, 16
ROWS = 12
TEXTS = torch.tensor(list(itertools.product(range(PIECES), repeat=LENGTH)))


def make(beam):
    torch.manual_seed(3)
    decoder = AutoregressiveDecoder(PIECES, WIDTH, 4, 2, beam).eval()
    decoder.embedding.weight.data.mul_(3.0)  # so that much follows from the piece before
    decoder.out.weight.data.mul_(3.0)
    return decoder


@pytest.fixture
def received():
    return torch.randn(ROWS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))


def everywhere(received):
    return torch.ones(received.shape[:2], dtype=torch.bool)


@torch.no_grad()
def scores_of_texts(decoder, row):
    """Log probability of each of all texts up to its end, those that go on behind one left out."""
    told = decoder(row.expand(len(TEXTS), -1, -1), everywhere(row.expand(len(TEXTS), -1, -1)), TEXTS).log_softmax(
        dim=-1
    )
    each = told.gather(-1, TEXTS[..., None])[..., 0]
    behind = (TEXTS == END_ID).cumsum(dim=1) - (TEXTS == END_ID).int() > 0
    total = each.masked_fill(behind, 0.0).sum(dim=1)
    return total.masked_fill((behind & (TEXTS != END_ID)).any(dim=1), -torch.inf)


@torch.no_grad()
def test_a_beam_that_holds_every_text_answers_the_likeliest(received):
    decoder, greedy = make(PIECES**LENGTH), make(1)
    decoder.beam = PIECES  # of so small a vocabulary the beam is at most all pieces
    likeliest = torch.stack([TEXTS[scores_of_texts(decoder, row[None]).argmax()] for row in received])
    found = decoder(received, everywhere(received)).argmax(dim=-1)
    first = greedy(received, everywhere(received)).argmax(dim=-1)
    missed = (first != likeliest).any(dim=1)
    assert missed.any(), "greedy must miss some, or this shows nothing"
    assert (found != likeliest).any(dim=1).sum() < missed.sum()


@torch.no_grad()
def test_a_greedy_answer_is_what_it_would_be_told(received):
    decoder = make(1)
    found = decoder(received, everywhere(received))
    again = decoder(received, everywhere(received), found.argmax(dim=-1))
    before_end = ((found.argmax(dim=-1) == END_ID).cumsum(dim=1) - (found.argmax(dim=-1) == END_ID).int()) == 0
    assert before_end.sum() > ROWS
    assert torch.allclose(found[before_end], again[before_end], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3, 5])
def test_each_piece_has_the_log_probability_that_it_would_have_if_told(received, beam):
    decoder = make(beam)
    found = decoder.decide(received, everywhere(received))
    told = decoder(received, everywhere(received), found.decisions).log_softmax(dim=-1)
    ends = (found.decisions == END_ID).int()
    own = ends.cumsum(dim=1) - ends == 0
    assert own.sum() > ROWS
    assert torch.allclose(found.score[own], told.gather(-1, found.decisions[..., None])[..., 0][own], atol=1e-5)
    assert (found.score[~own] == 0.0).all()


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_what_was_not_sent_changes_nothing_before_it_and_ends_a_text(received, beam):
    decoder = make(beam)
    present = everywhere(received)
    present[:, 2:] = False
    found = decoder(received, present)
    other = received.clone()
    other[:, 2:] = 9.0
    assert torch.allclose(decoder(other, present)[:, :2], found[:, :2], atol=1e-5)
    assert torch.allclose(decoder(received[:, :2], present[:, :2]), found[:, :2], atol=1e-5)
    assert (found.argmax(dim=-1)[:, 2:] == END_ID).all()


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_a_row_is_decided_alike_beside_longer_ones(received, beam):
    decoder = make(beam)
    present = everywhere(received)
    present[::2, 1:] = False
    together = decoder(received, present).argmax(dim=-1)
    for row in range(ROWS):
        alone = decoder(received[row : row + 1], present[row : row + 1]).argmax(dim=-1)
        assert torch.equal(alone[0], together[row])


def test_a_position_is_told_of_those_before_it_alone(received):
    decoder = make(1)
    told = torch.randint(PIECES, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))
    scores = decoder(received, everywhere(received), told)
    changed = told.clone()
    changed[:, 2] = (told[:, 2] + 1) % PIECES
    other = decoder(received, everywhere(received), changed)
    assert torch.equal(scores[:, :3], other[:, :3])
    assert not torch.allclose(scores[:, 3], other[:, 3])


def test_the_piece_decided_changes_places_with_the_highest():
    scores = torch.tensor([[0.5, 0.2, 0.3], [0.5, 0.2, 0.3]])
    assert torch.equal(foremost(scores, torch.tensor([2, 0])), torch.tensor([[0.3, 0.2, 0.5], [0.5, 0.2, 0.3]]))
