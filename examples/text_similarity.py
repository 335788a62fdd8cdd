"""How alike in meaning the sentences sent and those answered are: the cosine of a sentence encoder, over SNR.

    python examples/text_similarity.py BUNDLE SENTENCES --encoder sentence-transformers/all-MiniLM-L6-v2 --snr 0:12:3

SENTENCES is a file, one a line, compressed by gzip or not. The encoder is any of transformers, by name or folder; a
sentence is the mean of its states, normalised, as all-MiniLM has it. BLEU counts the words that are there, this also what
another word would mean: beside it stands the similarity of each sentence to the answer to another one, which is what chance
would reach.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from link.bundle import load_bundle
from link.chain import Link
from link.channel import build_channel
from link.errors import HardpathError
from link.grid import parse_grid
from link.randomness import Draws
from link.sentences import read_sentences

ROWS: Final = 128


def main() -> None:
    """Print a table in Markdown, a row an SNR."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--encoder", required=True, help="of transformers, by name or folder")
    parser.add_argument("--snr", default="0:12:3", help="Es/N0 in dB, first:last:step or points with commas between")
    parser.add_argument("--channel", default="awgn")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        link, channel, grid = Link(load_bundle(given.bundle)), build_channel(given.channel), parse_grid(given.snr)
        task = link.manifest.task
        if task.text is None or link.manifest.input_names != ("text",):
            sys.exit(
                f"text_similarity: {given.bundle} does not answer sentences with sentences: its task is {task.name}"
            )
        texts = read_sentences(given.sentences).texts
        if len(texts) < 2:
            sys.exit(f"text_similarity: {given.sentences} must hold two sentences or more, lest chance be none")
        encoder = Encoder(given.encoder)
        sent = encoder(texts)
        print("| Es/N0, dB | similarity (95 %) | to another's | the same |\n|---|---|---|---|")
        for snr_db in grid:
            answers: list[str] = []
            for first in range(0, len(texts), ROWS):
                rows = np.arange(first, min(first + ROWS, len(texts)))
                inputs = {"text": np.array([texts[row] for row in rows], dtype=object)}
                result = link.transmit(inputs, channel, snr_db, Draws(given.seed, rows))
                answers += link.receiver.texts(result.decoded.decisions)
            found = encoder(answers)
            alike, other = (sent * found).sum(axis=1), (sent * np.roll(found, 1, axis=0)).sum(axis=1)
            spread = 1.96 * alike.std(ddof=1) / np.sqrt(len(alike))
            same = np.mean([answer == text for answer, text in zip(answers, texts, strict=True)])
            low, high = alike.mean() - spread, alike.mean() + spread
            print(
                f"| {snr_db:g} | {alike.mean():.3f} [{low:.3f}, {high:.3f}] | {other.mean():.3f} | {100 * same:.1f} % |",
                flush=True,
            )
    except HardpathError as error:
        sys.exit(f"text_similarity: {error}")
    except KeyboardInterrupt:
        sys.exit("text_similarity: interrupted")


class Encoder:
    """Sentences to directions (n, H): the mean of an encoder's states, normalised.

    Parameters
    ----------
    name : str
        Of transformers, or a folder.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._model: Any = AutoModel.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            sys.exit(f"text_similarity: {name} is no encoder that transformers knows: {str(error).splitlines()[0]}")

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        parts = []
        for first in range(0, len(texts), ROWS):
            batch = self._tokenizer(
                list(texts[first : first + ROWS]), padding=True, truncation=True, return_tensors="pt"
            )
            states = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(states.dtype)
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1.0)  # of an answer that says nothing: 0
            parts.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
        return np.concatenate(parts)


if __name__ == "__main__":
    main()
