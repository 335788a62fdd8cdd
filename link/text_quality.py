"""How close answered sentences are to those that were meant: BLEU from counts that add up, and its interval.

    answer, reference ──13a──> words ──> n-gram matches and totals, lengths ──sum, in any order──> BLEU-1 to BLEU-4

Corpus BLEU with one reference a sentence, as sacrebleu computes it (signature nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp):

    BLEU-N = min(1, exp(1 - r/c)) (p_1 p_2 ... p_N)^(1/N)        p_n = clipped matches of n-grams / n-grams answered

with r words in all references and c in all answers: the cumulative score, a geometric mean over the orders up to N under one
brevity penalty, not the precision of order N. Case is kept. In [0, 1], where sacrebleu's is in [0, 100]. Smoothing matters
only where an order has no match in the whole corpus: the k-th such order counts 2^-k matches (`exp`), or none, and the score
is 0 (`none`).

References
----------
Papineni, Roukos, Ward, Zhu (2002), "BLEU: a method for automatic evaluation of machine translation", ACL. Post (2018), "A
call for clarity in reporting BLEU scores", WMT. Chen, Cherry (2014), "A systematic comparison of smoothing techniques for
sentence-level BLEU", WMT: `exp` is their method 3. Koehn (2004), "Statistical significance tests for machine translation
evaluation", EMNLP: the interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError, MissingExtra
from link.montecarlo import CONFIDENCE, Proportion
from link.randomness import Draws, Stream

if TYPE_CHECKING:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ORDERS: Final = 4
"""Longest n-gram."""

COUNTS: Final = 11
"""Counts of a sentence: the fields of TextStatistics but the last."""

SMOOTHINGS: Final = ("exp", "none")

_BOOTSTRAP: Final = 1
"""The point of Stream.SHUFFLE at which a bootstrap draws; orders of rows are drawn at 0."""

_RESAMPLED_AT_ONCE: Final = 2**21
_WORDS_KEPT: Final = 2**17
_REFERENCES_KEPT: Final = 2**13


class TextStatistics(NamedTuple):
    """What BLEU needs to know of a corpus: integers that add up, field by field.

    Attributes
    ----------
    matches_1, ..., matches_4 : int
        n-grams of the answers that stand in their references, each at most as often as there.
    totals_1, ..., totals_4 : int
        n-grams of the answers.
    system_length, reference_length : int
        Words of the answers, and of the references.
    exact : int
        Sentences answered to the letter, white space at the ends left aside.
    sentences : int

    Examples
    --------
    >>> first = TextStatistics.of(["A man runs ."], ["A man runs."])
    >>> both = first.plus(TextStatistics.of(["a dog sleeps"], ["A dog sits."]))
    >>> round(first.bleu(4), 3), round(both.bleu(1), 3), both.exact
    (1.0, 0.619, 0)
    """

    matches_1: int = 0
    matches_2: int = 0
    matches_3: int = 0
    matches_4: int = 0
    totals_1: int = 0
    totals_2: int = 0
    totals_3: int = 0
    totals_4: int = 0
    system_length: int = 0
    reference_length: int = 0
    exact: int = 0
    sentences: int = 0

    @classmethod
    def of(cls, hypotheses: Sequence[str], references: Sequence[str]) -> TextStatistics:
        """Of answers and what each should have been; errors as of `sentence_statistics`."""
        return cls.total(sentence_statistics(hypotheses, references))

    @classmethod
    def total(cls, statistics: NDArray[np.int64]) -> TextStatistics:
        """Of sentences, (n, 11), as `sentence_statistics` counts them."""
        return cls._make([*statistics.sum(axis=0).tolist(), len(statistics)])

    def plus(self, other: TextStatistics) -> TextStatistics:
        """Of the sentences of both."""
        return TextStatistics(*(a + b for a, b in zip(self, other, strict=True)))

    def bleu(self, order: int, smoothing: str = "exp") -> float:
        """BLEU-`order`, in [0, 1].

        Parameters
        ----------
        order : int
            1 to 4.
        smoothing : str
            One of SMOOTHINGS.

        Raises
        ------
        ArgumentError
            If an argument is out of range, or there is no sentence.
        """
        if not self.sentences:
            raise ArgumentError("statistics", "must hold at least one sentence")
        if order not in range(1, ORDERS + 1):
            raise ArgumentError("order", f"must be in [1, {ORDERS}], got {order}")
        return float(bleu_scores(np.array(self[:COUNTS]), smoothing)[order - 1])


def sentence_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """Counts of each sentence.

    Parameters
    ----------
    hypotheses : sequence of n str
        Answers; an empty one answers nothing.
    references : sequence of n str
        What each should have been.

    Returns
    -------
    (n, 11) int64
        Fields of TextStatistics, in their order, without `sentences`.

    Raises
    ------
    ArgumentError
        If their numbers differ, or a reference has no word (it is named by its row).
    MissingExtra
        If sacrebleu is not installed.
    """
    if len(hypotheses) != len(references):
        raise ArgumentError(
            "hypotheses", f"must be as many as the references, {len(references)}, got {len(hypotheses)}"
        )
    counts = np.zeros((len(hypotheses), COUNTS), dtype=np.int64)
    for row, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True)):
        wanted = _reference(reference)
        if not wanted.length:
            raise ArgumentError(f"references[{row}]", "has no word")
        counts[row] = _count(hypothesis, reference, wanted)
    return counts


def bleu_scores(counts: NDArray[Any], smoothing: str = "exp") -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of corpora whose counts are summed.

    Parameters
    ----------
    counts : (..., 11) int or float
        Sums over sentences of what `sentence_statistics` returns.
    smoothing : str
        One of SMOOTHINGS.

    Returns
    -------
    (..., 4) float64
        In [0, 1]; 0 where no word was answered rightly, or no n-gram of so many words was answered.

    Raises
    ------
    ArgumentError
        If `smoothing` is unknown.
    """
    if smoothing not in SMOOTHINGS:
        raise ArgumentError("smoothing", f"must be one of {', '.join(SMOOTHINGS)}, got {smoothing!r}")
    matches, totals = counts[..., :ORDERS].astype(np.float64), counts[..., ORDERS : 2 * ORDERS].astype(np.float64)
    answered, meant = counts[..., 8].astype(np.float64), counts[..., 9].astype(np.float64)
    if smoothing == "exp":
        none = (matches == 0) & (matches[..., :1] > 0)
        matches = np.where(none, 0.5 ** np.cumsum(none, axis=-1), matches)
    with np.errstate(divide="ignore"):
        log_precisions = np.log(np.where(totals > 0, matches / np.maximum(totals, 1.0), 0.0))
        log_penalty = np.minimum(1.0 - meant / answered, 0.0, where=answered > 0, out=np.full_like(meant, -np.inf))
    return np.asarray(np.exp(np.cumsum(log_precisions, axis=-1) / np.arange(1, ORDERS + 1) + log_penalty[..., None]))


def interval(
    statistics: NDArray[np.int64], draws: Draws, confidence: float = CONFIDENCE, smoothing: str = "exp"
) -> tuple[Proportion, ...]:
    """BLEU-1 to BLEU-4 with the interval that other sentences of the same kind would give: the percentile bootstrap.

    Parameters
    ----------
    statistics : (n, 11) int64
        Of each independent unit: of a sentence, summed over the draws in which it was sent; of a frame, where its sentences
        are lost together. A single one tells nothing of others, and its interval is [0, 1].
    draws : Draws
        One sample a resample: Draws(seed, np.arange(1000)). It draws from Stream.SHUFFLE.
    confidence : float
        Two-sided coverage aimed at, in (0, 1).
    smoothing : str
        One of SMOOTHINGS.

    Returns
    -------
    tuple of 4 Proportion
        `value` is the BLEU of all units.

    Raises
    ------
    ArgumentError
        If the counts have another shape, or an argument is out of range.

    Examples
    --------
    >>> told = ["a man runs", "two dogs", "a girl sings"]
    >>> counts = sentence_statistics(told, ["a man runs", "two cats", "a girl sits"])
    >>> [round(bound, 2) for bound in interval(counts, Draws(0, np.arange(200)))[0].model_dump().values()]
    [0.75, 0.57, 1.0]
    """
    if statistics.ndim != 2 or statistics.shape[1] != COUNTS or not len(statistics):
        raise ArgumentError("statistics", f"must be (n, {COUNTS}) with n at least 1, got {statistics.shape}")
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", f"must be in (0, 1), got {confidence:g}")
    if len(draws.samples) < 2:
        raise ArgumentError("draws", f"must be of at least 2 resamples, got {len(draws.samples)}")
    values = bleu_scores(statistics.sum(axis=0), smoothing)
    if len(statistics) == 1:
        return tuple(Proportion(value=value, low=0.0, high=1.0) for value in values.tolist())
    scores = np.concatenate([bleu_scores(sums, smoothing) for sums in _resampled(statistics, draws)])
    low, high = np.quantile(scores, (0.5 - 0.5 * confidence, 0.5 + 0.5 * confidence), axis=0)
    return tuple(
        Proportion(value=value, low=max(0.0, min(below, value)), high=min(1.0, max(above, value)))
        for value, below, above in zip(values.tolist(), low.tolist(), high.tolist(), strict=True)
    )


def _resampled(statistics: NDArray[np.int64], draws: Draws) -> Iterator[NDArray[np.float64]]:
    """Sums over units drawn with replacement, (resamples, 11), some resamples at a time."""
    units = len(statistics)
    step = max(_RESAMPLED_AT_ONCE // units, 1)
    for start in range(0, len(draws.samples), step):
        uniforms = np.asarray(draws.rows(slice(start, start + step)).uniforms(Stream.SHUFFLE, _BOOTSTRAP, units))
        places = np.floor(uniforms * units).astype(np.int64) + units * np.arange(len(uniforms))[:, None]
        times = np.bincount(places.ravel(), minlength=uniforms.size).reshape(uniforms.shape)
        yield times.astype(np.float64) @ statistics.astype(np.float64)


class _Reference(NamedTuple):
    """n-grams of a reference, by their order, and its words."""

    ngrams: tuple[dict[Any, int], ...]
    length: int


def _count(hypothesis: str, reference: str, wanted: _Reference) -> tuple[int, ...]:
    """Counts of one sentence, as a row of `sentence_statistics`."""
    if hypothesis.strip() == reference.strip():
        found = tuple(max(wanted.length - n, 0) for n in range(ORDERS))
        return (*found, *found, wanted.length, wanted.length, 1)
    words = _words(hypothesis)
    matches = [0] * ORDERS
    for n, (answered, meant) in enumerate(zip(_ngrams(words), wanted.ngrams, strict=True)):
        matches[n] = sum(min(times, meant[ngram]) for ngram, times in Counter(answered).items() if ngram in meant)
        if not matches[n]:
            break  # no longer one matches either
    totals = (max(len(words) - n, 0) for n in range(ORDERS))
    return (*matches, *totals, len(words), wanted.length, 0)


def _ngrams(words: Sequence[str]) -> Iterator[Iterator[Any]]:
    """n-grams of each order; those of one word are the words themselves."""
    yield iter(words)
    for n in range(2, ORDERS + 1):
        yield zip(*(words[start:] for start in range(n)), strict=False)


@lru_cache(maxsize=_REFERENCES_KEPT)
def _reference(text: str) -> _Reference:
    words = _words(text)
    return _Reference(tuple(dict(Counter(ngrams)) for ngrams in _ngrams(words)), len(words))


def _words(text: str) -> list[str]:
    """Words of a sentence as the tokenizer 13a parts them.

    It looks at no more than a character beside punctuation, and white space is none that matters: so words between white
    space are tokenized, and kept, one by one. Only a hyphen at the end of a line joins two.
    """
    if "\n" in text:
        return str(_tokenizer()(text.rstrip())).split()
    return [token for word in text.split() for token in _tokens(word)]


@lru_cache(maxsize=_WORDS_KEPT)
def _tokens(word: str) -> tuple[str, ...]:
    return tuple(_tokenizer()(word).split())


@cache
def _tokenizer() -> Tokenizer13a:
    try:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    except ImportError:
        raise MissingExtra("sacrebleu", "quality") from None
    return Tokenizer13a()  # type: ignore[no-untyped-call]
