"""Rows that are held out of a training set without leaving their phrases behind.

Some data sets (SST-2 in GLUE) train on phrases of sentences. A random split would validate on sentences whose parts were
trained on, so rows are held out by whole sentence: the held-out rows are *maximal* (part of no longer row), and each row
that is part of a held-out one leaves the training set too. Where no row is part of another this is an ordinary random split.

A row is part of another where its words follow one another in it; case and the amount of white space do not matter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.randomness import permutation


class HeldOut(NamedTuple):
    """Row numbers, ascending.

    Attributes
    ----------
    train : (n,) int64
        Neither held out nor part of a row that is.
    held : (m,) int64
    """

    train: NDArray[np.int64]
    held: NDArray[np.int64]


def hold_out(texts: Sequence[str], rows: int, seed: int) -> HeldOut:
    """Hold `rows` maximal rows out of `texts`, chosen at random, and all that is part of them.

    Examples
    --------
    >>> texts = ["a fine film", "fine film", "Fine  film"]
    >>> [numbers.tolist() for numbers in hold_out([*texts, "dull"], 1, seed=0)]
    [[0, 1, 2], [3]]
    >>> [numbers.tolist() for numbers in hold_out([*texts, "dull"], 1, seed=2)]
    [[3], [0]]
    """
    maximal = ~part_of(texts, texts, longer=True)
    maximal &= _first_of_equals(texts)
    order = permutation(seed, len(texts))
    held = np.sort(order[maximal[order]][:rows])
    left = ~part_of(texts, [texts[row] for row in held])
    return HeldOut(np.flatnonzero(left), held)


def part_of(texts: Sequence[str], others: Sequence[str], *, longer: bool = False) -> NDArray[np.bool_]:
    """Whether each text is part of one of the others, (n,); with `longer`, of one that has more words.

    Examples
    --------
    >>> part_of(["Fine film", "film", "a"], ["a fine  film"]).tolist()
    [True, True, True]
    >>> part_of(["fine film", "ine"], ["fine film"], longer=True).tolist()
    [False, False]
    """
    words = [text.lower().split() for text in others]
    spaced = [f" {' '.join(row)} " for row in words]
    frequency = Counter(word for row in words for word in set(row))
    holders: dict[str, list[int]] = defaultdict(list)
    # The longest first: they hold a phrase most often, and one is enough.
    for number in sorted(range(len(words)), key=lambda number: -len(words[number])):
        for word in set(words[number]):
            holders[word].append(number)
    found = np.zeros(len(texts), dtype=np.bool_)
    for number, text in enumerate(texts):
        row = text.lower().split()
        phrase = f" {' '.join(row)} "
        rarest = min(row, key=lambda word: frequency[word], default="")
        found[number] = any(
            phrase in spaced[other] and (len(words[other]) > len(row) or not longer)
            for other in holders.get(rarest, ())
        )
    return found


def _first_of_equals(texts: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each text is the first of those with the same words; texts without words are not."""
    seen = {""}
    first = np.zeros(len(texts), dtype=np.bool_)
    for number, text in enumerate(texts):
        key = " ".join(text.lower().split())
        first[number] = key not in seen
        seen.add(key)
    return first
