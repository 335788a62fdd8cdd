"""What a run sends, exchange by exchange: payloads of random bits, or a data set through a bundle.

Exchange `number` of a run is the same in every run with the same settings, and in its replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from link.bits import group
from link.chain import Link, LinkResult
from link.channel.base import Received
from link.constellation import bits_per_symbol, map_bits
from link.errors import ArgumentError
from link.montecarlo import Proportion, clustered_proportion
from link.radio.channel import Drop, RadioChannel
from link.radio.modem.frame import as_complex
from link.randomness import SEED_MAX, Draws, Stream


class TrafficSpec(BaseModel):
    """Which payloads a run sends; a recording keeps it, and its replay goes by it.

    Attributes
    ----------
    payload : {"random", "bundle"}
    order : int
        Of the square QAM of random payloads.
    seed : int
        Of random payloads, and of the noise of a simulated front end.
    snr_db : float or None
        Es/N0 that is asked for, dB; None takes the radio as it is.
    exchange_frames : int
        Frames sent together; of a bundle's samples as many as fill them.
    bundle, data : str or None
        sha256 of the bundle's transmitter, and of the inputs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    payload: Literal["random", "bundle"] = "random"
    order: int = 16
    seed: int = Field(0, ge=0, le=SEED_MAX)
    snr_db: float | None = Field(None, ge=-30.0, le=60.0)
    exchange_frames: int = Field(16, ge=1, le=1024)
    bundle: str | None = None
    data: str | None = None


class Traffic(Protocol):
    """Something to send."""

    def send(self, radio: RadioChannel, number: int, most: int | None) -> LinkResult | None:
        """Send exchange `number`, of at most so many frames where it can be cut; what a bundle made of it."""
        ...


class RandomTraffic:
    """Frames full of random bits.

    Parameters
    ----------
    spec : TrafficSpec
    payload_symbols : int
        In a frame.

    Raises
    ------
    ArgumentError
        If there is no such constellation.
    """

    def __init__(self, spec: TrafficSpec, payload_symbols: int) -> None:
        self._spec = spec
        self._symbols = payload_symbols
        self._bits = bits_per_symbol(spec.order)

    def send(self, radio: RadioChannel, number: int, most: int | None) -> None:
        self.burst(radio, number, most)

    def burst(self, radio: RadioChannel, number: int, most: int | None = None) -> Drop:
        """Send exchange `number`; what became of it."""
        count = self._spec.exchange_frames if most is None else min(most, self._spec.exchange_frames)
        numbers = (number * self._spec.exchange_frames + np.arange(count)) % 2**32
        draws = Draws(self._spec.seed, numbers)
        bits = draws.bits(Stream.BITS, 0, self._bits * self._symbols)
        symbols = as_complex(map_bits(group(bits.astype(np.float64), self._bits)))
        return radio.drop(list(symbols), self._spec.snr_db, draws)


class Decided(NamedTuple):
    """Decisions about samples whose classes are known.

    Attributes
    ----------
    decisions, correct : int
    accuracy : Proportion
        With the interval over samples, each as often as it was sent.
    """

    decisions: int
    correct: int
    accuracy: Proportion


class BundleTraffic:
    """A data set through a bundle, again and again; each pass is a draw.

    Parameters
    ----------
    spec : TrafficSpec
    link : Link
    inputs : mapping of name to (n, ...) array
    labels : (n,) int or None
        The right classes, where they are known.
    payload_symbols : int
        In a frame at most.

    Raises
    ------
    ArgumentError
        If the bundle has a router, which goes by the SNR, and none is given.
    """

    def __init__(
        self,
        spec: TrafficSpec,
        link: Link,
        inputs: Mapping[str, NDArray[Any]],
        labels: NDArray[np.integer] | None,
        payload_symbols: int,
    ) -> None:
        if link.manifest.routed and spec.snr_db is None:
            raise ArgumentError("snr_db", "must be given for a bundle whose router goes by it")
        self._spec = spec
        self._link = link
        self._inputs = link.tensors(inputs)
        self._labels = labels
        self._size = len(next(iter(self._inputs.values())))
        share = 1 if link.manifest.header is None else link.manifest.header.frame_samples
        rows = spec.exchange_frames * payload_symbols // link.manifest.num_symbols
        self._rows = max(1, rows // share) * share
        self._sent, self._correct = np.zeros((2, self._size), dtype=np.int64)

    def send(self, radio: RadioChannel, number: int, most: int | None) -> LinkResult:
        batches = -(-self._size // self._rows)
        draw, batch = divmod(number, batches)
        rows = np.arange(batch * self._rows, min((batch + 1) * self._rows, self._size))
        snr_db = 0.0 if self._spec.snr_db is None else self._spec.snr_db
        inputs = {name: values[rows] for name, values in self._inputs.items()}
        sent = self._link.encode(inputs, snr_db)
        channel = radio if self._spec.snr_db is not None else _AsItIs(radio)
        draws = Draws(self._spec.seed, rows, draw % 2**32)
        result = self._link.carry(sent, channel, snr_db, draws, self._link.side(inputs))
        if self._labels is not None:
            self._sent[rows] += 1
            self._correct[rows] += result.decoded.decisions == self._labels[rows]
        return result

    @property
    def data_sha256(self) -> str:
        """Of the inputs as the graph takes them."""
        found = hashlib.sha256()
        for name, values in sorted(self._inputs.items()):
            found.update(f"{name} {values.dtype.str} {values.shape} ".encode())
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    @property
    def decided(self) -> Decided | None:
        """What was decided so far; None where nothing was, or no classes are known."""
        decisions, correct = int(self._sent.sum()), int(self._correct.sum())
        return Decided(decisions, correct, clustered_proportion(self._correct, self._sent)) if decisions else None


class _AsItIs:
    """A radio whose SNR is left as it is, whatever is asked for."""

    def __init__(self, radio: RadioChannel) -> None:
        self.name = radio.name
        self._radio = radio

    def __call__(self, x: Any, num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        return self._radio(x, num_symbols, None, draws)
