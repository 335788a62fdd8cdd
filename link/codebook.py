"""Tokens, codewords and what the receiver makes of LLRs.

The transmitter's two assignments share their scores, so that the softmax sharpens into the argmax and nothing else differs:

    hard   argmax_k  -d_k^2                   d_k = ||z - c_k||, lowest index on ties
    soft   softmax_k (-s d_k^2 / T)           s the codebook's scale, T = vq_temp

The receiver's estimate is the posterior mean under independent LLRs, softmax(log prior + label_bits . llr) @ codebook.
"""

from __future__ import annotations

from link.array import Array, namespace


def scores(z: Array, codebook: Array) -> Array:
    """Negative squared distances up to a constant of the token: 2 z . c - ||c||^2.

    Parameters
    ----------
    z : (..., D) float
        Tokens.
    codebook : (K, D) float
        Codewords.

    Returns
    -------
    (..., K) float
    """
    xp = namespace(z, codebook)
    return 2.0 * (z @ codebook.T) - xp.sum(codebook * codebook, axis=-1)


def nearest(z: Array, codebook: Array) -> Array:
    """Index of the nearest codeword, (..., D) to (...) int64; the lowest on ties."""
    return namespace(z).argmax(scores(z, codebook), axis=-1)


def soft_assignment(z: Array, codebook: Array, scale: float, temperature: float) -> Array:
    """Probabilities softmax(-scale d^2 / temperature), (..., D) to (..., K)."""
    return softmax(scores(z, codebook) * (scale / temperature))


def lookup(table: Array, indices: Array) -> Array:
    """Rows of a (K, ...) table for (...) indices; a gather that both array libraries and ONNX share."""
    xp = namespace(table, indices)
    rows = xp.take(table, xp.reshape(indices, (-1,)), axis=0)
    return xp.reshape(rows, (*indices.shape, *table.shape[1:]))


def posterior(llr: Array, label_bits: Array, log_prior: Array) -> Array:
    """Posterior over codewords from the LLRs of a token's bits.

    Parameters
    ----------
    llr : (..., k) float
        ln P(b = 1) / P(b = 0), assumed independent.
    label_bits : (K, k) float
        Bits of each codeword's label.
    log_prior : (K,) float
        Log of the codewords' usage in training, smoothed.

    Returns
    -------
    (..., K) float
        ln P(bits of a label) is its bits times the LLRs up to a constant, so this is exact under independence; with all
        LLRs 0 it is the prior.
    """
    return softmax(posterior_logits(llr, label_bits, log_prior))


def posterior_logits(llr: Array, label_bits: Array, log_prior: Array) -> Array:
    """Unnormalised log posterior, (..., k) to (..., K): its argmax is the most likely codeword."""
    return llr @ label_bits.T + log_prior


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    xp = namespace(x)
    weights = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)
