"""Texts that are asked several questions: which words they hold of two lists, each question with tables of its own."""

import random

import numpy as np
import pytest
import torch

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import ArgumentError, RecipeError
from link.randomness import Draws
from train import checkpoint as checkpoints
from train.export import export
from train.finetune import Classifier, accuracy
from train.questions import QuestionHeads, sizes_of
from train.recipe_file import load_recipe
from train.run import train
from train.tasks import load_task, task_facts, task_of_manifest
from train.tasks.text_questions import Options, question_names

WORDS = {
    "mood": {"good": ["fine", "great", "warm"], "bad": ["dull", "cold", "grim"]},
    "place": {"rome": ["tiber", "forum"], "oslo": ["fjord", "snow"], "cairo": ["nile", "sand"]},
}
FILLING = ["the", "a", "film", "story", "with", "scenes", "of", "actors", "and", "music"]
SETTINGS = {
    "task_options.encoder": "scratch",
    "task_options.max_length": "12",
    "task_options.validation_rows": "30",
    "link.tokens": "6",
    "link.dim": "8",
    "optimizer.batch_size": "16",
    "optimizer.encoder_learning_rate": "1e-3",
    "schedule.epochs": "7",
    "schedule.warmup_epochs": "4",
    "schedule.alignment_start_epoch": "7",
    "channel.eval_snr_db": "[6.0]",
}


def rows(question, count, seed):
    """Texts with a word of each list; the question's own tells the label."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        label = draw.choice(list(WORDS[question]))
        words = [*draw.choices(FILLING, k=draw.randint(3, 6)), draw.choice(WORDS[question][label])]
        draw.shuffle(words)
        made.append((" ".join(words), label))
    return made


def write(folder, question, part, count, seed):
    (folder / question).mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{text}\t{label}\n" for text, label in rows(question, count, seed))
    (folder / question / f"{part}.tsv").write_text("text\tlabel\n" + lines, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for seed, (question, count) in enumerate((("mood", 240), ("place", 360))):
        write(folder, question, "train", count, seed)
        write(folder, question, "test", 40, 10 + seed)
    return folder


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("text-questions", SETTINGS)


def test_the_classes_of_all_questions_stand_side_by_side(task):
    assert task.classes == ("mood/bad", "mood/good", "place/cairo", "place/oslo", "place/rome")
    assert {name: question.classes for name, question in task.questions.items()} == {
        "mood": ("bad", "good"),
        "place": ("cairo", "oslo", "rome"),
    }
    head = task.head(6, 8)
    assert isinstance(head, QuestionHeads)
    assert sizes_of(head) == (2, 3)
    assert head(torch.zeros(7, 6, 8)).shape == (7, 5)


def test_of_small_tables_a_tenth_is_held_out_of_each_question(tmp_path):
    for question in WORDS:
        write(tmp_path, question, "train", 200, 3)
    recipe = load_recipe("text-questions", {"task_options.encoder": "scratch", "task_options.max_length": "12"})
    data = load_task(recipe.task, recipe.task_options, task_facts(recipe, tmp_path)).load(tmp_path)
    for held in (data.validation, data.test):
        assert 2 * 10 < len(held) <= 2 * 20


def test_all_rows_are_those_of_the_questions_one_after_another(task, folder):
    data = task.load(folder)
    mood, place = (question.load(folder) for question in task.questions.values())
    for part in ("train", "validation", "test"):
        whole, one, other = (getattr(found, part) for found in (data, mood, place))
        assert np.array_equal(whole.labels, np.concatenate([one.labels, other.labels + 2]))
        for name in ("input_ids", "attention_mask"):
            assert np.array_equal(whole.inputs[name], np.concatenate([one.inputs[name], other.inputs[name]]))
    texts, labels = task.test_texts(folder)
    assert texts[40:] == task.questions["place"].test_texts(folder)[0]
    assert np.array_equal(labels, data.test.labels)


def test_questions_are_chosen_and_ordered_by_their_option(folder):
    assert question_names(Options(questions=("place", "mood")), folder) == ("place", "mood")
    assert question_names(Options(), folder) == ("mood", "place")


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ('["mood", "mood"]', "task_options.questions must name each question once, got mood, mood"),
        ('["mood"]', "questions must name two or more; for mood alone there is text-classification"),
        ('["../mood", "place"]', "task_options.questions.0: String should match pattern"),
    ],
)
def test_wrong_questions_are_refused(folder, questions, message):
    wrong = load_recipe("text-questions", SETTINGS | {"task_options.questions": questions})
    with pytest.raises(RecipeError) as caught:
        task_facts(wrong, folder)
    assert message.removeprefix("task_options.questions ") in str(caught.value)


def test_a_folder_without_a_question_or_its_table_is_refused(recipe, folder, tmp_path):
    wrong = load_recipe("text-questions", SETTINGS | {"task_options.questions": '["mood", "colour"]'})
    with pytest.raises(ArgumentError, match="has no sub-folder colour; it has mood, place"):
        task_facts(wrong, folder)
    with pytest.raises(ArgumentError, match="must name a folder with a sub-folder of tables for each question"):
        task_facts(recipe, None)
    write(tmp_path, "mood", "train", 120, 0)
    with pytest.raises(ArgumentError, match="two questions or more, got mood"):
        task_facts(recipe, tmp_path)
    (tmp_path / "place").mkdir()
    with pytest.raises(ArgumentError, match=r"place has no train table: train\.tsv"):
        task_facts(recipe, tmp_path)
    (tmp_path / "a place").mkdir()
    with pytest.raises(ArgumentError, match="names of questions are of letters, digits, - and _, got a place, mood"):
        task_facts(recipe, tmp_path)


def test_both_questions_are_answered_over_one_bit_stream(run, folder):
    export(run, run / "bundle", data_folder=folder)
    for name in ("mood", "place"):
        link = Link(load_bundle(run / "bundle", name))
        described = checkpoints.task_of(checkpoints.read(run)).questions[name]
        texts, labels = described.test_texts(folder)
        sent = link.transmit({"text": list(texts)}, build_channel("awgn"), 12.0, Draws(1, np.arange(len(texts))))
        right = float((sent.decoded.decisions == labels).mean())
        assert right > np.bincount(labels).max() / len(labels) + 0.2
        assert task_of_manifest(link.manifest).classes == described.classes
        assert task_of_manifest(link.manifest, skip_bad=True).options.skip_bad_rows


def test_a_head_of_a_third_question_is_trained_on_what_both_send(run, folder, tmp_path):
    """Its tokenizer and encoder are the transmitter's, though its own texts would give others."""
    (tmp_path / "letters").mkdir()
    lines = "".join(f"{text}\t{'ab'[len(text) % 2]}\n" for text, _ in rows("mood", 200, 7))
    (tmp_path / "letters" / "train.tsv").write_text("text\tlabel\n" + lines, encoding="utf-8")
    settings = SETTINGS | {"task_options.test_rows": "30"}
    train(load_recipe("text", settings), tmp_path / "run", data_folder=tmp_path / "letters", transmitter=run)
    kept, found = checkpoints.read(run), checkpoints.read(tmp_path / "run")
    assert found.facts["tokenizer"] == kept.facts["tokenizer"]
    assert found.facts["classes"] == ["a", "b"]
    longer = load_recipe("text", settings | {"task_options.max_length": "16"})
    with pytest.raises(RecipeError, match=r"has task_options.max_length 12, the recipe 16: set the same"):
        train(longer, tmp_path / "other", data_folder=tmp_path / "letters", transmitter=run)


def test_fine_tuning_asks_each_row_its_own_question(task, folder):
    data = task.load(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(task.encoder(1, 3), len(task.classes), (2, 3)).eval()
    # By far the likeliest class of all is one of the second question: the rows of the first are decided without it.
    with torch.no_grad():
        model.linear.bias[:] = torch.tensor([0.0, 50.0, 100.0, 0.0, 0.0])
    labels = data.test.labels
    assert accuracy(model, data.test) == pytest.approx(float(np.isin(labels, [1, 2]).mean()))


def test_each_question_leaves_out_its_own_bad_rows(tmp_path, caplog):
    for question in WORDS:
        for part, count in (("train", 40), ("test", 6)):
            write(tmp_path, question, part, count, len(question) + count)
    recipe = load_recipe("text-questions", SETTINGS | {"task_options.validation_rows": "5"})
    facts = task_facts(recipe, tmp_path)
    with (tmp_path / "place" / "test.tsv").open("a", encoding="utf-8") as file:
        file.write("\trome\na film of actors\tlima\n")
    with pytest.raises(ArgumentError, match=r"place/test\.tsv: line 8: the text is empty"):
        load_task(recipe.task, recipe.task_options, facts).load(tmp_path)
    task = load_task(recipe.task, {**recipe.task_options, "skip_bad_rows": True}, facts)
    assert len(task.load(tmp_path).test) == len(task.test_texts(tmp_path)[0]) == 12
    assert len(task.questions["place"].test_texts(tmp_path)[0]) == 6
    assert "place/test.tsv: 2 of 8 lines are left out; the first, line 8: the text is empty" in caplog.text
    assert "mood" not in caplog.text
