"""The deployed chain, end to end.

    inputs ──> transmitter.onnx ──> symbols ──> channel ──> y, no ──> receiver.onnx ──> decisions
               VQ, labels, bits,    [B,S,2]     noise,      [B,S,2]   LLRs, posterior
               grouping, QAM                    fading      [B,S]     mean, head

Nothing passes the channel but symbols. Where the bundle has several modes, a header (link.header) goes in front of the
payload, and the receiver knows a sample's mode from that alone:

    mode ──> header ──> symbols of their own ──> the same channel ──> block code ──> mode, lost, wrong

Some receivers have inputs of their own (link.side), which go round the channel: a sample is given as all its inputs by name,
the link reads them once, and each end is given its own.

Randomness is addressed by (seed, sample, draw, SNR), so the result of a sample does not depend on what else is in its batch,
but for the samples that it shares a header with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bundle import Bundle
from link.channel import Channel, Received
from link.channel.base import erase_unsent
from link.errors import ArgumentError, require_range
from link.header import HeaderOutcome, carry_headers
from link.inputs import InputReader, TaskInputs
from link.interface import TensorSpec
from link.manifest import Manifest
from link.randomness import Draws
from link.runtime import Receiver, Reception, Transmission, Transmitter
from link.snr import SNR_DB_MAX, SNR_DB_MIN, SNR_ERROR_DB_MAX


@dataclass(frozen=True)
class LinkResult:
    """One pass of a batch over the link.

    Attributes
    ----------
    sent : Transmission
    received : Received
        What the receiver was given: where a header was lost, or names a mode of fewer symbols than were sent, those that it
        does not take are erased.
    decoded : Reception
    header : HeaderOutcome or None
        None where the bundle has one mode, and no header is sent.
    """

    sent: Transmission
    received: Received
    decoded: Reception
    header: HeaderOutcome | None = None


class Conveyed(NamedTuple):
    """What comes out of the channel.

    Attributes
    ----------
    received : Received
        As the receiver takes it, see LinkResult.
    header : HeaderOutcome or None
    """

    received: Received
    header: HeaderOutcome | None

    def mode(self, sent: Transmission) -> NDArray[np.int64]:
        """Mode that the receiver takes each sample for, (B,)."""
        return sent.mode if self.header is None else self.header.mode


class Link:
    """A bundle's transmitter and receiver, to be joined by a channel.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        Threads inside one operation of ONNX Runtime.
    device : str
        Where the graphs run, see link.runtime.Transmitter.
    memory_bytes : int, optional
        What each graph may take of a GPU's memory, see link.session.open_session.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, device: str = "cpu", memory_bytes: int | None = None) -> None:
        self.bundle = bundle
        self.threads = threads
        self.device = device
        self.memory_bytes = memory_bytes
        self.manifest = bundle.manifest
        self.transmitter = Transmitter(bundle, threads, device, memory_bytes)
        self.receiver = Receiver(bundle, threads, device, memory_bytes)
        self._reader = InputReader(bundle, self.manifest.sample_inputs) if self.manifest.side_inputs else None
        self._receivers_alone = _names(self.manifest, self.manifest.sample_inputs) - _names(
            self.manifest, self.manifest.task_inputs
        )

    def __reduce__(self) -> tuple[type[Link], tuple[Bundle, int, str, int | None]]:
        """A link goes to another process as its bundle, and is opened there anew."""
        return Link, (self.bundle, self.threads, self.device, self.memory_bytes)

    def transmit(
        self,
        inputs: Mapping[str, ArrayLike],
        channel: Channel,
        snr_db: float,
        draws: Draws,
        *,
        snr_error_db: float = 0.0,
        mode: ArrayLike | None = None,
    ) -> LinkResult:
        """Encode, carry and decode a batch.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
            Of both ends, see `tensors`.
        channel : Channel
        snr_db : float
            Es/N0 in dB, in [-30, 60].
        draws : Draws
            One sample number a row; where there are several modes each number once a draw, since samples share headers by
            their numbers.
        snr_error_db : float
            See `encode`.
        mode : int or (B,) int, optional
            See `encode`.

        Raises
        ------
        ArgumentError
            If an input, the SNR or a mode is out of range.
        """
        tensors = self.tensors(inputs)
        sent = self.encode(tensors, snr_db, snr_error_db, mode)
        return self.carry(sent, channel, snr_db, draws, self.side(tensors))

    def tensors(self, inputs: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """A sample's inputs at both ends as the graphs take them, checked; texts that were cut are logged.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
            As for link.runtime.Transmitter, and beside them those that the receiver alone has.

        Raises
        ------
        ArgumentError
            If an input is missing, unknown, of the wrong shape, not finite or out of range, or a text is empty.
        """
        return self.transmitter.tensors(inputs) if self._reader is None else self._reader.tensors(inputs)

    def read(self, inputs: Mapping[str, ArrayLike]) -> TaskInputs:
        """The same, with what was seen of texts, which is not logged."""
        return self.transmitter.read(inputs) if self._reader is None else self._reader.read(inputs)

    def side(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Those of the inputs that the receiver has of its own, by name; none in most bundles."""
        return {spec.name: tensors[spec.name] for spec in self.manifest.side_inputs}

    def encode(
        self,
        inputs: Mapping[str, ArrayLike],
        snr_db: float,
        snr_error_db: float = 0.0,
        mode: ArrayLike | None = None,
    ) -> Transmission:
        """What is sent at an SNR, which matters to a bundle with a router and to no other.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
            Of the transmitter; those that the receiver alone has may be among them, and are left out.
        snr_db : float
            Es/N0 of the channel, dB.
        snr_error_db : float
            What the transmitter takes it for is snr_db + snr_error_db, within [-30, 60] dB; in [-30, 30], and 0 where there
            is no router to be misled.
        mode : int or (B,) int, optional
            Mode to send each sample in; -1, or none, leaves the choice to the transmitter.

        Raises
        ------
        ArgumentError
            If an input, the SNR or a mode is out of range.
        """
        own = {name: value for name, value in inputs.items() if name not in self._receivers_alone}
        return self.transmitter(own, self.estimate(snr_db, snr_error_db), mode)

    def estimate(self, snr_db: float, snr_error_db: float = 0.0) -> float | None:
        """What the transmitter takes the SNR for, dB; None where there is no router, and nothing depends on it.

        Parameters and errors as for `encode`.
        """
        require_snr_error(snr_error_db, self.manifest.routed)
        if not self.manifest.routed:
            return None
        require_range("snr_db", snr_db, SNR_DB_MIN, SNR_DB_MAX)
        return min(max(snr_db + snr_error_db, SNR_DB_MIN), SNR_DB_MAX)

    def carry(
        self,
        sent: Transmission,
        channel: Channel,
        snr_db: float,
        draws: Draws,
        side: Mapping[str, ArrayLike] | None = None,
    ) -> LinkResult:
        """Carry and decode what was sent; a sweep encodes once and calls this for each point and draw.

        `side` is what the receiver has of its own, see link.runtime.Receiver.
        """
        conveyed = self.convey(sent, channel, snr_db, draws)
        received, header = conveyed
        decoded = self.receiver(received.y, received.no, conveyed.mode(sent), inputs=side)
        return LinkResult(sent, received, decoded, header)

    def convey(self, sent: Transmission, channel: Channel, snr_db: float, draws: Draws) -> Conveyed:
        """Carry what was sent, with its headers, as far as the receiver."""
        received = channel(sent.symbols, sent.num_symbols, snr_db, draws)
        manifest = self.manifest
        if manifest.header is None:
            return Conveyed(received, None)
        header = carry_headers(
            sent.mode, manifest.header, len(manifest.modes), manifest.default_mode, channel, snr_db, draws
        )
        taken = np.array([mode.num_symbols for mode in manifest.modes])[header.mode]
        y, no = erase_unsent(received.y, received.no, np.where(header.lost, 0, taken))
        return Conveyed(replace(received, y=y, no=no), header)


def _names(manifest: Manifest, specs: tuple[TensorSpec, ...]) -> frozenset[str]:
    """Every name that some inputs may be given under: their own, and that of a text."""
    return frozenset((*manifest.given_as(specs), *(spec.name for spec in specs)))


def require_snr_error(snr_error_db: float, routed: bool) -> None:
    """Raise ArgumentError unless the transmitter's error is in range, and 0 where nothing depends on it."""
    require_range("snr_error_db", snr_error_db, -SNR_ERROR_DB_MAX, SNR_ERROR_DB_MAX)
    if snr_error_db and not routed:
        raise ArgumentError("snr_error_db", f"must be 0 for a bundle without a router, got {snr_error_db:g}")
