"""Labels of codewords that survive bit errors: neighbours in the latent space get labels that differ in few bits.

`pca_gray` gives a start, the Binary Switching Algorithm (Zeger and Gersho 1990, "Pseudo-Gray coding", IEEE Trans. Commun.
38(12), 2147-2158) improves it on the usage-weighted distortion of single bit errors, which dominate at the bit error rates
that a link is run at. `channel_distortion` is the exact figure, for errors in any number of bits.

A label is a vertex of the k-dimensional cube and a single bit error moves along one of its edges. So for codewords i and j,
used with probabilities p_i and p_j, an edge along bit b costs

    e_b (p_i + p_j) ||c_i - c_j||^2          e_b the error rate of bit b

and the cost of a labelling is the sum over the edges.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.errors import ArgumentError

# Gains below this part of the cost are rounding; accepting them could cycle.
_LEAST_GAIN: Final = 1e-12


def pca_gray(codebook: ArrayLike) -> NDArray[np.int64]:
    """Labels by recursive median splits along the principal axes, Gray along each axis.

    Every cell is halved at its median along one principal axis of the whole codebook, k times. The next axis is the one of
    largest remaining variance, where a split leaves a quarter (a uniform density). Where an axis is split again its bits are
    reflected, so that cells that touch along an axis differ in one bit.

    Parameters
    ----------
    codebook : (K, D) float
        Codewords; K a power of two.

    Returns
    -------
    (K,) int64
        Label of each codeword, a permutation of 0 to K - 1; the first split is the most significant bit.

    Raises
    ------
    ArgumentError
        If the codebook is no finite (K, D) array or K no power of two.

    Examples
    --------
    >>> pca_gray([[0.0], [1.0], [2.0], [3.0]])
    array([0, 1, 3, 2])
    """
    codewords = _codewords(codebook)
    count = len(codewords)
    variances, axes = np.linalg.eigh(codewords.T @ codewords)
    # An eigenvector's sign is arbitrary; without a rule the labels would depend on the LAPACK at hand.
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0.0, -1.0, 1.0)
    projections = codewords @ axes
    last_side: dict[int, NDArray[np.int64]] = {}
    labels = np.zeros(count, dtype=np.int64)
    cells = np.arange(count, dtype=np.int64)[None, :]
    for _ in range(_label_width(count)):
        axis = int(variances.argmax())
        variances[axis] /= 4.0
        order = np.argsort(projections[cells, axis], axis=1, kind="stable")
        cells = np.take_along_axis(cells, order, axis=1).reshape(2 * len(cells), -1)
        side = np.empty(count, dtype=np.int64)
        side[cells] = np.arange(len(cells), dtype=np.int64)[:, None] & 1
        labels = 2 * labels + (side ^ last_side.get(axis, 0))
        last_side[axis] = side
    return labels


def binary_switching(
    codebook: ArrayLike,
    usage: ArrayLike,
    labels: ArrayLike,
    bit_error_rates: ArrayLike | None = None,
    max_passes: int = 100,
) -> NDArray[np.int64]:
    """Swap labels while that lowers the distortion of single bit errors.

    A pass takes the codewords by falling cost and gives each the swap that gains most, if any gains. It ends at a labelling
    that no swap of two improves, or after `max_passes`.

    Parameters
    ----------
    codebook : (K, D) float
        Codewords; K a power of two.
    usage : (K,) float
        How often each codeword is sent: probabilities or counts, not negative.
    labels : (K,) int
        Where to start; a permutation of 0 to K - 1.
    bit_error_rates : (k,) float, optional
        Error rate of each bit of a label, MSB first; only their ratios matter. Equal where absent.
    max_passes : int

    Returns
    -------
    (K,) int64
        Labels of no higher cost than at the start; the same for the same arguments.

    Raises
    ------
    ArgumentError
        If an argument has the wrong shape or range.

    Examples
    --------
    >>> binary_switching([[0.0], [1.0], [2.0], [3.0]], np.ones(4), [0, 3, 1, 2])
    array([1, 3, 0, 2])
    """
    codewords = _codewords(codebook)
    labels = _labels(labels, len(codewords))
    probabilities = _probabilities(usage, len(codewords))
    width = _label_width(len(codewords))
    rates = _rates(1.0 if bit_error_rates is None else bit_error_rates, width)
    edge_costs = (probabilities[:, None] + probabilities) * _squared_distances(codewords)
    flips = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
    neighbours = np.arange(len(codewords), dtype=np.int64)[:, None] ^ flips
    # rate_between[a ^ b] is the rate of the bit in which labels a and b differ, 0 unless it is exactly one.
    rate_between = np.zeros(len(codewords))
    rate_between[flips] = rates

    labels = labels.copy()
    codeword_at = np.argsort(labels)
    costs = _vertex_costs(edge_costs, rates, neighbours, labels, codeword_at)
    for _ in range(max_passes):
        improved = False
        for i in np.argsort(-costs, kind="stable"):
            here = labels[i]
            # What codeword i would cost at every other codeword's label, and they at its label.
            there = edge_costs[i, codeword_at[neighbours]] @ rates
            change = there[labels] + rates @ edge_costs[codeword_at[neighbours[here]]] - costs[i] - costs
            # Two that share an edge still share it after the swap.
            change += 2.0 * rate_between[labels ^ here] * edge_costs[i]
            change[i] = 0.0
            j = change.argmin()
            if change[j] < -_LEAST_GAIN * costs.sum():
                labels[i], labels[j] = labels[j], here
                codeword_at[labels[i]], codeword_at[labels[j]] = i, j
                costs = _vertex_costs(edge_costs, rates, neighbours, labels, codeword_at)
                improved = True
        if not improved:
            break
    return labels


def channel_distortion(codebook: ArrayLike, usage: ArrayLike, labels: ArrayLike, bit_error_rates: ArrayLike) -> float:
    """Expected squared error of a codeword decided from bits with independent errors, exact over all error patterns.

    Parameters
    ----------
    codebook : (K, D) float
        Codewords; K a power of two.
    usage : (K,) float
        How often each codeword is sent: probabilities or counts, not negative.
    labels : (K,) int
        Label of each codeword; a permutation of 0 to K - 1.
    bit_error_rates : float or (k,) float
        Error rate of each bit of a label, MSB first, in [0, 1].

    Returns
    -------
    float
        E ||c - c_hat||^2, in the codebook's units squared.

    Examples
    --------
    >>> channel_distortion([[-1.0], [1.0]], [0.5, 0.5], [0, 1], 0.25)
    1.0
    """
    codewords = _codewords(codebook)
    labels = _labels(labels, len(codewords))
    probabilities = _probabilities(usage, len(codewords))
    pattern_probability = np.ones(1)
    for rate in _rates(bit_error_rates, _label_width(len(codewords))):
        pattern_probability = (pattern_probability[:, None] * np.array([1.0 - rate, rate])).ravel()
    transitions = pattern_probability[labels[:, None] ^ labels]
    return float(probabilities @ np.sum(transitions * _squared_distances(codewords), axis=1))


def _vertex_costs(
    edge_costs: NDArray[np.float64],
    rates: NDArray[np.float64],
    neighbours: NDArray[np.int64],
    labels: NDArray[np.int64],
    codeword_at: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Cost of the edges at each codeword, (K,); each edge is counted at both its ends."""
    costs: NDArray[np.float64] = edge_costs[np.arange(len(labels))[:, None], codeword_at[neighbours[labels]]] @ rates
    return costs


def _squared_distances(codewords: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sum(codewords * codewords, axis=1)
    squares: NDArray[np.float64] = np.maximum(norms[:, None] + norms - 2.0 * (codewords @ codewords.T), 0.0)
    np.fill_diagonal(squares, 0.0)
    return squares


def _label_width(count: int) -> int:
    return count.bit_length() - 1


def _codewords(codebook: ArrayLike) -> NDArray[np.float64]:
    """The codebook about its mean: distances stay, and lose less to cancellation."""
    codewords = np.asarray(codebook, dtype=np.float64)
    count = len(codewords) if codewords.ndim == 2 else 0
    if count < 2 or count & (count - 1) or not np.isfinite(codewords).all():
        raise ArgumentError("codebook", f"must be finite, (K, D) with K a power of two, got shape {codewords.shape}")
    centred: NDArray[np.float64] = codewords - codewords.mean(axis=0)
    return centred


def _labels(labels: ArrayLike, count: int) -> NDArray[np.int64]:
    values = np.asarray(labels, dtype=np.int64)
    if values.shape != (count,) or not (np.sort(values) == np.arange(count)).all():
        raise ArgumentError("labels", f"must be a permutation of 0 to {count - 1}")
    return values


def _probabilities(usage: ArrayLike, count: int) -> NDArray[np.float64]:
    values = np.asarray(usage, dtype=np.float64)
    if values.shape != (count,) or not (values >= 0.0).all() or not 0.0 < values.sum() < np.inf:
        raise ArgumentError("usage", f"must be ({count},), not negative and not all 0")
    probabilities: NDArray[np.float64] = values / values.sum()
    return probabilities


def _rates(bit_error_rates: ArrayLike, width: int) -> NDArray[np.float64]:
    values = np.asarray(bit_error_rates, dtype=np.float64)
    if values.shape not in ((), (width,)) or not ((values >= 0.0) & (values <= 1.0)).all():
        raise ArgumentError("bit_error_rates", f"must be one rate or {width}, in [0, 1]")
    return np.broadcast_to(values, (width,))
