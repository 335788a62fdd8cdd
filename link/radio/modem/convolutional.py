"""The convolutional code of rate 1/2 and constraint length 7 with generators 133 and 171 (octal), decoded softly.

It is the code of IEEE 802.11 (17.3.5.6) and of many others, terminated with six zeros. The decoder (Viterbi 1967)
takes many words at once: a step costs as much for one as for a dozen.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MEMORY: Final = 6
_STATES: Final = 1 << MEMORY
_GENERATORS: Final = (0o133, 0o171)


def _outputs() -> NDArray[np.float32]:
    """Signs of both output bits, +1 for a one, by 7-bit register (the newest bit is the highest), (128, 2)."""
    register = np.arange(2 * _STATES)
    parity = [np.array([bin(value & generator).count("1") & 1 for value in register]) for generator in _GENERATORS]
    return (2.0 * np.stack(parity, axis=-1) - 1.0).astype(np.float32)


_SIGNS: Final = _outputs()
# A state is the six newest bits, the newest highest; both registers that lead to it differ in the oldest bit.
_REGISTERS: Final = (np.arange(_STATES)[:, None] << 1) | np.arange(2)
_FROM: Final = _REGISTERS & (_STATES - 1)


def coded_bits(length: int) -> int:
    """Coded bits of a message, those of its tail included."""
    return 2 * (length + MEMORY)


def encode(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Code words.

    Parameters
    ----------
    bits : (..., k) uint8

    Returns
    -------
    (..., 2 (k + 6)) uint8

    Examples
    --------
    >>> encode(np.array([1, 0], dtype=np.uint8))
    array([1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0], dtype=uint8)
    """
    tail = np.zeros((*bits.shape[:-1], MEMORY), dtype=np.uint8)
    padded = np.concatenate([tail, bits, tail], axis=-1)
    length = bits.shape[-1] + MEMORY
    register = np.zeros((*bits.shape[:-1], length), dtype=np.int64)
    for age in range(MEMORY + 1):
        register |= padded[..., MEMORY - age : MEMORY - age + length].astype(np.int64) << (MEMORY - age)
    return (_SIGNS[register] > 0.0).astype(np.uint8).reshape(*bits.shape[:-1], 2 * length)


def decode(llr: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The most likely messages.

    Parameters
    ----------
    llr : (n, 2 (k + 6)) float
        ln P(b = 1) / P(b = 0) of the coded bits.

    Returns
    -------
    (n, k) uint8
    """
    words, steps = len(llr), llr.shape[-1] // 2
    branches = llr.reshape(words, steps, 2).astype(np.float32) @ _SIGNS.T  # metric of each register
    branches = branches.reshape(words, steps, 2 * _STATES)[..., _REGISTERS]
    metric = np.full((words, _STATES), -np.inf, dtype=np.float32)
    metric[:, 0] = 0.0
    older = np.empty((steps, words, _STATES), dtype=np.bool_)
    for step in range(steps):
        reached = metric[:, _FROM] + branches[:, step]
        np.greater(reached[..., 1], reached[..., 0], out=older[step])
        metric = reached.max(axis=-1)
    state = np.zeros(words, dtype=np.int64)
    rows = np.arange(words)
    decided = np.empty((words, steps), dtype=np.uint8)
    for step in range(steps - 1, -1, -1):
        decided[:, step] = state >> (MEMORY - 1)
        state = _FROM[state, older[step, rows, state].astype(np.int64)]
    return decided[:, : steps - MEMORY]
