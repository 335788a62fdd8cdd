"""Encoder-decoders by name: what is read of their files, what they read and spell, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from link.errors import RecipeError
from train.encoders import ENCODER, build_tokenizer
from train.pieces import END_ID
from train.search import foremost
from train.seq2seq import Seq2SeqDecoder, Seq2SeqReader, load_seq2seq
from train.seq2seq_files import Seq2SeqModel, find_seq2seq

LENGTH = 5
ROWS = 6
SEQ2SEQ = "AutoModelForSeq2SeqLM"


def named(folder, beam=1):
    """Reader and decoder of a folder's model, with its weights, and what is kept of it."""
    model = Seq2SeqModel.model_validate_json(find_seq2seq(str(folder)).model.model_dump_json())
    reader, decoder = Seq2SeqReader(model), Seq2SeqDecoder(model, beam)
    for part in (reader, decoder):
        load_seq2seq(part.backbone, model, str(folder))
    return model, reader.eval(), decoder.eval()


def own(pieces, model):
    """Pieces in the numbers of the model's files."""
    return torch.where(pieces == END_ID, model.own_end, torch.where(pieces == model.own_end, END_ID, pieces))


@pytest.fixture(params=["bart", "t5", "mt5", "pegasus", "mbart"])
def family(request, seq2seq):
    return seq2seq(request.param)


@pytest.fixture
def received():
    return 2.0 * torch.randn(ROWS, LENGTH, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def present():
    return torch.arange(LENGTH) < torch.tensor([5, 1, 3, 4, 2, 5])[:, None]


@torch.no_grad()
def test_an_encoder_reads_a_sentence_as_transformers_has_it(family):
    """Recomputed by the model as its folder holds it: what stands before a sentence, the sentence, its end."""
    model, reader, _ = named(family)
    whole = AutoModelForSeq2SeqLM.from_pretrained(family).eval()
    pieces = torch.tensor([[7, 8, 9, 10], [11, 12, END_ID, 0]])
    states = reader(pieces, torch.tensor([[True] * 4, [True, True, False, False]]))
    for row, length in enumerate((4, 2)):
        sentence = torch.cat([torch.tensor(model.before), pieces[row, :length], torch.tensor([END_ID])]).long()
        wanted = whole.get_encoder()(input_ids=own(sentence, model)[None]).last_hidden_state
        found = wanted[0, len(model.before) : -1]
        assert found.shape == (length, 16)
        torch.testing.assert_close(states[row, :length], found, rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_decoder_that_is_told_says_what_transformers_says(family, received, present):
    model, _, decoder = named(family)
    whole = AutoModelForSeq2SeqLM.from_pretrained(family).eval()
    told = torch.randint(3, model.pieces, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))
    told[1, 1:] = -1
    told[1, 1] = END_ID
    found = decoder(received, present, told)
    begin = torch.tensor([model.start, *model.before]).expand(ROWS, -1)
    wanted = whole(
        encoder_outputs=(received,),
        attention_mask=present,
        decoder_input_ids=own(torch.cat([begin, told[:, :-1].clamp_min(0)], dim=1), model),
    ).logits[:, begin.shape[1] - 1 :]
    torch.testing.assert_close(found, wanted[..., own(torch.arange(model.pieces), model)], rtol=0, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_decided_step_by_step_has_the_probability_that_it_would_have_if_told(family, received, present, beam):
    _, _, decoder = named(family, beam)
    found = decoder.decide(received, present)
    told = decoder(received, present, found.decisions).log_softmax(dim=-1)
    ends = (found.decisions == END_ID).int()
    judged = present & (ends.cumsum(dim=1) - ends == 0)
    assert judged.sum() > ROWS
    wanted = told.gather(-1, found.decisions[..., None])[..., 0]
    torch.testing.assert_close(found.score[judged], wanted[judged], rtol=0, atol=1e-4)
    assert (found.decisions[~judged] == END_ID).all()
    if beam == 1:
        assert torch.equal(told.argmax(dim=-1)[judged], found.decisions[judged])


@torch.no_grad()
def test_the_best_of_three_is_likelier_than_the_greedy_text(family, received, present):
    greedy, beam = (named(family, width)[2].decide(received, present).score.sum(dim=1) for width in (1, 3))
    assert (beam > greedy + 1e-4).any()
    assert beam.sum() > greedy.sum()


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_a_row_is_decided_alike_beside_longer_ones(seq2seq, received, present, beam):
    _, _, decoder = named(seq2seq("bart"), beam)
    together = decoder.decide(received, present)
    for row in range(ROWS):
        length = int(present[row].sum())
        alone = decoder.decide(received[row : row + 1, :length], present[row : row + 1, :length])
        assert torch.equal(alone.decisions[0], together.decisions[row, :length])


@torch.no_grad()
def test_what_was_not_sent_changes_nothing(seq2seq, received, present):
    _, _, decoder = named(seq2seq("bart"))
    other = torch.where(present[..., None], received, 9.0)
    torch.testing.assert_close(decoder(other, present), decoder(received, present), rtol=0, atol=1e-5)
    assert foremost(decoder(received, present), decoder.decide(received, present).decisions).shape[1] == LENGTH
