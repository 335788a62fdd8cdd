"""What a link that rebuilds sentences has to beat: separate source and channel coding at equal channel uses, and no coding.

    g sentences ──source code──> k bits ──LDPC, QAM──> symbols of a frame ──> channel ──> k bits ──source code──> g answers
    link.text_source                      link.text_frame

**Equal channel uses.** The budget is in complex symbols a word, words being what white space parts. A sentence of w words
has w times the budget, rounded so that sums over sentences in order are off by less than one symbol, and a frame of g
sentences has the sum of theirs. So the mean over a data set is the budget, pilots not counted, although a source code makes
some sentences longer than others: what one of them leaves over is for the others of its frame.

What the baseline is given: the receiver knows at no charge how many bits and sentences a frame has; and the order of the
QAM, and how much of each sentence is sent at all, are the best for each SNR, found on the very sentences that are counted.
What it gives up: sentences wait for each other, and fall together where a frame is lost. Channel and noise are the semantic
link's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from link.baseline import frames_of
from link.bits import group, ungroup
from link.channel.fec import K_MAX, K_MIN
from link.constellation import app_llr, bits_per_symbol, map_bits
from link.device import host_engine
from link.errors import ArgumentError, require_range
from link.grid import SweepSpec
from link.montecarlo import Proportion, clustered_proportion
from link.randomness import Draws
from link.text_frame import TextFrame, sentence_budgets
from link.text_quality import COUNTS, interval, sentence_statistics
from link.text_source import SourceCode

FRAME_SENTENCES: Final = 32
ITERATIONS: Final = 50
"""Of the decoder, at most: near its threshold 20 lose frames that 50 do not."""

CODED_ORDERS: Final = (4, 16, 64)
RESAMPLES: Final = 1000
"""Of the bootstrap."""

BUDGET_MAX: Final = 1000.0
"""Symbols a word."""

_ROWS: Final = 1024
"""Sentences that are sent at once without a code: bounds memory, changes no result."""

_ABOVE_CAPACITY: Final = 1.25
_EXACT: Final = 10
"""Place of `exact` among the counts."""


class TextPoint(BaseModel):
    """What one SNR gave.

    Attributes
    ----------
    snr_db : float
        Es/N0, dB.
    sentences, words, draws : int
        Each draw sends all sentences.
    order : int
        Of the QAM.
    share : float
        Of each sentence's words, those that were sent, the first ones.
    bits_per_word, symbols_per_word : float
        Bits into the channel code, and symbols sent, pilots included; over all words, sent or not.
    frames, frames_lost : int
        Codewords of all draws, and those with an error; uncoded, sentences.
    bleu : tuple of 4 Proportion
        BLEU-1 to BLEU-4, see link.text_quality.
    word_accuracy : Proportion
        Words that the answer has at their place, counted from the beginning of the sentence.
    exact : Proportion
        Sentences answered to the letter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    snr_db: float
    sentences: int
    words: int
    draws: int
    order: int
    share: float
    bits_per_word: float
    symbols_per_word: float
    frames: int
    frames_lost: int
    bleu: tuple[Proportion, ...]
    word_accuracy: Proportion
    exact: Proportion


def sweep_coded_text(
    source: SourceCode,
    texts: Sequence[str],
    spec: SweepSpec,
    *,
    symbols_per_word: float,
    orders: Sequence[int] = CODED_ORDERS,
    shares: Sequence[float] = (1.0,),
    frame_sentences: int = FRAME_SENTENCES,
    iterations: int = ITERATIONS,
) -> tuple[TextPoint, ...]:
    """Separate source and channel coding at each point of a sweep, to lay beside it.

    Parameters
    ----------
    source : SourceCode
        Trained on other sentences than these.
    texts : sequence of n str
        None without a word; a row is a sentence's number, as in the sweep.
    spec : SweepSpec
        The sweep's own.
    symbols_per_word : float
        In [1, 1000].
    orders : sequence of int
        Of the QAM, to choose from.
    shares : sequence of float
        In (0, 1], to choose from: the share of each sentence's words that is sent, the first of them, rounded up. Where not
        all bits fit, fewer words that arrive are better than a frame that is lost.
    frame_sentences : int
        Fewest sentences of a frame; fewer than that are one frame.
    iterations : int
        Most iterations of the decoder.

    Returns
    -------
    tuple of TextPoint
        In the order of the grid. Shares are tried from the largest, and for each the orders from the lowest, until no frame
        is lost; of those that were, the one with the highest BLEU-1 is told. What would need more than 1.25 times the
        capacity log2(1 + Es/N0) in every frame is not tried where anything else is left. Intervals are over frames.

    Raises
    ------
    ArgumentError
        If an argument is out of range, or a frame's bits fit no code.
    MissingExtra
        If Sionna or sacrebleu is not installed.
    """
    words = _words(texts)
    require_range("symbols_per_word", symbols_per_word, 1.0, BUDGET_MAX)
    for field, given in (("orders", orders), ("shares", shares)):
        if not given:
            raise ArgumentError(field, "must name at least one")
    if frame_sentences < 1:
        raise ArgumentError("frame_sentences", f"must be at least 1, got {frame_sentences}")
    largest_first = sorted(set(shares), reverse=True)
    if not 0.0 < largest_first[-1] <= largest_first[0] <= 1.0:
        raise ArgumentError("shares", f"must be in (0, 1], got {', '.join(f'{share:g}' for share in shares)}")
    budgets = sentence_budgets(words, symbols_per_word)
    rows = [frame for alike in frames_of(len(texts), frame_sentences) for frame in alike]
    framed = [(share, [_frame(source, texts, budgets, frame, share) for frame in rows]) for share in largest_first]
    modes = [
        _Mode(order, share, frames)
        for share, frames in framed
        for order in sorted(set(orders))
        if all(frame.fits(order) for frame in frames)
    ]
    if not modes:
        most = max(frame.bits_per_symbol for frame in framed[-1][1])
        raise ArgumentError(
            "symbols_per_word",
            f"must be more: by {source.name} a frame has {most:.3g} bits a symbol, which {max(orders)}-QAM carries in no "
            f"LDPC code of 5G; got {symbols_per_word:g}",
        )
    answered: dict[float, list[TextPoint]] = {snr_db: [] for snr_db in spec.snr_db}
    worth_trying = {snr_db: _worth_trying(modes, snr_db) for snr_db in spec.snr_db}
    for mode in modes:
        lossy = [snr_db for snr_db, points in answered.items() if all(point.frames_lost for point in points)]
        left = [snr_db for snr_db in lossy if mode in worth_trying[snr_db]]
        for point in _send_mode(mode, source, texts, words, spec, left, iterations) if left else ():
            answered[point.snr_db].append(point)
    return tuple(max(points, key=lambda point: point.bleu[0].value) for points in answered.values())


def sweep_uncoded_text(texts: Sequence[str], spec: SweepSpec, *, order: int = 4) -> tuple[TextPoint, ...]:
    """UTF-8 over QAM without any code, at the rate that this has.

    Parameters
    ----------
    texts, spec
        See `sweep_coded_text`.
    order : int
        Of the QAM.

    Returns
    -------
    tuple of TextPoint
        In the order of the grid; bytes that are no UTF-8 are answered as U+FFFD. Intervals are over sentences.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    MissingExtra
        If sacrebleu is not installed.
    """
    words = _words(texts)
    channel, width, numbers = spec.build_channel(), bits_per_symbol(order), np.arange(len(texts))
    data = [np.unpackbits(np.frombuffer(text.encode(), dtype=np.uint8)) for text in texts]
    lengths = np.array([len(bits) for bits in data], dtype=np.int64)
    sent = np.zeros((len(texts), int(lengths.max())), dtype=np.uint8)
    for row, bits in zip(sent, data, strict=True):
        row[: len(bits)] = bits
    x, num_symbols = map_bits(group(sent.astype(np.float32), width)), -(-lengths // width)
    points = []
    for snr_db in spec.snr_db:
        tally = _Tally(len(texts))
        for draw, start in product(range(spec.draws), range(0, len(texts), _ROWS)):
            rows = numbers[start : start + _ROWS]
            draws = Draws(spec.seed, rows, draw, engine=host_engine())
            received = channel(x[rows], num_symbols[rows], snr_db, draws)
            llr = app_llr(received.y.astype(np.float64), received.no.astype(np.float64), order)
            answers = [
                np.packbits(bits[:length]).tobytes().decode(errors="replace")
                for bits, length in zip(ungroup(llr, sent.shape[1]) > 0, lengths[rows], strict=True)
            ]
            meant = [texts[row] for row in rows]
            tally.add(rows, answers, meant)
            tally.symbols += int(num_symbols[rows].sum()) + received.pilot_symbols
            tally.lost += sum(answer != text for answer, text in zip(answers, meant, strict=True))
        points.append(tally.point(snr_db, order, 1.0, float(lengths.sum()) / words.sum(), words, spec))
    return tuple(points)


class _Mode(NamedTuple):
    """An order and a share, and the frames of all sentences."""

    order: int
    share: float
    frames: list[TextFrame]

    @property
    def least(self) -> float:
        """Information bits a symbol, of the frame that has fewest."""
        return min(frame.bits_per_symbol for frame in self.frames)


class _Tally:
    """Counts of independent units, summed over draws."""

    def __init__(self, units: int) -> None:
        self.counts = np.zeros((units, COUNTS), np.int64)
        self.words_right = np.zeros(units, np.int64)
        self.words = np.zeros(units, np.int64)
        self.sentences = np.zeros(units, np.int64)
        self.symbols = 0
        self.lost = 0

    def add(self, units: NDArray[np.int64], answers: Sequence[str], texts: Sequence[str]) -> None:
        """Answers to texts, each of the unit of that number."""
        np.add.at(self.counts, units, sentence_statistics(answers, texts))
        np.add.at(self.words_right, units, [_words_right(*pair) for pair in zip(answers, texts, strict=True)])
        np.add.at(self.words, units, _words(texts))
        np.add.at(self.sentences, units, 1)

    def point(
        self, snr_db: float, order: int, share: float, bits_per_word: float, words: NDArray[np.int64], spec: SweepSpec
    ) -> TextPoint:
        return TextPoint(
            snr_db=snr_db,
            sentences=len(words),
            words=int(words.sum()),
            draws=spec.draws,
            order=order,
            share=share,
            bits_per_word=bits_per_word,
            symbols_per_word=self.symbols / (int(words.sum()) * spec.draws),
            frames=len(self.counts) * spec.draws,
            frames_lost=self.lost,
            bleu=interval(self.counts, Draws(spec.seed, np.arange(RESAMPLES)), spec.confidence),
            word_accuracy=clustered_proportion(self.words_right, self.words, spec.confidence),
            exact=clustered_proportion(self.counts[:, _EXACT], self.sentences, spec.confidence),
        )


def _send_mode(
    mode: _Mode,
    source: SourceCode,
    texts: Sequence[str],
    words: NDArray[np.int64],
    spec: SweepSpec,
    points: Sequence[float],
    iterations: int,
) -> list[TextPoint]:
    """All frames at all these points, frame by frame: a code is made once."""
    tallies = [_Tally(len(mode.frames)) for _ in points]
    channel = spec.build_channel()
    for number, frame in enumerate(mode.frames):
        meant = [texts[row] for row in frame.rows]
        code = frame.code(mode.order, iterations)
        x = frame.modulate(mode.order, code)
        heard = [frame.receive(x, mode.order, code, channel, snr_db, spec.seed, spec.draws) for snr_db in points]
        decided = code.decode(np.concatenate([llr for llr, _ in heard])).reshape(len(points), spec.draws, code.k)
        for tally, received, (_, pilots) in zip(tallies, decided, heard, strict=True):
            tally.symbols += spec.draws * frame.symbols + pilots
            for bits in received:
                right = bool((bits == frame.bits).all())
                tally.lost += not right
                answers = frame.kept if right else source.decode(bits, len(meant))
                tally.add(np.full(len(meant), number), answers, meant)
    bits_per_word = sum(len(frame.bits) for frame in mode.frames) / int(words.sum())
    return [
        tally.point(snr_db, mode.order, mode.share, bits_per_word, words, spec)
        for tally, snr_db in zip(tallies, points, strict=True)
    ]


def _frame(
    source: SourceCode, texts: Sequence[str], budgets: NDArray[np.int64], rows: NDArray[np.int64], share: float
) -> TextFrame:
    kept = tuple(_first_words(texts[row], share) for row in rows)
    bits = source.encode(kept)
    if len(bits) > K_MAX:
        raise ArgumentError(
            "frame_sentences",
            f"must be less: the {len(rows)} sentences from row {rows[0]} on are {len(bits)} bits by {source.name}, and a "
            f"code takes {K_MAX}",
        )
    return TextFrame(rows, budgets[rows], kept, np.pad(bits, (0, max(K_MIN - len(bits), 0))))


def _worth_trying(modes: Sequence[_Mode], snr_db: float) -> list[_Mode]:
    """Those whose rate the channel may carry; the one of fewest bits where there is none."""
    capacity = math.log2(1.0 + 10.0 ** (snr_db / 10.0))
    return [mode for mode in modes if mode.least <= _ABOVE_CAPACITY * capacity] or [
        min(modes, key=lambda mode: mode.least)
    ]


def _first_words(text: str, share: float) -> str:
    words = text.split()
    return text if share == 1.0 else " ".join(words[: math.ceil(share * len(words))])


def _words_right(answer: str, text: str) -> int:
    return sum(given == meant for given, meant in zip(answer.split(), text.split(), strict=False))


def _words(texts: Sequence[str]) -> NDArray[np.int64]:
    """Words of each text, (n,)."""
    words = np.array([len(text.split()) for text in texts], dtype=np.int64)
    if not len(words):
        raise ArgumentError("texts", "must hold at least one sentence")
    if not words.all():
        raise ArgumentError(f"texts[{int(np.flatnonzero(words == 0)[0])}]", "has no word")
    return words
