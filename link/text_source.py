"""Source codes of text: the bits that separate source and channel coding has to carry.

    sentences ──> " man" "," " who" ... end ──how often each followed which in training──> range coder ──> bits     WordCode
    sentences ──> UTF-8 ──LZ77 and Huffman, one stream a sentence, a preset dictionary──> bytes ──> bits            Deflate

Both are without loss, for any text, and both are static: what they know is of the training sentences, so that frames can be
read one by one. Of bits that hold errors each reads what it can, and an empty sentence where it can read nothing.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError, MissingExtra

_TOKEN: Final = re.compile(r"\s?\w+|\s?[^\w\s]|\s")
"""A word or a mark with the space before it: tokens put together are the text."""

_EDGE: Final = 0
"""Before the first token of a sentence and behind its last; tokens count from 1."""

_UNSEEN: Final = -1
_STOP: Final = 256
"""Behind the bytes of a token that is spelled."""

_WORD_BITS: Final = 32
_PAST_THE_END: Final = 4096
"""Tokens, or bytes of one, read beyond the last bit: the coder holds 64, and no text of sense has thousands in those."""

_DICTIONARY_BYTES: Final = 32_768
_RAW: Final = -zlib.MAX_WBITS


class SourceCode(Protocol):
    """Sentences to bits and back.

    Attributes
    ----------
    name : str
        For a table.
    """

    name: str

    def encode(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        """Bits of a frame's sentences together, (k,)."""
        ...

    def decode(self, bits: NDArray[np.uint8], sentences: int) -> tuple[str, ...]:
        """So many sentences from (k,) bits or more: exactly those that were encoded if the first k are; never an error."""
        ...


class _Choice(NamedTuple):
    """What may come next: numbers of tokens, their places, and the coder's model of the places."""

    tokens: tuple[int, ...]
    places: Mapping[int, int]
    model: Any


class WordCode:
    """A range code of words and marks, by how often each stood behind which in training.

    The coder is constriction's, of Bamler (2022), "Understanding entropy coding with asymmetric numeral systems", which lets
    models change from symbol to symbol. A token is coded by its frequency behind the token before; one that never stood
    there by an escape, whose weight is the number of different tokens that did (method C of Moffat 1990, "Implementing the
    PPM data compression scheme", IEEE Trans. Commun. 38), and its frequency overall; one never seen by a second escape,
    weighted as the tokens seen once, and its bytes.

    Parameters
    ----------
    training : sequence of str
        At least one sentence.
    order : int
        1, or 0 for frequencies overall alone: a classical static code of words.

    Raises
    ------
    ArgumentError
        If there is no sentence, or `order` is neither.
    MissingExtra
        If constriction is not installed.

    Examples
    --------
    >>> code = WordCode(["a man runs", "a man sleeps"])
    >>> bits = code.encode(["a man sleeps", "zwei"])
    >>> code.decode(bits, 2)
    ('a man sleeps', 'zwei')
    """

    def __init__(self, training: Sequence[str], order: int = 1) -> None:
        if not training:
            raise ArgumentError("training", "must hold at least one sentence")
        if order not in (0, 1):
            raise ArgumentError("order", f"must be 0 or 1, got {order}")
        self.name = f"words, order {order}"
        self.order = order
        self._coder = _constriction()
        sentences = [_TOKEN.findall(text) for text in training]
        seen = Counter(token for tokens in sentences for token in tokens)
        self._tokens = ("", *seen)
        self._numbers = {token: number for number, token in enumerate(seen, start=1)}
        once = [token for token, count in seen.items() if count == 1]
        spelled = Counter(byte for token in once for byte in (*token.encode(), _STOP))
        self._spelling = self._model([spelled[byte] + 1 for byte in range(_STOP + 1)])
        overall = {_EDGE: len(training), **{self._numbers[token]: count for token, count in seen.items()}}
        self._overall = self._choice(overall, len(once) + 1)
        followed: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for tokens in sentences if order else ():
            numbers = [self._numbers[token] for token in tokens]
            for before, number in zip((_EDGE, *numbers), (*numbers, _EDGE), strict=True):
                followed[before][number] += 1
        self._behind = {before: self._choice(counts, len(counts)) for before, counts in followed.items()}

    def encode(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        encoder = self._coder.stream.queue.RangeEncoder()
        for text in texts:
            before = _EDGE
            for token in (*_TOKEN.findall(text), None):
                number = _EDGE if token is None else self._numbers.get(token, _UNSEEN)
                for choice in self._choices(before):
                    place = choice.places.get(number, len(choice.tokens))
                    encoder.encode(place, choice.model)
                    if place < len(choice.tokens):
                        break
                else:
                    for byte in (*str(token).encode(), _STOP):
                        encoder.encode(byte, self._spelling)
                before = number
        return np.unpackbits(encoder.get_compressed().astype(">u4").view(np.uint8))

    def decode(self, bits: NDArray[np.uint8], sentences: int) -> tuple[str, ...]:
        words = np.packbits(bits[: len(bits) // _WORD_BITS * _WORD_BITS]).view(">u4").astype(np.uint32)
        decoder = self._coder.stream.queue.RangeDecoder(words)
        texts: list[str] = [""]
        for token in self._read(decoder):
            if token:
                texts[-1] += token
            elif len(texts) == sentences:
                break
            else:
                texts.append("")
        return tuple((*texts, *[""] * (sentences - len(texts))))

    def _read(self, decoder: Any) -> Iterator[str]:
        """Tokens, and "" at the end of each sentence, until bits cannot be read or are long used up.

        What may be read from behind the last bit is kept where it ends a sentence.
        """
        before, left, held = _EDGE, _PAST_THE_END, list[str]()
        while left:
            left -= decoder.maybe_exhausted()
            try:
                number = self._next(decoder, before)
                token = self._spelled(decoder) if number == _UNSEEN else self._tokens[number]
            except (AssertionError, ValueError):  # the first is how the coder says that no text has these bits
                return
            held.append(token)
            if not token or not decoder.maybe_exhausted():
                yield from held
                held.clear()
            before = number

    def _next(self, decoder: Any, before: int) -> int:
        for choice in self._choices(before):
            place = int(decoder.decode(choice.model))
            if place < len(choice.tokens):
                return choice.tokens[place]
        return _UNSEEN

    def _spelled(self, decoder: Any) -> str:
        spelled, left = bytearray(), _PAST_THE_END
        while left and (byte := decoder.decode(self._spelling)) != _STOP:
            spelled.append(byte)
            left -= decoder.maybe_exhausted()
        if not left:
            raise ValueError("a token that is spelled does not end")
        return spelled.decode(errors="replace") or "\ufffd"

    def _choices(self, before: int) -> Iterator[_Choice]:
        """What a token is looked for in, one behind the other."""
        if before in self._behind:
            yield self._behind[before]
        yield self._overall

    def _choice(self, counts: Mapping[int, int], escapes: int) -> _Choice:
        """Tokens, the lowest number first, so that bits of zeros end a sentence; the escape is behind the last."""
        tokens = tuple(sorted(counts))
        return _Choice(
            tokens,
            {token: place for place, token in enumerate(tokens)},
            self._model([*(counts[token] for token in tokens), escapes]),
        )

    def _model(self, counts: Sequence[int]) -> Any:
        frequencies = np.array(counts, dtype=np.float32) / sum(counts)
        return self._coder.stream.model.Categorical(frequencies, perfect=False)


class Deflate:
    """zlib, one raw stream a sentence, with the last 32 KiB of the training sentences as its preset dictionary.

    Dictionaries of the same size of the most frequent words, or of the most frequent phrases of two to five words, make
    longer streams of captions.

    Parameters
    ----------
    training : sequence of str
        Without any there is no dictionary.

    Examples
    --------
    >>> code = Deflate(["a man runs", "a man sleeps"])
    >>> bits = code.encode(["a man sleeps", "zwei"])
    >>> code.decode(bits, 2), len(bits)
    (('a man sleeps', 'zwei'), 80)
    """

    name = "zlib"

    def __init__(self, training: Sequence[str]) -> None:
        self._dictionary = "\n".join(training).encode()[-_DICTIONARY_BYTES:]

    def encode(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        return np.unpackbits(np.frombuffer(b"".join(map(self._deflated, texts)), dtype=np.uint8))

    def decode(self, bits: NDArray[np.uint8], sentences: int) -> tuple[str, ...]:
        data = memoryview(np.packbits(bits[: len(bits) // 8 * 8]).tobytes())
        texts: list[str] = []
        while len(texts) < sentences and data:
            text, used = self._inflated(data)
            texts.append(text)
            data = data[used:]
        return tuple((*texts, *[""] * (sentences - len(texts))))

    def _deflated(self, text: str) -> bytes:
        stream = zlib.compressobj(9, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, self._dictionary)
        return stream.compress(text.encode()) + stream.flush()

    def _inflated(self, data: memoryview) -> tuple[str, int]:
        """What the first stream says, and its bytes: byte by byte, so that what stands before an error is kept."""
        stream, said, used = zlib.decompressobj(_RAW, self._dictionary), bytearray(), len(data)
        try:
            for place in range(len(data)):
                said += stream.decompress(data[place : place + 1])
                if stream.eof:
                    used = place + 1
                    break
        except zlib.error:
            pass
        return said.decode(errors="replace"), used


def _constriction() -> Any:
    try:
        return importlib.import_module("constriction")
    except ImportError:
        raise MissingExtra("constriction", "quality") from None
