"""What a sample is given as, read into what graphs take: texts as integers, all of it checked.

    transmitter    the task's inputs
    receiver       its side inputs: what it has of its own, which never passes the channel
    link           both, read once: an input of both ends is given once

Each end reads what it takes and refuses what it does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sized
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bundle import Bundle
from link.errors import ArgumentError, MissingExtra
from link.interface import TensorSpec
from link.tensors import check_inputs
from link.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class TaskInputs(NamedTuple):
    """A task's inputs as its graphs take them.

    Attributes
    ----------
    arrays : dict of name to (B, ...) array
    cut : (B,) bool, optional
        Whether a text was longer than the model takes, and was cut; None where no texts were given.
    unknown : (B,) bool, optional
        Whether a text has no token that the model knows; None where no texts were given.
    """

    arrays: dict[str, NDArray[Any]]
    cut: NDArray[np.bool_] | None
    unknown: NDArray[np.bool_] | None = None


class InputReader:
    """Reads some inputs of a bundle's samples.

    Parameters
    ----------
    bundle : Bundle
    specs : tuple of TensorSpec
        The inputs.

    Raises
    ------
    BundleError
        If they are made of texts, and the bundle's tokenizer cannot be loaded.
    """

    def __init__(self, bundle: Bundle, specs: tuple[TensorSpec, ...]) -> None:
        self._specs = specs
        self._names = bundle.manifest.given_as(specs)
        self._text = bundle.manifest.text_of(specs)
        self._tokenizer: Tokenizer | None = None
        if self._text is not None:
            try:
                self._tokenizer = bundle.tokenizer()
            except MissingExtra:  # integers can be given without it
                self._tokenizer = None

    def tensors(self, inputs: Mapping[str, ArrayLike], batch: int | None = None) -> dict[str, NDArray[Any]]:
        """The arrays alone, see `read`; texts that were cut or say nothing are logged."""
        found = self.read(inputs, batch)
        self.tell(found)
        return found.arrays

    def tell(self, found: TaskInputs) -> None:
        """Log how many of the texts were cut, or say nothing."""
        cut, unknown = found.cut, found.unknown
        if self._tokenizer is not None and cut is not None and cut.any():
            logger.warning("%d of %d texts have more than %d tokens: cut", cut.sum(), len(cut), self._tokenizer.length)
        if unknown is not None and unknown.any():
            logger.warning("%d of %d texts have no token that the model knows", unknown.sum(), len(unknown))

    def read(self, inputs: Mapping[str, ArrayLike], batch: int | None = None) -> TaskInputs:
        """The inputs as the graphs take them.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
            A list of B texts may stand in place of what the tokenizer makes of them.
        batch : int, optional
            B, where it is known from elsewhere.

        Raises
        ------
        ArgumentError
            If an input is missing, unknown, of the wrong shape, not finite or out of range, or a text is empty, be it as
            integers.
        MissingExtra
            If there are texts, and `tokenizers` is not installed.
        """
        spec = self._text
        given = [] if spec is None else [name for name in spec.becomes if name in inputs]
        if spec is None:
            return TaskInputs(check_inputs(self._specs, inputs, batch), None)
        if given and spec.text not in inputs:
            found = check_inputs(self._specs, inputs, batch)
            _require_tokens(f"inputs.{spec.attention_mask}", found[spec.attention_mask])
            return TaskInputs(found, None)
        for name in inputs:
            if name in given:
                raise ArgumentError(f"inputs.{name}", f"must be absent where inputs.{spec.text} is given")
            if name not in self._names:
                raise ArgumentError(f"inputs.{name}", f"is unknown; this bundle takes {', '.join(self._names)}")
        if spec.text not in inputs:
            raise ArgumentError(f"inputs.{spec.text}", "is missing")
        if self._tokenizer is None:
            raise MissingExtra("tokenizers", "text")
        field = f"inputs.{spec.text}"
        encoded = self._tokenizer(inputs[spec.text], field=field)
        arrays = {name: value for name, value in inputs.items() if name != spec.text}
        sizes = [len(value) for value in arrays.values() if isinstance(value, Sized)]
        rows = batch if batch is not None else next(iter(sizes), len(encoded.cut))
        if rows != len(encoded.cut):
            raise ArgumentError(field, f"must hold as many texts as there are samples, {rows}, got {len(encoded.cut)}")
        arrays |= {spec.input_ids: encoded.input_ids, spec.attention_mask: encoded.attention_mask}
        return TaskInputs(check_inputs(self._specs, arrays, batch), encoded.cut, encoded.unknown)


def _require_tokens(field: str, mask: NDArray[np.int64]) -> None:
    """Refuse a text (B, T) without a token, as one that is empty: attention to nothing has no value."""
    empty = np.flatnonzero(~mask.any(axis=1))
    if len(empty):
        raise ArgumentError(field, f"must have a token in each row, got none in row {empty[0]}")
