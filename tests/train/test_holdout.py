import random

import numpy as np

from train.holdout import hold_out, part_of


def phrase_of(short, long):
    """By definition: the words of one follow one another in the other."""
    short, long = short.lower().split(), long.lower().split()
    return bool(short) and any(long[at : at + len(short)] == short for at in range(len(long) - len(short) + 1))


def made(count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(["a", "b", "c", "D", "e"], k=draw.randint(1, 6))) for _ in range(count)]


def test_parts_are_those_that_the_definition_names():
    texts, others = made(200, 0), made(60, 1)
    assert part_of(texts, others).tolist() == [any(phrase_of(text, other) for other in others) for text in texts]
    longer = [
        any(phrase_of(text, other) and len(other.split()) > len(text.split()) for other in others) for text in texts
    ]
    assert part_of(texts, others, longer=True).tolist() == longer


def test_no_training_row_is_part_of_a_held_out_one():
    texts = made(300, 2)
    parts = hold_out(texts, 20, seed=5)
    assert len(parts.held) == 20
    assert not any(phrase_of(texts[row], texts[held]) for row in parts.train for held in parts.held)
    # Nothing else is left out.
    left_out = set(range(len(texts))) - set(parts.train.tolist())
    assert all(any(phrase_of(texts[row], texts[held]) for held in parts.held) for row in left_out)


def test_held_out_rows_are_part_of_no_longer_row_and_differ():
    texts = made(300, 3)
    held = [texts[row] for row in hold_out(texts, 20, seed=5).held]
    assert not part_of(held, texts, longer=True).any()
    assert len({" ".join(text.lower().split()) for text in held}) == len(held)


def test_without_phrases_it_is_a_random_split_that_the_seed_tells():
    texts = [f"word{number} tail{number}" for number in range(100)]
    first, again, other = (hold_out(texts, 30, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.held, again.held)
    assert not np.array_equal(first.held, other.held)
    assert len(first.train) == 70
