"""The data plane: arrays in, arrays out. Knows no gRPC, so that every protocol in front of it gives the same answers.

    transmit   inputs ──> transmitter ──> channel ──> receiver ──> decisions
    encode     inputs ──> transmitter ──> bits, symbols
    decode                              symbols, no ──> receiver ──> decisions

Requests run in the thread that brings them; ONNX Runtime and NumPy leave the interpreter's lock while they compute. Each run
of a graph goes through `link.transmitter` or `link.receiver`, and a sample stands alone: whatever joins the rows of several
requests into one run goes in place of these two, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bundle import Bundle
from link.chain import Link
from link.channel import CHANNELS, Channel, Received, build_channel
from link.codebook import softmax
from link.errors import ArgumentError, require_range
from link.provenance import code_version
from link.randomness import Draws
from link.runtime import Reception, TaskInputs, Transmission
from link.snr import SNR_DB_MAX, SNR_DB_MIN
from serve.results import Decoded, ModelInfo, Sent, Settings, Timing, Transmitted

MAX_BATCH: Final = 4096
_SAMPLE_NUMBERS: Final = 2**32


class Engine:
    """A bundle, ready to answer; any number of threads may call it at once.

    Parameters
    ----------
    bundle : Bundle
    max_batch : int
        Most samples in one call.
    threads : int
        Threads inside one operation of ONNX Runtime.

    Raises
    ------
    BundleError
        If a graph cannot be loaded.
    MissingExtra
        If onnxruntime is not installed.
    """

    def __init__(self, bundle: Bundle, *, max_batch: int = MAX_BATCH, threads: int = 1) -> None:
        self.link = Link(bundle, threads)
        self.max_batch = max_batch

    def model(self) -> ModelInfo:
        """What this engine holds and takes."""
        return ModelInfo(self.link.manifest, code_version(), CHANNELS, self.max_batch)

    def read(self, inputs: Mapping[str, ArrayLike]) -> TaskInputs:
        """A batch as the transmitter takes it: texts as integers; arguments and errors as for link.runtime.Transmitter.

        Raises
        ------
        ArgumentError
            If an input is wrong, or the batch larger than `max_batch`.
        """
        self._check_inputs(inputs)
        return self.link.transmitter.read(inputs)

    def encode(self, inputs: Mapping[str, ArrayLike], snr_db: ArrayLike | None = None) -> Transmission:
        """Encode a batch; arguments and errors as for link.runtime.Transmitter.

        Raises
        ------
        ArgumentError
            If an input is wrong, or the batch larger than `max_batch`.
        """
        self._check_inputs(inputs)
        return self.link.transmitter(inputs, snr_db)

    def decode(
        self, symbols: ArrayLike, no: ArrayLike, mode: ArrayLike | None = None, llr_in: ArrayLike | None = None
    ) -> Decoded:
        """Decode a batch; arguments and errors as for link.runtime.Receiver.

        Raises
        ------
        ArgumentError
            If an array is wrong, or the batch larger than `max_batch`.
        """
        self._check_batch("symbols", symbols)
        return self._decoded(self.link.receiver(symbols, no, mode, llr_in))

    def transmit(self, inputs: Mapping[str, ArrayLike], settings: Settings) -> Transmitted:
        """Carry a batch over the link.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
        settings : Settings

        Raises
        ------
        ArgumentError
            If an input or a setting is out of range, or the batch larger than `max_batch`.
        """
        require_range("snr_db", settings.snr_db, SNR_DB_MIN, SNR_DB_MAX)
        channel = _Timed(_channel(settings))
        start = perf_counter()
        arrays, cut, _ = self.read(inputs)
        sent = self.link.encode(arrays, settings.snr_db, settings.snr_error_db)
        encoded = perf_counter()
        draws = _draws(settings, len(sent.mode))
        # The channel's own time is taken inside, so that the link joins channel and receiver here as everywhere else.
        result = self.link.carry(sent, channel, settings.snr_db, draws)
        carried = perf_counter() - encoded
        return Transmitted(
            sent=Sent(*sent),
            y=result.received.y,
            no=result.received.no,
            decoded=self._decoded(result.decoded),
            bit_errors=_bit_errors(sent, result.decoded.llr),
            settings=_as_used(settings, channel.inner),
            timing=Timing(*(1e6 * spent for spent in (encoded - start, channel.spent, carried - channel.spent))),
            header=result.header,
            truncated=cut,
        )

    def _check_inputs(self, inputs: Mapping[str, ArrayLike]) -> None:
        for name, value in inputs.items():
            self._check_batch(f"inputs.{name}", value)

    def _check_batch(self, field: str, value: ArrayLike) -> None:
        rows = len(value) if isinstance(value, list | tuple) else (np.shape(value) or (0,))[0]
        if rows > self.max_batch:
            raise ArgumentError(field, f"must hold at most {self.max_batch} samples, got {rows}")

    def _decoded(self, reception: Reception) -> Decoded:
        classes = self.link.manifest.task.classes
        decisions = reception.decisions
        return Decoded(
            decisions=decisions,
            class_names=tuple(classes[index] if index < len(classes) else "" for index in decisions.tolist()),
            probabilities=softmax(reception.logits),
            logits=reception.logits,
            indices_hat=reception.indices_hat,
            llr=reception.llr,
        )


class _Timed:
    """A channel with a stop watch, for one call."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.name = inner.name
        self.spent = 0.0

    def __call__(self, x: NDArray[np.float32], num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        start = perf_counter()
        received = self.inner(x, num_symbols, snr_db, draws)
        self.spent += perf_counter() - start  # payload and header
        return received


def _channel(settings: Settings) -> Channel:
    """The channel asked for; an option that it has no use for is refused, lest it be believed to matter."""
    given: dict[str, Any] = {} if settings.k_factor_db is None else {"k_factor_db": settings.k_factor_db}
    name = settings.channel or "awgn"
    channel = build_channel(name, block_symbols=settings.block_symbols, **given)
    if settings.block_symbols and getattr(channel, "block_symbols", 0) != settings.block_symbols:
        raise ArgumentError("block_symbols", f"must be 0 for channel {name!r}, got {settings.block_symbols}")
    if given and getattr(channel, "k_factor_db", None) is None:
        raise ArgumentError("k_factor_db", f"must be absent for channel {name!r}, got {settings.k_factor_db:g}")
    return channel


def _draws(settings: Settings, batch: int) -> Draws:
    if not 0 <= settings.sample_offset <= _SAMPLE_NUMBERS - batch:
        raise ArgumentError(
            "sample_offset", f"must be in [0, 2**32 - {batch}] for {batch} samples, got {settings.sample_offset}"
        )
    return Draws(settings.seed, settings.sample_offset + np.arange(batch), settings.draw)


def _as_used(settings: Settings, channel: Channel) -> Settings:
    return Settings(
        snr_db=settings.snr_db,
        channel=settings.channel or "awgn",
        block_symbols=getattr(channel, "block_symbols", 0),
        k_factor_db=getattr(channel, "k_factor_db", None),
        seed=settings.seed,
        sample_offset=settings.sample_offset,
        draw=settings.draw,
        snr_error_db=settings.snr_error_db,
    )


def _bit_errors(sent: Transmission, llr: NDArray[np.float32]) -> NDArray[np.int64]:
    payload = np.arange(sent.bits.shape[1]) < sent.num_bits[:, None]
    errors: NDArray[np.int64] = (((llr > 0) != sent.bits.astype(bool)) & payload).sum(axis=1)
    return errors
