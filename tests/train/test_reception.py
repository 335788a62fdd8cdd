"""The cases that receivers are compared on, and what they are held to."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from link.errors import BundleError
from link.manifest import Manifest, TextSpec
from link.runtime import Reception
from train.answers import answer, score_of
from train.autoregressive import AutoregressiveDecoder
from train.bundle_check import check_receiver
from train.checkpoint import load
from train.pieces import END_ID
from train.reception import receiver_agreement
from train.receptions import Case, channel_cases
from train.tasks import Split, load_task

INDEX_BITS = 3


@pytest.fixture(scope="module")
def sent(digits_link, digits_data):
    return digits_link.transmitter({"image": digits_data.test.inputs["image"][:120]})


@pytest.fixture
def tied_receiver(digits_run, digits_link, sent):
    """A checkpoint's receiver without a prior: a token whose symbols are erased is any codeword's."""
    model = load(digits_run)[1]
    model.quantizer.log_prior.fill_(-np.log(8.0))
    raw = digits_link.manifest.model_dump(mode="json")
    raw["modes"][0]["log_prior"] = [float(value) for value in model.quantizer.log_prior]
    return model, Manifest.model_validate(raw), sent


@torch.no_grad()
def receive(model, case):
    arrays = (None if array is None else torch.from_numpy(array) for array in case[1:5])
    heard = model.receive(*arrays)
    return Reception(heard.llr.numpy(), heard.indices_hat.numpy(), heard.logits.numpy())


def test_an_erased_token_may_go_either_way_as_often_as_allowed(tied_receiver):
    model, manifest, sent = tied_receiver
    left = [1]

    def highest_index_once(case):
        answer = receive(model, case)
        erased = np.argwhere((answer.llr.reshape(-1, 8, INDEX_BITS) == 0).all(axis=-1))
        for position in map(tuple, erased[: left[0]]):
            answer.indices_hat[position] = 7
            left[0] -= 1
        return answer

    found = receiver_agreement(model, manifest, sent, {"onnx": highest_index_once}, (6.0,), seed=0)
    assert (found.findings, found.near_ties) == ((), 1)
    left[0] = 1000
    found = receiver_agreement(model, manifest, sent, {"onnx": highest_index_once}, (6.0,), seed=0)
    assert found.findings == (f"onnx: {found.near_ties} near-ties where {found.allowed} are allowed",)
    assert found.near_ties > found.allowed


def test_receivers_are_held_to_the_manifest_even_where_they_agree(digits_model, digits_link, sent):
    # Checkpoint and graph decode alike; by this manifest both are wrong.
    raw = digits_link.manifest.model_dump(mode="json")
    raw["modes"][0]["labels"] = raw["modes"][0]["labels"][::-1]
    receivers = {"onnx": lambda case: receive(digits_model, case)}
    found = receiver_agreement(digits_model, Manifest.model_validate(raw), sent, receivers, (6.0,), seed=0)
    assert [text.split(" is not")[0] for text in found.findings] == ["checkpoint: indices_hat", "onnx: indices_hat"]


def test_cases_of_a_receiver_cover_what_it_may_meet(sent):
    symbols = sent.symbols
    cases = {case.name: case for case in channel_cases(symbols, 24, 6.0, seed=0)}
    plain, erased = cases["as received at 6 dB"], cases["with erasures at 6 dB"]
    assert (np.isinf(erased.no) == (erased.y == 0).all(axis=-1)).all()
    assert np.isinf(erased.no).mean() == pytest.approx(1 / 3)
    assert (cases["told a quarter of no at 6 dB"].no * 4 == plain.no).all()
    assert (cases["told four times no at 6 dB"].no == plain.no * 4).all()
    assert (np.ptp(cases["told uneven no at 6 dB"].no, axis=1) > 0).all()
    assert (cases["with llr_in at 6 dB"].llr_in != 0).all()
    noise = plain.y - symbols
    assert 0.85 < noise.var() / (plain.no[0, 0] / 2) < 1.15


PIECES, POSITIONS = 12, 8
TIED = (5, 9)  # pieces of one score, whatever came before, that say different things to what follows


class Told(nn.Module):
    """A head that spells a text of a piece a token, each given those before; it never ends."""

    told = True

    def __init__(self, dim):
        super().__init__()
        self.decoder = AutoregressiveDecoder(PIECES, dim, 1, 1).eval()
        self.decoder.embedding.weight.data.mul_(3.0)
        self.decoder.embedding.weight.data[TIED[1]] = -self.decoder.embedding.weight[TIED[0]]
        self.decoder.out.weight.data[TIED[1]] = self.decoder.out.weight[TIED[0]]
        self.decoder.out.bias.data[TIED[1]] = self.decoder.out.bias[TIED[0]]
        self.decoder.out.bias.data[END_ID] = -50.0
        self.decoder.out.bias.data[list(TIED)] += 1.0  # which of the two is answered is anybody's choice

    def forward(self, embedding, told=None):
        return self.decoder(embedding, torch.ones(embedding.shape[:2], dtype=torch.bool), told)

    def decide(self, embedding):
        return self.decoder.decide(embedding, torch.ones(embedding.shape[:2], dtype=torch.bool))


@pytest.fixture(scope="module")
def speller(digits_run, digits_link):
    """A checkpoint that answers texts, and its manifest."""
    model = load(digits_run)[1]
    torch.manual_seed(5)
    model.head = Told(model.recipe.dim)
    manifest = digits_link.manifest
    text = TextSpec(positions=POSITIONS, pieces=PIECES, end_id=END_ID)
    return model, manifest.model_copy(update={"task": manifest.task.model_copy(update={"classes": (), "text": text})})


class Spelt:
    """What the checkpoint of `speller` answers, in which `change` has its say."""

    def __init__(self, model, change):
        self.model, self.change = model, change

    @torch.no_grad()
    def __call__(self, case):
        arrays = (None if array is None else torch.from_numpy(array) for array in case[1:5])
        heard = self.model.receive(*arrays, answers=False)
        pieces, score = answer(self.model.head, heard.embedding)
        pieces, score = self.change(heard.embedding, pieces.clone(), score.clone())
        return Reception(heard.llr.numpy(), heard.indices_hat.numpy(), pieces=pieces.numpy(), log_prob=score.numpy())

    def compare(self, manifest, sent):
        return receiver_agreement(self.model, manifest, sent, {"onnx": self}, (6.0,), seed=0)


def first_ties(pieces):
    """Row and place of the first of the tied pieces in each row that has one."""
    tied = (pieces == TIED[0]) | (pieces == TIED[1])
    return [(row, int(tied[row].int().argmax())) for row in tied.any(dim=1).nonzero()[:, 0].tolist()]


def follow(head, embedding, pieces, row, place):
    """The text of a row spelt anew behind a place, by those before; a piece at a time."""
    for position in range(place + 1, POSITIONS):
        pieces[row, position] = head(embedding, told=pieces)[row, position].argmax()


def test_a_receiver_that_answers_other_pieces_with_the_same_scores_is_found(speller, sent):
    model, manifest = speller
    one_row = [True]

    def misspell(embedding, pieces, score):
        if len(pieces) > 5 and one_row:
            one_row.clear()
            pieces[5, 3:] = (pieces[5, 3:] + 1) % PIECES
        return pieces, score

    found = Spelt(model, misspell).compare(manifest, sent)
    # Of a text the first piece that is another is one decision, and the rest follows from it.
    assert found.findings == (
        f"onnx: answers differ in 1 of {len(sent.symbols) * POSITIONS} decisions (as received at 6 dB)",
    )
    assert found.near_ties == 0
    everywhere = Spelt(model, lambda embedding, pieces, score: (pieces.flip(dims=[1]), score)).compare(manifest, sent)
    assert everywhere.findings[0].endswith(f"and in {everywhere.cases - 1} more of {everywhere.cases} cases")


def test_pieces_behind_a_tie_follow_from_it_and_are_no_finding(speller, sent):
    model, manifest = speller
    left, changed = [1], []

    def take_the_other(embedding, pieces, score):
        for row, place in first_ties(pieces[:, :3])[: left[0]]:
            before = pieces[row].clone()
            pieces[row, place] = sum(TIED) - pieces[row, place]
            follow(model.head, embedding, pieces, row, place)
            changed.append(int((pieces[row, place + 1 :] != before[place + 1 :]).sum()))
            score[row] = score_of(model.head(embedding, told=pieces), pieces)[row]
            left[0] -= 1
        return pieces, score

    found = Spelt(model, take_the_other).compare(manifest, sent)
    assert (found.findings, found.near_ties) == ((), 1)
    assert changed[0] > 1, "the other text must be another behind the tie, or this shows nothing"
    left[0] = 1000
    found = Spelt(model, take_the_other).compare(manifest, sent)
    assert found.findings == (f"onnx: {found.near_ties} near-ties where {found.allowed} are allowed",)


def test_scores_of_a_text_are_held_to_the_checkpoints_up_to_the_first_piece_that_is_another(speller, sent):
    model, manifest = speller

    def half_a_nat_more(step):
        left = [1]

        def change(embedding, pieces, score):
            for row, place in first_ties(pieces[:, 1:-1])[: left[0]]:
                pieces[row, 1 + place] = sum(TIED) - pieces[row, 1 + place]
                score[row, 1 + place + step] += 0.5
                left[0] -= 1
            return pieces, score

        found = Spelt(model, change).compare(manifest, sent)
        assert (left[0], found.near_ties) == (0, 1)
        return found.findings

    (finding,) = half_a_nat_more(-1)
    assert finding.startswith("onnx: log_prob differs by up to 0.5, ")
    assert half_a_nat_more(1) == ()


def test_an_export_is_held_to_pieces_up_to_a_tie_and_to_the_scores_of_those(speller, digits_data):
    model, manifest = speller
    task, sample = load_task("digits"), Split({"image": digits_data.test.inputs["image"]}, digits_data.test.labels)
    ties = []

    def check(rows, step=1):
        """Some rows take the other of a tie, and all that follows is another text; or their scores are off."""

        def change(embedding, pieces, score):
            for row, place in first_ties(pieces[:, 1:-1])[:rows]:
                ties.append(row)
                pieces[row, 1 + place] = sum(TIED) - pieces[row, 1 + place]
                pieces[row, 2 + place :] = (pieces[row, 2 + place :] + 1) % PIECES
                score[row, 1 + place + step] += 0.5
            return pieces, score

        spelt = Spelt(model, change)
        link = SimpleNamespace(
            manifest=manifest, receiver=lambda y, no, mode, llr_in, side: spelt(Case("", y, no, llr_in.astype("f4")))
        )
        check_receiver(link, model, task, sample)

    check(0)
    check(1)
    assert len(ties) == 1
    with pytest.raises(BundleError, match=r"^log_prob of receiver\.onnx and torch differ by 5\.00e-01, more than"):
        check(1, step=-1)
    # More than one in a thousand is no tie.
    with pytest.raises(BundleError, match=r"^receiver\.onnx and torch answer the same in only 99\.\d+% of the places"):
        check(len(sample) * POSITIONS // 1000 + 1)
