"""Sentences of a small grammar, rebuilt over the link: from plain files to a bundle that is swept, verified and served."""

import itertools

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import Awgn
from link.errors import ArgumentError, RecipeError
from link.grid import SweepSpec
from link.randomness import Draws, permutation
from link.sequential import Verdict
from link.sweep import sweep
from link.text_quality import TextStatistics
from link.truth import UNJUDGED
from train import checkpoint as checkpoints
from train.evaluate import evaluate
from train.export import export
from train.recipe_file import parse_recipe
from train.tasks import load_task, task_facts
from train.tasks.text_reconstruction import HOLDOUT_SEED, Options, read_texts
from train.verify import VerifySettings, verify

WHO = ["a man", "two dogs", "a girl", "some people", "the old woman", "a boy"]
DOES = ["runs", "sits", "is sleeping", "are playing", "stands alone"]
WHERE = ["", "in the park", "on a wall", "near the red house", "by the sea"]
SENTENCES = [" ".join(f"{a} {b} {c}".split()) + "." for a, b, c in itertools.product(WHO, DOES, WHERE)]
OPTIONS = {
    "max_length": 12,
    "tokens_a_piece": 2,
    "vocabulary": 340,
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "decoder": "parallel",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    order = permutation(5, len(SENTENCES))
    for part, chosen in (("train", order[30:]), ("val", order[:15]), ("test", order[15:30])):
        (folder / f"{part}.txt").write_text("".join(SENTENCES[row] + "\n" for row in chosen), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe():
    return parse_recipe(
        {
            "name": "few-sentences",
            "task": "text-reconstruction",
            "task_options": OPTIONS,
            "link": {"lengths": [8, 12, 16, 24], "codewords": 32, "dim": 8, "order": 4},
            "schedule": {"epochs": 12, "warmup_epochs": 3, "alignment_start_epoch": 9},
            "optimizer": {"batch_size": 8, "learning_rate": 5e-3},
            "channel": {"train_snr_db": [6.0, 15.0], "eval_snr_db": [9.0]},
            "header": {"repeats": 1, "frame_samples": 8},
        },
        "the test's recipe",
    )


@pytest.fixture(scope="module")
def data(task, folder):
    return task.load(folder)


@pytest.fixture(scope="module")
def bundle(run, folder, export_run):
    return load_bundle(export_run(run, data_folder=folder))


@pytest.fixture(scope="module")
def link(bundle):
    return Link(bundle)


def test_a_sentence_is_spelt_in_pieces_with_an_end_and_judged_at_each(task, data):
    ids, mask, labels = data.test.inputs["input_ids"], data.test.inputs["attention_mask"], data.test.labels
    assert ids.shape == labels.shape == (15, OPTIONS["max_length"])
    assert np.array_equal(labels, np.where(mask == 1, ids, UNJUDGED))
    assert (labels[np.arange(15), mask.sum(axis=1) - 1] == task.text.end_id).all()
    assert data.test.decisions == mask.sum()


def test_pieces_spell_whatever_is_utf_8(task):
    texts = ["Một người đàn ông.", "日本 🙂 [END] [PAD]", "  two  spaces"]
    spelt = load_task("text-reconstruction", OPTIONS | {"max_length": 64}, {"tokenizer": task.tokenizer_json}).tokenizer
    assert spelt.texts(spelt(texts).input_ids, task.text.end_id) == texts


def test_the_same_sentences_give_the_same_pieces(recipe, folder, task):
    assert task_facts(recipe, folder)["tokenizer"] == task.tokenizer_json


def test_no_part_has_a_sentence_of_another(folder, tmp_path):
    for part, lines in (("train", "a\nb\nc\nd\n"), ("val", "b\nc\ne\n"), ("test", "c\nf\n")):
        (tmp_path / f"{part}.txt").write_text(lines, encoding="utf-8")
    assert read_texts(Options(), tmp_path) == (("a", "d"), ("b", "e"), ("c", "f"))


def test_a_part_that_is_absent_is_held_out(tmp_path, caplog):
    (tmp_path / "train.txt").write_text("".join(f"sentence {row}\n" for row in range(50)), encoding="utf-8")
    texts = read_texts(Options(), tmp_path)
    assert [len(part) for part in texts] == [41, 4, 5]
    assert len(set().union(*texts)) == 50
    assert set(texts.test) == {f"sentence {row}" for row in permutation(HOLDOUT_SEED, 50)[:5]}
    assert "5 of 50 sentences are held out for test" in caplog.text


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({}, "has no "),
        ({"train.txt": b"a\n\nb\n"}, "line 2: is empty"),
        ({"train.txt": b"a\n\xff\n"}, "line 2: "),
        ({"train.txt": b"a\n"}, "too few sentences to hold any out"),
        ({"train.txt": b"a\nb\n", "val.txt": b"a\nb\n", "test.txt": b"c\n"}, "train.txt stands in another part"),
        ({"train.txt": b"a\nb\n", "val.txt": b"c\n", "test.txt": b"c\n"}, "the validation part stands in another"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_a_line(tmp_path, files, text):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ArgumentError, match=text):
        read_texts(Options(), tmp_path)
    with pytest.raises(ArgumentError, match=r"must name a folder with train\.txt"):
        read_texts(Options(), None)


def test_bad_lines_are_counted_and_left_out_when_told_to(tmp_path, caplog):
    (tmp_path / "train.txt").write_bytes(b"a\n\nb\n\xff\nc\nd\n")
    texts = read_texts(Options(skip_bad_lines=True), tmp_path)
    assert set().union(*texts) == set("abcd")
    assert "train.txt: 2 of 6 lines are left out; the first, line 2: is empty" in caplog.text


def test_a_sentence_that_is_too_long_is_cut_and_told(task, tmp_path, caplog):
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.txt").write_text(f"{part} " + "two dogs " * 20 + "\n", encoding="utf-8")
    rows = task.load(tmp_path).test.labels
    assert rows[0, -1] == task.text.end_id
    assert "test: 1 of 1 sentences have more than 12 pieces and are cut there" in caplog.text


@pytest.mark.parametrize("tokens", [22, 30, 36])
def test_lengths_that_are_not_those_of_the_longest_sentence_are_refused(task, tokens):
    for make in (task.encoder, task.head):
        with pytest.raises(RecipeError, match=rf"link\.lengths must end at 24, .* got {tokens}"):
            make(tokens, 8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"heads": 3}, "width must be a multiple of heads, got 16 and 3"),
        ({"beam": 4}, "beam must be 1 where the decoder is parallel, got 4"),
    ],
)
def test_options_that_do_not_go_together_are_refused(recipe, folder, options, text):
    wrong = recipe.model_copy(update={"task_options": OPTIONS | options})
    with pytest.raises(RecipeError, match=rf"^task_options: {text}$"):
        task_facts(wrong, folder)


def test_what_lies_behind_a_sentence_changes_nothing(task, data):
    torch.manual_seed(1)
    encoder, decoder = task.encoder(24, 8).eval(), task.head(24, 8).eval()
    ids, mask = (torch.from_numpy(data.test.inputs[name]) for name in ("input_ids", "attention_mask"))
    tokens = encoder(ids, mask)
    own = mask.sum(dim=1) - 1  # the end takes no tokens
    short = int(own.argmin())
    assert own[short] < own.max()
    assert not tokens[short, 2 * own[short] :].any()
    assert tokens[short, : 2 * own[short]].any(dim=-1).all()
    alone = encoder(ids[short : short + 1], mask[short : short + 1])
    scores = decoder(tokens)
    assert torch.allclose(alone[0], tokens[short], atol=1e-5)
    assert torch.allclose(decoder(alone)[0], scores[short], atol=1e-5)
    assert (scores[short, own[short] :].argmax(dim=-1) == task.text.end_id).all()


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_a_head_that_decides_is_as_sure_of_each_piece_as_its_scores_say(task, data, beam):
    torch.manual_seed(1)
    options = OPTIONS | {"decoder": "autoregressive", "causal_layers": 1, "beam": beam}
    told = load_task("text-reconstruction", options, {"tokenizer": task.tokenizer_json})
    ids, mask = (torch.from_numpy(data.test.inputs[name]) for name in ("input_ids", "attention_mask"))
    tokens, head = told.encoder(24, 8).eval()(ids, mask), told.head(24, 8).eval()
    head.unsent.data.zero_()[task.text.end_id] = 1.0  # sure enough to answer it, and not of much else
    found = head.decide(tokens)
    sent = torch.nn.functional.pad(mask[:, 1:], (0, 1)) == 1  # the end takes no tokens
    first_unsent = sent.sum(dim=1, keepdim=True)
    assert (found.decisions[~sent] == task.text.end_id).all()
    expected = torch.tensor([1.0] + [0.0] * (OPTIONS["vocabulary"] - 1)).log_softmax(dim=0)[0]
    assert torch.allclose(found.score[~sent], expected)
    scores = head(tokens, told=found.decisions).log_softmax(dim=-1)
    own = scores.gather(-1, found.decisions[..., None])[..., 0]
    ended = (found.decisions == task.text.end_id).int()
    before = (ended.cumsum(dim=1) - ended == 0) & sent
    assert before.sum() > len(tokens)
    assert torch.allclose(found.score[before], own[before], atol=1e-5)
    assert torch.allclose(found.score.gather(1, first_unsent), own.gather(1, first_unsent), atol=1e-5)


def test_the_rate_follows_the_length(link, data):
    sent = link.transmitter(data.test.inputs)
    own = 2 * (data.test.inputs["attention_mask"].sum(axis=1) - 1)  # the end takes none
    lengths = np.array([mode.tokens for mode in link.manifest.modes])
    assert np.array_equal(lengths[sent.mode], [min(length for length in lengths if length >= count) for count in own])
    assert len(set(sent.num_symbols)) > 1


def test_a_trained_link_rebuilds_sentences_that_it_never_saw(task, link, data, folder):
    texts, labels = task.test_texts(folder)
    result = sweep(link, data.test.inputs, labels, SweepSpec(snr_db=(0.0, 15.0), draws=3))
    low, high = result.points
    for point in result.points:
        assert point.decisions == 3 * data.test.decisions
        assert point.text.words == 3 * sum(len(text.split()) for text in texts)
        assert point.text.symbols_per_word == pytest.approx(point.symbols / point.text.words)
    assert high.text.bleu_1.value > 0.6 > low.text.bleu_1.value
    assert high.accuracy.value > low.accuracy.value
    received = link.transmit({"text": list(texts)}, Awgn(), 15.0, Draws(0, np.arange(len(texts)), 0))
    answers = link.receiver.texts(received.decoded.decisions)
    alone = sweep(link, data.test.inputs, labels, SweepSpec(snr_db=(15.0,))).points[0].text
    assert TextStatistics.of(answers, list(texts)).bleu(2) == pytest.approx(alone.bleu_2.value)


def test_a_text_that_was_cut_is_held_to_the_whole_of_it(link):
    whole = "two dogs " * 20
    (point,) = sweep(link, {"text": [whole]}, [whole], SweepSpec(snr_db=(40.0,), draws=2)).points
    assert (point.text.words, point.text.exact) == (80, 0)
    assert point.decisions == 2 * OPTIONS["max_length"]


def test_any_number_of_workers_and_chunks_gives_the_same_sentences(link, data, tmp_path):
    spec = SweepSpec(snr_db=(6.0,), draws=2)
    one = sweep(link, data.test.inputs, data.test.labels, spec, out=tmp_path / "out")
    assert sweep(link, data.test.inputs, data.test.labels, spec, workers=2).points == one.points
    assert sweep(link, data.test.inputs, data.test.labels, spec, chunk_rows=8).points == one.points
    # What was found is read again.
    assert sweep(link, data.test.inputs, data.test.labels, spec, out=tmp_path / "out").points == one.points


def test_the_bundle_does_what_its_checkpoint_does(bundle, run, data):
    found = verify(bundle, run, data.test.inputs, data.test.labels, VerifySettings(snr_db=(9.0,), margin=0.05))
    assert found.verdict is Verdict.EQUIVALENT, found.summary
    assert found.receiver.receptions > 0


def test_a_receiver_that_names_other_pieces_is_found(bundle, run, data, monkeypatch):
    from link.runtime import Receiver

    run_graph = Receiver.run
    monkeypatch.setattr(
        Receiver, "run", lambda self, tensors: (found := run_graph(self, tensors))._replace(pieces=found.pieces ^ 1)
    )
    found = verify(bundle, run, data.test.inputs, data.test.labels, VerifySettings(snr_db=(9.0,)))
    assert found.verdict is Verdict.DIFFERENT
    assert any("answers differ" in text for text in found.receiver.findings)


def test_the_manifest_says_what_is_answered_and_a_checkpoint_is_held_to_it(bundle, task, run):
    manifest = bundle.manifest
    assert manifest.task.text == task.text
    assert manifest.task.classes == ()
    assert [tensor.name for tensor in manifest.receiver.outputs] == ["llr", "indices_hat", "pieces", "log_prob"]
    assert manifest.tokenizer.length == OPTIONS["max_length"]
    assert checkpoints.task_of(checkpoints.load(run)[0]).text == task.text


@pytest.mark.parametrize(
    "decoder",
    [
        {"decoder": "viterbi", "candidates": 4, "pair_rank": 4},
        {"decoder": "autoregressive", "causal_layers": 1},
        {"decoder": "autoregressive", "causal_layers": 1, "beam": 3},
    ],
    ids=["viterbi", "greedy", "beam"],
)
def test_a_receiver_that_decides_otherwise_joins_the_bundle(decoder, recipe, run, folder, data, train_run, tmp_path):
    options = OPTIONS | decoder
    schedule = recipe.schedule.model_copy(update={"epochs": 3, "warmup_epochs": 1, "alignment_start_epoch": 2})
    other = recipe.model_copy(update={"name": "beside", "task_options": options, "schedule": schedule})
    beside = train_run(other, data_folder=folder, transmitter=run)
    export(run, tmp_path / "bundle", data_folder=folder, also={"beam": beside})
    found = load_bundle(tmp_path / "bundle", "beam")
    result = verify(found, beside, data.test.inputs, data.test.labels, VerifySettings(snr_db=(12.0,), margin=0.1))
    assert result.verdict is Verdict.EQUIVALENT, result.summary
    (point,) = sweep(Link(found), data.test.inputs, data.test.labels, SweepSpec(snr_db=(15.0,), draws=2)).points
    assert point.accuracy.value > 0.3


def test_with_the_reception_of_another_sentence_the_answers_say_nothing_of_ones_own(link, data):
    rows = len(data.train)
    labels = data.train.labels
    result = link.transmit(data.train.inputs, Awgn(), 12.0, Draws(3, np.arange(rows)))
    order = permutation(1, rows)
    other = np.empty(rows, dtype=np.int64)
    other[order] = np.roll(order, 1)
    received = result.received
    answers = link.receiver(received.y[other], received.no[other], result.header.mode[other]).decisions

    def agreement(of_labels):
        return int(((answers == of_labels) & (of_labels != UNJUDGED)).sum())

    assert agreement(labels[other]) > 0.5 * (labels != UNJUDGED).sum()
    generator = np.random.default_rng(7)
    reached = sum(agreement(labels[generator.permutation(rows)]) >= agreement(labels) for _ in range(10_000))
    assert (1 + reached) / 10_001 >= 1e-4
    # With its own reception it says much.
    own = result.decoded.decisions
    assert ((own == labels) & (labels != UNJUDGED)).sum() > agreement(labels[other]) - 1


def test_a_head_that_is_told_is_measured_by_what_it_decides_and_its_loss_by_what_training_tells(folder, recipe, data):
    options = OPTIONS | {"decoder": "autoregressive", "causal_layers": 1}
    told = recipe.model_copy(update={"task_options": options})
    task = load_task("text-reconstruction", options, task_facts(told, folder))
    torch.manual_seed(0)
    model = checkpoints.build_transceiver(told, task).eval()
    model.quantizer.codebook.data.normal_()
    found = evaluate(model, task, data.test, told.channel, temperature=1.0, seed=1, header=told.header)
    free, asked_with = model.head.forward, []

    def forward(embedding, told=None):
        asked_with.append(told is not None)
        return free(embedding, told)

    model.head.forward = forward
    assert evaluate(model, task, data.test, told.channel, temperature=1.0, seed=1, header=told.header) == found
    assert asked_with.count(True) == asked_with.count(False) > 0
    model.head.forward = lambda embedding, told=None: free(embedding)  # told nothing, it follows its own pieces
    untold = evaluate(model, task, data.test, told.channel, temperature=1.0, seed=1, header=told.header)
    assert untold.hard == found.hard
    assert untold.hard_loss != found.hard_loss
