"""How much of a second task one receiver's decision tells: what a transmitter that sends only its label would leave of it.

    python examples/label_alone.py BUNDLE --receiver sentiment --train intent/train.tsv --test intent/test.tsv

The receiver decides each text without noise; the answer to the second task is the label most frequent among the training
texts that were decided so. Nothing that is told the decision alone does better on those.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from link.bundle import load_bundle
from link.chain import Link
from link.texts import read_texts

ROWS: Final = 256
NO: Final = 1e-6


def main() -> None:
    """Print the accuracy on the test texts, and beside it that of the one most frequent label."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--receiver", help="whose decision is sent; the first where absent")
    parser.add_argument("--train", type=Path, required=True, help="texts and labels of the second task")
    parser.add_argument("--test", type=Path, required=True)
    arguments = parser.parse_args()
    link = Link(load_bundle(arguments.bundle, arguments.receiver))
    train, test = (read_texts(file) for file in (arguments.train, arguments.test))
    if train.labels is None or test.labels is None:
        parser.error("both tables need labels")
    told = decide(link, train.texts)
    answers = {
        decision: Counter(label for label, own in zip(train.labels, told, strict=True) if own == decision).most_common(
            1
        )
        for decision in set(told)
    }
    common = Counter(train.labels).most_common(1)
    given = [(answers.get(decision) or common)[0][0] for decision in decide(link, test.texts)]
    right = sum(answer == label for answer, label in zip(given, test.labels, strict=True))
    chance = sum(common[0][0] == label for label in test.labels)
    rows = len(test.labels)
    print(f"{right}/{rows} = {100 * right / rows:.2f} % from the label alone")
    print(f"{chance}/{rows} = {100 * chance / rows:.2f} % from nothing")


def decide(link: Link, texts: tuple[str, ...]) -> list[int]:
    """The receiver's decision on each text, without noise."""
    decisions: list[int] = []
    for first in range(0, len(texts), ROWS):
        sent = link.transmitter({"text": np.array(texts[first : first + ROWS], dtype=object)})
        decisions += link.receiver(sent.symbols, np.full(sent.symbols.shape[:2], NO), sent.mode).decisions.tolist()
    return decisions


if __name__ == "__main__":
    main()
