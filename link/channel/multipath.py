"""Paths of the link-level channels of 3GPP TR 38.901, sections 7.7.1 (CDL) and 7.7.2 (TDL), as Sionna generates them.

TDL   each tap is the sum of 20 sinusoids of random phase and direction (Xiao, Zheng, Beaulieu 2006, "Novel sum-of-sinusoids
      simulation models for Rayleigh and Rician fading channels", IEEE Trans. Wireless Commun. 5); the first of D and E has a
      line of sight, of Doppler shift 0.7 of the largest
CDL   each cluster is the sum of 20 rays of given angles, coupled at random, each with a random phase; one antenna at either
      end, vertical and omnidirectional, so that angles of departure and polarisation come to nothing; the user moves at the
      given speed in a random direction

Either is of mean power 1. A realisation belongs to one sample, and all random numbers in it have that sample's address. It
is computed in float64, and a row of it is the same to the last bit in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import j0

from link.channel import TR38901
from link.channel.fence import addressed, import_sionna
from link.errors import ArgumentError, require_range
from link.randomness import Draws, Stream

LONGEST_DELAY: Final = {"a": 9.6586, "b": 4.7834, "c": 8.6523, "d": 12.525, "e": 20.6519}
"""Delay of the last path over the delay spread, by profile (TR 38.901, tables 7.7.1-1 to -5 and 7.7.2-1 to -5)."""

SPEED_OF_LIGHT: Final = 299_792_458.0

_SIGHT_COSINE: Final = 0.7
_DIRECTIONS: Final = 64
"""Zenith angles of motion that the correlation of a CDL is averaged over; the midpoint rule converges exponentially."""


class Realisation(NamedTuple):
    """Paths of B samples.

    Attributes
    ----------
    coefficients : (B, P, T) complex128
        Of each path at T instants.
    delays : (P,) float64
        Seconds.
    """

    coefficients: NDArray[np.complex128]
    delays: NDArray[np.float64]


class Moments(NamedTuple):
    """Second moments of the paths, which are uncorrelated; a line of sight is a path of its own.

    Attributes
    ----------
    powers : (P,) float64
        They sum to 1.
    delays : (P,) float64
        Seconds.
    zeniths : (P, R) float64 or None
        CDL: zenith angles of arrival of each path's R equally strong rays, radian. None for a TDL.
    sight : int or None
        Which of a TDL's paths is the line of sight.
    """

    powers: NDArray[np.float64]
    delays: NDArray[np.float64]
    zeniths: NDArray[np.float64] | None = None
    sight: int | None = None


@dataclass(frozen=True)
class Multipath:
    """A power delay profile, scaled, and how fast its user moves.

    Parameters
    ----------
    profile : str
        One of link.channel.TR38901.
    delay_spread_ns : float
        Root mean square delay spread, in [0, 1000] ns.
    speed_kmh : float
        In [0, 500] km/h.
    carrier_ghz : float
        Carrier frequency, in [0.5, 100] GHz.

    Raises
    ------
    ArgumentError
        If one is out of range.
    """

    profile: str
    delay_spread_ns: float = 100.0
    speed_kmh: float = 30.0
    carrier_ghz: float = 3.5

    def __post_init__(self) -> None:
        if self.profile not in TR38901:
            raise ArgumentError("profile", f"must be one of {', '.join(TR38901)}, got {self.profile!r}")
        require_range("delay_spread_ns", self.delay_spread_ns, 0.0, 1000.0)
        require_range("speed_kmh", self.speed_kmh, 0.0, 500.0)
        require_range("carrier_ghz", self.carrier_ghz, 0.5, 100.0)

    @property
    def doppler_hz(self) -> float:
        """Largest Doppler shift.

        Examples
        --------
        >>> round(Multipath("tdl-c").doppler_hz, 1)
        97.3
        """
        return self.speed_kmh / 3.6 * self.carrier_ghz * 1e9 / SPEED_OF_LIGHT

    @property
    def longest_delay_s(self) -> float:
        """Delay of the last path behind the first, seconds."""
        return LONGEST_DELAY[self.profile[-1]] * self.delay_spread_ns * 1e-9

    def realise(self, instants: int, rate_hz: float, point: int, draws: Draws) -> Realisation:
        """Paths at `instants` instants, `rate_hz` a second, of each sample; stream FADING is taken from.

        Raises
        ------
        MissingExtra
            If Sionna is not installed.
        """
        model = _model(self)
        with addressed(draws, Stream.FADING, point):
            coefficients, delays = model(len(draws.samples), instants, rate_hz)
        paths = delays.shape[-1]
        return Realisation(
            coefficients.numpy().reshape(len(draws.samples), paths, instants),
            delays.numpy().reshape(len(draws.samples), paths)[0],
        )

    def covariance(self, lag_s: NDArray[np.float64], offset_hz: NDArray[np.float64]) -> NDArray[np.complex128]:
        """E[h(t + lag, f + offset) h*(t, f)] of the gains, (n, m), over the phase of a line of sight too.

        It is sum_p P_p rho_p(lag) exp(-j 2 pi offset tau_p), with rho_p = J0(2 pi f_D lag) for a tap of a TDL (Clarke 1968).
        A user of a CDL moves in a direction whose azimuth and zenith are uniform: for a ray of zenith theta

            rho = 1/pi int_0^pi J0(a sin v sin theta) cos(a cos v cos theta) dv        a = 2 pi f_D lag
        """
        moments = _moments(self)
        turned = np.exp(-2j * np.pi * np.multiply.outer(moments.delays, offset_hz))
        angle = 2.0 * np.pi * self.doppler_hz * lag_s
        if moments.zeniths is None:
            rho = np.repeat(j0(angle)[None].astype(np.complex128), len(moments.delays), axis=0)
            if moments.sight is not None:
                rho[moments.sight] = np.exp(1j * angle * _SIGHT_COSINE)
        else:
            motion = (np.arange(_DIRECTIONS) + 0.5) * (np.pi / _DIRECTIONS)
            theta, a = moments.zeniths[:, :, None, None], angle[:, None]
            across, along = np.sin(motion) * np.sin(theta), np.cos(motion) * np.cos(theta)
            rho = np.mean(j0(a * across) * np.cos(a * along), axis=(1, 3)).astype(np.complex128)
        return np.asarray(np.einsum("p,pn,pm->nm", moments.powers, rho, turned))


@lru_cache(maxsize=32)
def _model(multipath: Multipath) -> Any:
    """Sionna's own object, on the CPU and in double precision."""
    import_sionna()
    from sionna.phy.channel import tr38901

    family, letter = multipath.profile.upper().split("-")
    speed, carrier_hz = multipath.speed_kmh / 3.6, multipath.carrier_ghz * 1e9
    where = {"precision": "double", "device": "cpu"}
    common = {"delay_spread": multipath.delay_spread_ns * 1e-9, "carrier_frequency": carrier_hz, "min_speed": speed}
    if family == "TDL":
        return tr38901.TDL(letter, los_angle_of_arrival=float(np.arccos(_SIGHT_COSINE)), **common, **where)
    antenna = tr38901.Antenna(
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=carrier_hz,
        **where,
    )
    return tr38901.CDL(
        letter, ut_array=antenna, bs_array=antenna, direction="downlink", max_speed=speed, **common, **where
    )


@lru_cache(maxsize=32)
def _moments(multipath: Multipath) -> Moments:
    """What Sionna's tables say of the paths."""
    model = _model(multipath)
    if multipath.profile.startswith("tdl"):
        powers, delays = model.mean_powers.numpy(), model.delays.numpy()
        if not model.los:
            return Moments(powers, delays)
        sight = float(model.mean_power_los)
        return Moments(
            np.append(powers - sight * (np.arange(len(powers)) == 0), sight), np.append(delays, 0.0), None, -1
        )
    # A CDL does not publish its table.
    k_factor = float(model._k_factor)
    powers, delays, zeniths = model._powers.numpy() / (1.0 + k_factor), model._delays.numpy(), model._zoa.numpy()
    if not model._has_los:
        return Moments(powers, delays, zeniths)
    sight_zenith = np.full((1, zeniths.shape[1]), float(model._los_zoa))
    return Moments(
        np.append(powers, k_factor / (1.0 + k_factor)),
        np.append(delays, 0.0),
        np.concatenate([zeniths, sight_zenith]),
    )
