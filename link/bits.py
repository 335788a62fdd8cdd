"""Labels and bits (MSB first), and how one sample's bits become groups of one symbol each.

    tokens  [n]  --label-->  bits [n * k]  --pad, group-->  [s, m]  --map-->  symbols [s]

Every function works along the last axes and mixes no rows, so that no bit of a sample depends on its companions in a batch.
Padding bits are 0, stand behind the payload, are sent and counted, and are ignored by the receiver.
"""

from __future__ import annotations

import array_api_compat
import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.array import Array, namespace
from link.errors import ArgumentError


def label_bits(labels: ArrayLike, width: int) -> NDArray[np.uint8]:
    """Binary digits of each label, most significant first.

    Parameters
    ----------
    labels : (...) int
        Labels in [0, 2**width).
    width : int
        Bits a label.

    Returns
    -------
    (..., width) uint8

    Examples
    --------
    >>> label_bits([6, 1], 3)
    array([[1, 1, 0],
           [0, 0, 1]], dtype=uint8)
    """
    values = np.asarray(labels, dtype=np.int64)
    if values.size and not (values.min() >= 0 and values.max() < 2**width):
        raise ArgumentError("labels", f"must be in [0, {2**width}), got [{values.min()}, {values.max()}]")
    return ((values[..., None] >> np.arange(width - 1, -1, -1)) & 1).astype(np.uint8)


def labels_from_bits(bits: ArrayLike) -> NDArray[np.int64]:
    """Inverse of `label_bits`: (..., width) bits to (...) labels.

    Examples
    --------
    >>> labels_from_bits([[1, 1, 0], [0, 0, 1]])
    array([6, 1])
    """
    values = np.asarray(bits, dtype=np.int64)
    return values @ (1 << np.arange(values.shape[-1] - 1, -1, -1, dtype=np.int64))


def num_symbols(num_bits: int, bits_per_symbol: int) -> int:
    """Symbols that carry `num_bits`, the last one padded.

    Examples
    --------
    >>> num_symbols(25, 4)
    7
    """
    return -(-num_bits // bits_per_symbol)


def group(bits: Array, bits_per_symbol: int) -> Array:
    """Group each sample's bits (or bit probabilities) into symbols, padding with zeros at its end.

    Parameters
    ----------
    bits : (..., l) array
        Bits, or probabilities that a bit is 1.
    bits_per_symbol : int

    Returns
    -------
    (..., ceil(l / bits_per_symbol), bits_per_symbol) array, of the same dtype
    """
    xp = namespace(bits)
    length = bits.shape[-1]
    symbols = num_symbols(length, bits_per_symbol)
    padding = symbols * bits_per_symbol - length
    if padding:
        zeros = xp.zeros((*bits.shape[:-1], padding), dtype=bits.dtype, device=array_api_compat.device(bits))
        bits = xp.concat([bits, zeros], axis=-1)
    return xp.reshape(bits, (*bits.shape[:-1], symbols, bits_per_symbol))


def ungroup(values: Array, num_bits: int) -> Array:
    """Inverse of `group`: (..., s, m) bits or LLRs to (..., num_bits), the padding dropped."""
    xp = namespace(values)
    flat = xp.reshape(values, (*values.shape[:-2], values.shape[-2] * values.shape[-1]))
    return flat[..., :num_bits]


def block_interleaver(length: int, rows: int) -> NDArray[np.int64]:
    """Order in which a rows x columns block interleaver sends `length` positions: written by rows, read by columns.

    With 2 rows or more, neighbours on the channel were at least ceil(length / rows) - 1 apart before, so a fade that hits
    several of them hits positions that were far apart. Rows are skipped where they are empty.

    Returns
    -------
    (length,) int64
        `sent = x[..., order]`; undo with `x[..., order] = sent`, that is `sent[..., argsort(order)]`.

    Examples
    --------
    >>> block_interleaver(7, 2)
    array([0, 4, 1, 5, 2, 6, 3])
    """
    if rows < 1:
        raise ArgumentError("rows", f"must be at least 1, got {rows}")
    rows = min(rows, max(length, 1))  # more rows than positions leave the order as it is
    columns = -(-length // rows)
    order = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns).T.ravel()
    return order[order < length]
