"""What separate coding of sentences reaches at so many symbols a word, and UTF-8 without a code: a table over SNR.

    python examples/text_baselines.py FOLDER --language en --test test_2016_flickr --symbols-a-word 8 --snr 0:12:3

FOLDER holds train.txt and test.txt, or train.en.gz and so on (link.sentences). The source codes are trained on the training
sentences; the test sentences are sent. With `--shares 1,0.75,0.5` a sentence may be cut to such a share of its words where
not all of its bits arrive: whichever gives the higher BLEU-1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from link.errors import ArgumentError, HardpathError
from link.grid import parse_grid
from link.sentences import read_sentence_parts
from link.sweep import SweepSpec
from link.text_baseline import FRAME_SENTENCES, TextPoint, sweep_coded_text, sweep_uncoded_text
from link.text_source import Deflate, SourceCode, WordCode

HEAD: Final = (
    "| scheme | Es/N0, dB | QAM | words sent | symbols a word | bits a word | BLEU-1 (95 %) | -2 | -3 | -4 | words right "
    "| exact | frames lost |"
)


def main() -> None:
    """Print a table in Markdown, scheme by scheme."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of sentences")
    parser.add_argument("--language", help="last part of the files' names, as en of train.en.gz")
    parser.add_argument("--test", help="name of the test file, where there are several")
    parser.add_argument("--symbols-a-word", type=float, required=True)
    parser.add_argument("--snr", default="0:12:3", help="Es/N0 in dB, first:last:step or points with commas between")
    parser.add_argument("--channel", default="awgn")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shares", type=numbers, default=(1.0,), help="shares of a sentence's words to choose from")
    parser.add_argument("--frame-sentences", type=int, default=FRAME_SENTENCES)
    given = parser.parse_args()
    try:
        parts = read_sentence_parts(given.data, language=given.language, test=given.test)
        if parts.test is None:
            parser.error(f"{given.data} has no test file")
        spec = SweepSpec(snr_db=parse_grid(given.snr), channel=given.channel, draws=given.draws, seed=given.seed)
        print(HEAD)
        print("|---" * HEAD.count(" | ") + "|---|")
        training, texts = parts.train.texts, parts.test.texts
        for source in (WordCode(training), WordCode(training, 0), Deflate(training)):
            send(source, texts, spec, given)
        for order in (4, 16):
            show("UTF-8, uncoded", sweep_uncoded_text(texts, spec, order=order))
    except HardpathError as error:
        sys.exit(f"text_baselines: {error}")


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between."""
    return tuple(map(float, text.split(",")))


def send(source: SourceCode, texts: tuple[str, ...], spec: SweepSpec, given: argparse.Namespace) -> None:
    """Print the rows of a source code; a line to stderr where the budget is too small for it at any rate."""
    try:
        points = sweep_coded_text(
            source,
            texts,
            spec,
            symbols_per_word=given.symbols_a_word,
            shares=given.shares,
            frame_sentences=given.frame_sentences,
        )
    except ArgumentError as error:
        if error.field != "symbols_per_word":
            raise
        print(f"text_baselines: {error}", file=sys.stderr)
    else:
        show(source.name, points)


def show(scheme: str, points: tuple[TextPoint, ...]) -> None:
    """Print one row a point."""
    for point in points:
        first, *longer = point.bleu
        cells = [
            scheme,
            f"{point.snr_db:g}",
            str(point.order),
            f"{100 * point.share:g} %",
            f"{point.symbols_per_word:.2f}",
            f"{point.bits_per_word:.2f}",
            f"{first.value:.3f} ({first.low:.3f} to {first.high:.3f})",
            *(f"{bleu.value:.3f}" for bleu in longer),
            f"{100 * point.word_accuracy.value:.1f} %",
            f"{100 * point.exact.value:.1f} %",
            f"{point.frames_lost}/{point.frames}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
