import numpy as np
import pytest

from link.errors import ArgumentError
from link.manifest import TaskSpec, TextSpec
from link.tokenizer import Tokenizer
from link.truth import UNJUDGED, check_labels, read_truth, up_to_the_end

CLASSES = TaskSpec(name="shapes", classes=("disc", "ring"))
TEXT = TaskSpec(name="sentences", classes=(), text=TextSpec(positions=3, pieces=5, end_id=1))


def test_labels_of_classes_are_one_a_sample():
    assert check_labels("labels", [0, 1], 2, CLASSES).tolist() == [0, 1]
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 2\), got \[0, 2\]"):
        check_labels("labels", [0, 2], 2, CLASSES)
    with pytest.raises(ArgumentError, match="labels"):
        check_labels("labels", [[0, 1]], 1, CLASSES)


def test_labels_of_texts_are_a_piece_a_position_and_none_where_none_is_judged():
    assert check_labels("labels", [[4, 1, UNJUDGED]], 1, TEXT).dtype == np.int64
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 5\), or -1, got \[-1, 5\]"):
        check_labels("labels", [[5, 1, UNJUDGED]], 1, TEXT)
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 5\), or -1"):
        check_labels("labels", [[-2, 1, 0]], 1, TEXT)
    with pytest.raises(ArgumentError, match="labels"):
        check_labels("labels", [[4, 1]], 1, TEXT)
    with pytest.raises(ArgumentError, match=r"labels\[1\] has no position that is judged"):
        check_labels("labels", [[4, 1, 0], [UNJUDGED] * 3], 2, TEXT)


def test_an_answer_is_a_class_or_a_text():
    assert (CLASSES.positions, CLASSES.choices) == (0, 2)
    assert (TEXT.positions, TEXT.choices) == (3, 5)
    with pytest.raises(ValueError, match="a text or one of 2 classes, not both"):
        TaskSpec(name="both", classes=("a", "b"), text=TEXT.text)
    with pytest.raises(ValueError, match="end_id must be below 5, got 5"):
        TaskSpec(name="sentences", classes=(), text=TextSpec(positions=3, pieces=5, end_id=5))


def test_texts_are_judged_at_their_pieces_and_kept_as_they_are(tokenizer_file):
    tokenizer = Tokenizer(tokenizer_file, length=6, pad_id=0, pad_token="[PAD]")
    task = TaskSpec(name="words", classes=(), text=TextSpec(positions=6, pieces=10, end_id=3))
    texts = ["a fine film", "one dull film and a fine one"]
    for given in (texts, np.array(texts, dtype=object)):
        truth = read_truth("labels", given, 2, task, tokenizer)
        spelt = tokenizer(texts)
        assert np.array_equal(truth.labels, np.where(spelt.attention_mask == 1, spelt.input_ids, UNJUDGED))
        assert truth.texts == tuple(texts)  # the second is cut in its labels alone
    pieces = truth.labels
    assert read_truth("labels", pieces, 2, task, tokenizer).texts is None
    with pytest.raises(ArgumentError, match="labels must hold 3 texts, got 2"):
        read_truth("labels", texts, 3, task, tokenizer)
    with pytest.raises(ArgumentError, match=r"labels\[1\] is empty"):
        read_truth("labels", ["a", " "], 2, task, tokenizer)


def test_an_answer_is_a_label_up_to_its_end():
    answered = np.array([[4, 1, 2], [1, 4, 1], [4, 4, 4]])
    assert up_to_the_end(answered, TEXT).tolist() == [[4, 1, UNJUDGED], [1, UNJUDGED, UNJUDGED], [4, 4, 4]]
