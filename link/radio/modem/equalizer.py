"""The channel at two samples a symbol, and the linear equaliser of least mean square error for it.

    y[2k + i] = sum_j h[i + 2j] a[k - j] + w[2k + i]            E[w[i] w*[i']] = N0 r((i - i') / 2)

h is what a symbol becomes between the mapper and the matched filter: pulse, echoes, carrier phase and the fraction of a
symbol that sampling is late by. Estimated by least squares from known symbols, it gives the weights

    c = (G G^H + N0 (R + eps I))^-1 h        G[i, j] = h[i + 2j]        x[k] = c^H y[2k + .]

r is the raised cosine of the matched filter, and R nearly singular, since nothing passes beyond its band: without the
loading eps the weights there are free to grow, and do.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from link.radio.modem.pulse import Pulse
from link.snr import NO_MIN

_LOADING: Final = 0.03
"""Diagonal loading, as a share of N0."""


class Span(NamedTuple):
    """Symbols that a channel's response, or an equaliser, reaches.

    Attributes
    ----------
    before, behind : int
        Symbols before and behind the one that is sent.
    """

    before: int
    behind: int

    @property
    def half_symbols(self) -> NDArray[np.int64]:
        """Places at two samples a symbol, the symbol's own at 0."""
        return np.arange(-2 * self.before, 2 * self.behind + 2)


class Response(NamedTuple):
    """An estimate of the channel.

    Attributes
    ----------
    taps : (2 (before + behind + 1),) complex128
        h at the places of its span.
    no : float
        N0 behind the matched filter.
    """

    taps: NDArray[np.complex128]
    no: float


def estimate_response(y: NDArray[np.complex128], known: NDArray[np.complex128], span: Span) -> Response:
    """Least-squares estimate of the channel, shrunk where it is no stronger than its error.

    Parameters
    ----------
    y : (2 m,) complex
        Two samples a symbol, from the first symbol on whose `span.behind` predecessors are known.
    known : (n,) complex
        Known symbols in a row, silence among them, from those predecessors on.
    span : Span
    """
    rows = _rows(known, span)
    received = y[: 2 * len(rows)].reshape(-1, 2)
    taps = _normal_solve(rows, received)
    return _shrunk(taps, received - rows @ taps, rows.shape)


class Impairments(NamedTuple):
    """What the receiver's mixer adds, y + image conj(y) + offset, before the carrier's offset is removed."""

    image: complex
    offset: complex


def estimate_impaired(
    y: NDArray[np.complex128], known: NDArray[np.complex128], span: Span, turn: NDArray[np.complex128]
) -> tuple[Response, Impairments]:
    """The channel together with the mirror image and the offset of a direct-conversion receiver, by least squares.

    Parameters
    ----------
    y, known, span
        As for `estimate_response`.
    turn : (2 m,) complex
        By how much removing the carrier's offset turned each place of `y`: the offset by as much, the image by its square.
    """
    rows = _rows(known, span)
    count = 2 * len(rows)
    heard = np.stack([y[:count], np.conj(y[:count]) * turn[:count] ** 2, turn[:count]]).reshape(3, -1, 2)
    flat = heard.transpose(1, 0, 2).reshape(len(rows), 6)
    taps = _normal_solve(rows, flat)
    rest = (flat - rows @ taps).reshape(-1, 3, 2).transpose(1, 0, 2).reshape(3, -1)
    found = _normal_solve(rest[1:].T, rest[:1].T)[:, 0]
    taps = taps.reshape(-1, 3, 2)
    own = taps[:, 0] - np.tensordot(taps[:, 1:], found, axes=(1, 0))
    residual = rest[0] - found @ rest[1:]
    return _shrunk(own, residual, rows.shape), Impairments(*found.tolist())


def _rows(known: NDArray[np.complex128], span: Span) -> NDArray[np.complex128]:
    """Symbols that each place with known neighbours hears: a[k - j] for j from -before to behind."""
    return np.ascontiguousarray(sliding_window_view(known, span.before + span.behind + 1)[:, ::-1])


def _normal_solve(rows: NDArray[np.complex128], values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Least squares by the normal equations: known symbols are white, and these well conditioned."""
    gram = rows.conj().T @ rows
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram).real + 1e-300
    return np.asarray(np.linalg.solve(gram, rows.conj().T @ values))


def _shrunk(taps: NDArray[np.complex128], residual: NDArray[np.complex128], shape: tuple[int, ...]) -> Response:
    """Each tap but the strongest times p / (p + its error's variance), p the power around it less that variance."""
    count, unknown = shape
    no = float(np.sum(np.abs(residual) ** 2)) / (2.0 * max(1, count - unknown))
    error = no / count
    flat = taps.ravel()
    power = np.maximum(np.convolve(np.abs(flat) ** 2, np.full(3, 1.0 / 3.0), mode="same") - error, 0.0)
    factor = power / (power + error + 1e-300)
    factor[np.abs(flat).argmax()] = 1.0
    return Response(flat * factor, no)


class Equaliser(NamedTuple):
    """A linear equaliser.

    Attributes
    ----------
    weights : (n,) complex128
        c at the places of its reach, unbiased: c^H h = 1.
    no : float
        Variance of what it leaves, noise and interference, if the channel is as estimated.
    """

    weights: NDArray[np.complex128]
    no: float


def mmse_equaliser(response: Response, span: Span, reach: Span, pulse: Pulse) -> Equaliser:
    """The equaliser of least mean square error.

    Parameters
    ----------
    response : Response
        Over `span`.
    span, reach : Span
        Of the channel and of the equaliser.
    pulse : Pulse
    """
    index, inside, centre = _geometry(span, reach)
    g = np.where(inside, response.taps[index], 0.0)
    noise = _noise(reach, pulse)
    covariance = g @ g.conj().T + response.no * noise + 1e-9 * np.sum(np.abs(response.taps) ** 2) * np.eye(len(noise))
    own = g[:, centre]
    try:
        weights = cho_solve(cho_factor(covariance, lower=True, check_finite=False), own, check_finite=False)
    except LinAlgError:
        weights = own
    gain = float(np.vdot(weights, own).real)  # of the biased equaliser, the SNR over one more than it
    if not gain > 0.0:
        return Equaliser(own, 1.0)
    return Equaliser(weights / gain, max(1.0 / gain - 1.0, NO_MIN))


def one_tap_equaliser(response: Response, span: Span, reach: Span) -> Equaliser:
    """One tap at the place where the response is strongest; echoes are left as they are."""
    best = int(np.abs(response.taps).argmax())
    others = np.abs(np.delete(response.taps[best % 2 :: 2], best // 2)) ** 2
    power = float(np.abs(response.taps[best]) ** 2)
    weights = np.zeros(len(reach.half_symbols), dtype=np.complex128)
    weights[best + 2 * (reach.before - span.before)] = response.taps[best] / power
    return Equaliser(weights, max((response.no + float(others.sum())) / power, NO_MIN))


@lru_cache(maxsize=16)
def _geometry(span: Span, reach: Span) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Which tap of the response each place of G is, which of them there are, and the symbol's own column."""
    places = span.half_symbols
    neighbours = np.arange(-(reach.behind + span.before + 1), reach.before + span.behind + 2)
    index = reach.half_symbols[:, None] + 2 * neighbours - places[0]
    inside = (index >= 0) & (index < len(places))
    return np.where(inside, index, 0), inside, int(np.flatnonzero(neighbours == 0)[0])


@lru_cache(maxsize=16)
def _noise(reach: Span, pulse: Pulse) -> NDArray[np.float64]:
    """R + eps I."""
    places = reach.half_symbols
    lag = 0.5 * (places[:, None] - places)
    return pulse.correlation(lag) + _LOADING * np.eye(len(places))


def equalise(
    y: NDArray[np.complex128], weights: NDArray[np.complex128], symbols: NDArray[np.int64]
) -> NDArray[np.complex128]:
    """Some symbols, by number, from two samples a symbol, of which the first is where the weights for symbol 0 begin."""
    return np.asarray(sliding_window_view(y, len(weights))[2 * symbols] @ weights.conj())
