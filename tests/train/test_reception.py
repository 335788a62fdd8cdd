"""The cases that receivers are compared on, and what they are held to."""

import numpy as np
import pytest
import torch

from link.manifest import Manifest
from link.runtime import Reception
from train.checkpoint import load
from train.reception import receiver_agreement
from train.receptions import channel_cases

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
