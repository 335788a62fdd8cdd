"""The settings of the AD9364 in a Pluto, as far as programs see them.

Levels: with both gains at 0 dB, full scale of the transmitter (2^15, at the top of 16 bits) enters the front end with
amplitude 1, and amplitude 1 from the front end is full scale of the receiver (2^11, 12 bits). Transmit gain, which is
negative, and receive gain are applied to the samples. A receiver that is tuned off the transmitter sees it shifted, or not
at all where half the sample rate is passed. Filters and the bandwidths of the analogue parts are taken and have no effect.

Limits of the settings are those of the AD9361 driver: https://wiki.analog.com/resources/tools-software/linux-drivers/iio-transceiver/ad9361.
"""

from __future__ import annotations

import errno
import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from link.radio.iiod.attributes import Choice, Number, Refused, parse_number

LOWEST_ADC_HZ: Final = 25e6
HIGHEST_RATE_HZ: Final = 61.44e6
TX_FULL_SCALE: Final = 2.0**15
RX_FULL_SCALE: Final = 2.0**11
MANUAL: Final = "manual"
FAST: Final = "fast_attack"
AGC_TARGET_DB: Final = -12.0
AGC_RISE_DB: Final = 1.0
FPGA_FACTOR: Final = 8
_RX_GAINS_DB: Final = (-3.0, 71.0)


class Rate:
    """Sample rate of the converters: at least 25 MHz / 12, or less by the factor of the programmable filter."""

    def __init__(self, fir: Fir) -> None:
        self.value = 30.72e6
        self._fir = fir
        fir.rate = self

    def lowest(self, enabled: bool) -> float:
        """Hz, by whether the filter is in use."""
        return LOWEST_ADC_HZ / 12 / (self._fir.factor if enabled else 1)

    def read(self) -> str:
        return f"{self.value:.0f}"

    def write(self, text: str) -> None:
        value, low = parse_number(text), np.floor(self.lowest(self._fir.enabled))
        if not low <= value <= HIGHEST_RATE_HZ:
            raise Refused(errno.EINVAL, f"must be in [{low:.0f}, {HIGHEST_RATE_HZ:.0f}], got {value:.0f}")
        self.value = float(round(value))

    def path(self, direction: str) -> str:
        """Rates along the path, as the driver gives them: two halvings, the filter, and 2 more of the ADC over the DAC."""
        factor = self._fir.factor if self._fir.enabled else 1
        first, second, third = (self.value * factor * step for step in (4, 2, 1))
        while first * 2 <= 320e6 and first < LOWEST_ADC_HZ:
            first, second, third = first * 2, second * 2, third * 2
        if direction == "rx":
            names = ("BBPLL", "ADC", "R2", "R1", "RF", "RXSAMP")
        else:
            names = ("BBPLL", "DAC", "T2", "T1", "TF", "TXSAMP")
        rates = (first * 8, first, second, third, self.value * factor, self.value)
        return " ".join(f"{name}:{rate:.0f}" for name, rate in zip(names, rates, strict=True))


class Fir:
    """The programmable filter: taps that are taken, checked and not applied, a factor, and whether it is in use."""

    rate: Rate

    def __init__(self) -> None:
        self.enabled, self.factor, self.taps = False, 1, 0

    def read(self) -> str:
        return f"FIR Rx: {self.taps},{self.factor} Tx: {self.taps},{self.factor}"

    def write(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        taps = [line for line in lines if re.fullmatch(r"-?\d+\s*,\s*-?\d+", line)]
        heads = [re.match(r"[RT]X\s+\d+\s+GAIN\s+-?\d+\s+(?:DEC|INT)\s+([124])$", line) for line in lines]
        factors = {int(head[1]) for head in heads if head}
        if not 16 <= len(taps) <= 128 or len(taps) % 16 or len(factors) != 1:
            raise Refused(errno.EINVAL, "must be RX and TX lines of the same factor and 16, 32, ... 128 lines of taps")
        self.taps, self.factor = len(taps), factors.pop()


class FirEnable:
    """Whether the filter is in use; it cannot be taken out where the rate needs it."""

    def __init__(self, fir: Fir) -> None:
        self._fir = fir

    def read(self) -> str:
        return str(int(self._fir.enabled))

    def write(self, text: str) -> None:
        wanted = {"0": False, "false": False, "1": True, "true": True}.get(text.lower())
        if wanted is None:
            raise Refused(errno.EINVAL, "must be 0 or 1")
        if wanted and not self._fir.taps:
            raise Refused(errno.EINVAL, "no taps are loaded")
        if self._fir.rate.value < np.floor(self._fir.rate.lowest(wanted)):
            raise Refused(errno.EINVAL, "the sample rate needs the filter")
        self._fir.enabled = wanted


class FpgaRate:
    """Rate at a converter's core: that of the converters, or an eighth of it."""

    def __init__(self, rate: Rate) -> None:
        self.factor = 1
        self._rate = rate

    @property
    def value(self) -> float:
        """Hz."""
        return self._rate.value / self.factor

    def read(self) -> str:
        return f"{self.value:.0f}"

    def available(self) -> str:
        """The two rates there are."""
        return f"{self._rate.value:.0f} {self._rate.value / FPGA_FACTOR:.0f} "

    def write(self, text: str) -> None:
        wanted = parse_number(text)
        for factor in (1, FPGA_FACTOR):
            if abs(wanted - self._rate.value / factor) <= 1:
                self.factor = factor
                return
        raise Refused(errno.EINVAL, f"must be one of {self.available()}")


class RxGain:
    """Receive gain, set by hand or by an automatic gain control.

    The control aims at a mean power of 12 dB below full scale: it falls at once, before a block clips, rises by at most 1 dB
    a block (`fast_attack`: at once), and holds where nothing is received.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self.mode = Choice("slow_attack", (MANUAL, FAST, "slow_attack", "hybrid"))

    def read(self) -> str:
        return f"{self.value:f} dB"

    def write(self, text: str) -> None:
        if self.mode.value != MANUAL:
            raise Refused(errno.EOPNOTSUPP, "the gain is set by its control; set gain_control_mode to manual first")
        gain = Number(self.value, *_RX_GAINS_DB)
        gain.write(text)
        self.value = gain.value

    def control(self, mean_power: float) -> float:
        """Amplitude gain for a block of that mean power."""
        if self.mode.value != MANUAL and mean_power > 1e-12:
            wanted = AGC_TARGET_DB - 10 * np.log10(mean_power)
            most = wanted if self.mode.value == FAST else self.value + AGC_RISE_DB
            self.value = float(np.clip(min(wanted, most), *_RX_GAINS_DB))
        return float(10 ** (self.value / 20))


class Tone:
    """One of the four tone generators, which send while no buffer is open."""

    def __init__(self) -> None:
        self.frequency = Number(0.0, 0.0, HIGHEST_RATE_HZ / 2)
        self.phase = Number(0.0, 0.0, 360_000.0)  # thousandths of a degree
        self.scale = Number(0.0, 0.0, 1.0, 1e-6, "{:f}")
        self.raw = Choice("0", ("0", "1"))

    def wave(self, time_s: NDArray[np.float64]) -> NDArray[np.float64] | float:
        """(n,): a sine, 0 where it is off."""
        if self.raw.value == "0" or not self.scale.value:
            return 0.0
        turns = self.frequency.value * time_s + self.phase.value / 360_000
        return self.scale.value * np.sin(2 * np.pi * turns)


class Phy:
    """Every setting that has an effect, or that a program reads back."""

    def __init__(self) -> None:
        self.fir = Fir()
        self.fir_enable = FirEnable(self.fir)
        self.rate = Rate(self.fir)
        self.rx_rate, self.tx_rate = FpgaRate(self.rate), FpgaRate(self.rate)
        self.rx_lo = Number(2.4e9, 70e6, 6e9)
        self.tx_lo = Number(2.4e9, 46_875_001, 6e9)
        self.rx_bandwidth = Number(18e6, 200e3, 56e6)
        self.tx_bandwidth = Number(18e6, 200e3, 40e6)
        self.rx_gain = RxGain()
        self.tx_gain = Number(-10.0, -89.75, 0.0, 0.25, "{:f} dB")
        self.tones = tuple(Tone() for _ in range(4))  # of I, I, Q, Q
        self.rssi_db = 0.0
