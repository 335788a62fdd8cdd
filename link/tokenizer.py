"""Texts to the integers that a transmitter takes, as the bundle's tokenizer.json says.

    "a fine film"  ──>  [CLS] a fine film [SEP] [PAD] [PAD] [PAD]     input_ids
                          1   1   1    1    1     0     0     0       attention_mask

Every text gets the same length by itself: longer ones are cut, shorter ones padded, on the right. So a text's integers
depend on nothing but the text. Where a receiver answers in them, they become a text again. What tokenizer.json says of
cutting, padding and dropout does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError, MissingExtra

if TYPE_CHECKING:
    import tokenizers

CHARACTERS_A_TOKEN: Final = 128
"""More than a token has: what lies farther behind than all tokens of a text can reach is not read. The library holds
python's lock for seconds a megabyte, and with it every other call."""


class Encoded(NamedTuple):
    """Texts as a transmitter takes them.

    Attributes
    ----------
    input_ids : (B, length) int64
        Special tokens included; the padding's id past the text.
    attention_mask : (B, length) int64
        1 for the text and its special tokens, 0 for padding.
    cut : (B,) bool
        Whether the text had more tokens than fit, or more than CHARACTERS_A_TOKEN characters for each; the rest was left
        out.
    unknown : (B,) bool
        Whether no token of the text is one that the tokenizer knows: all stand for something else.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    cut: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


class Tokenizer:
    """A tokenizer.json, with cutting and padding to one length; any number of threads may call it at once.

    Parameters
    ----------
    file : Path or str
        As the `tokenizers` library writes it.
    length : int
        Tokens of every text, special ones included.
    pad_id : int
    pad_token : str
        Of the padding, as the file has it.

    Raises
    ------
    MissingExtra
        If `tokenizers` is not installed.
    ArgumentError
        If `length` or `pad_id` is no whole number, the file is no tokenizer, its special tokens leave no room in `length`,
        or `pad_token` has another id.
    """

    def __init__(self, file: Path | str, *, length: int, pad_id: int, pad_token: str) -> None:
        try:
            import tokenizers
        except ImportError:
            raise MissingExtra("tokenizers", "text") from None
        for field, number in (("length", length), ("pad_id", pad_id)):
            if isinstance(number, bool) or not isinstance(number, int | np.integer):
                raise ArgumentError(field, f"must be a whole number, got {number!r}")
        if not isinstance(pad_token, str):
            raise ArgumentError("pad_token", f"must be a string, got {pad_token!r}")
        try:
            self._tokenizer: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library's exceptions share no base class but Exception
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ArgumentError("tokenizer", f"{file} cannot be loaded: {reason}") from None
        self.length, self.pad_id, self.pad_token = length, pad_id, pad_token
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if length <= special:
            raise ArgumentError("length", f"must be above {special}, the special tokens of {file}, got {length}")
        if self._tokenizer.token_to_id(pad_token) != pad_id:
            raise ArgumentError(
                "pad_id",
                f"must be that of {pad_token!r} in {file}, {self._tokenizer.token_to_id(pad_token)}, got {pad_id}",
            )
        self._tokenizer.enable_truncation(max_length=length)
        self._tokenizer.enable_padding(length=length, pad_id=pad_id, pad_token=pad_token)
        # What a text says is text: "[SEP]" in it is no special token.
        self._tokenizer.encode_special_tokens = True
        if getattr(self._tokenizer.model, "dropout", None) is not None:
            self._tokenizer.model.dropout = None
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self._unknown = None if unknown is None else self._tokenizer.token_to_id(unknown)

    @property
    def highest_id(self) -> int:
        """The highest number that a token has."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def __call__(self, texts: Sequence[str] | ArrayLike, *, field: str = "texts") -> Encoded:
        """Encode texts, each by itself.

        Parameters
        ----------
        texts : sequence of B str, or (B,) array of str
        field : str
            What messages call them.

        Raises
        ------
        ArgumentError
            If there is none, or one is no string, empty, or holds what is no character; it is named by its row.
        """
        rows = as_texts(field, texts)
        # One by one: encode_batch starts threads of its own, beside those of whoever calls.
        read = self.length * CHARACTERS_A_TOKEN
        encodings = [self._tokenizer.encode(text[:read]) for text in rows]
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        for row in np.flatnonzero(mask.sum(axis=1) == 0).tolist():
            raise ArgumentError(f"{field}[{row}]", "holds nothing that the tokenizer has a token for")
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        own = np.array([encoding.special_tokens_mask for encoding in encodings]) == 0
        return Encoded(
            ids,
            mask,
            np.array(
                [bool(made.overflowing) or len(text) > read for made, text in zip(encodings, rows, strict=True)],
                dtype=np.bool_,
            ),
            np.full(len(rows), False) if self._unknown is None else (~own | (ids == self._unknown)).all(axis=1),
        )

    def texts(self, pieces: NDArray[np.int64], end_id: int) -> list[str]:
        """What rows of pieces spell, each up to its first end.

        Parameters
        ----------
        pieces : (B, T) int64
        end_id : int
            Of the end.

        Returns
        -------
        list of B str
            Special tokens say nothing; bytes that are no character together are shown as U+FFFD.
        """
        ended = pieces == end_id
        lengths = np.where(ended.any(axis=1), ended.argmax(axis=1), pieces.shape[1])
        rows = [row[:length] for row, length in zip(pieces.tolist(), lengths.tolist(), strict=True)]
        texts: list[str] = self._tokenizer.decode_batch(rows, skip_special_tokens=True)
        return texts


def as_texts(field: str, value: Sequence[str] | ArrayLike) -> list[str]:
    """Texts as a list of B str.

    Raises
    ------
    ArgumentError
        If there is none, or one is no string, empty, or holds NUL or half of a surrogate pair; it is named by its row.
    """
    if isinstance(value, str | bytes):
        raise ArgumentError(field, "must be a list of texts, got a single one: put it into a list")
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise ArgumentError(field, f"must be a list of texts, got an array of shape {value.shape}")
    if not isinstance(value, np.ndarray | Sequence):
        raise ArgumentError(field, f"must be a list of texts, got {type(value).__name__}")
    if not len(value):
        raise ArgumentError(field, "must hold at least one text")
    return [_checked(f"{field}[{row}]", text) for row, text in enumerate(value)]


def _checked(field: str, text: Any) -> str:
    if not isinstance(text, str):
        raise ArgumentError(field, f"must be a string, got {type(text).__name__}")
    if not text.strip():
        raise ArgumentError(field, "is empty")
    if "\0" in text:
        raise ArgumentError(field, "must not hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(field, "must not hold half of a surrogate pair") from None
    return str(text)
