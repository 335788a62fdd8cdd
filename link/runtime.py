"""The deployed transmitter and receiver: two ONNX files over ONNX Runtime, arrays in, arrays out.

Every argument is checked here, at the boundary, so that a wrong one is named with its range before any graph runs. The
command, the server and the sweep all go through these two classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bundle import Bundle
from link.choice import read_estimate, read_mode
from link.errors import ArgumentError, BundleError
from link.inputs import InputReader
from link.inputs import TaskInputs as TaskInputs
from link.interface import MODE_INPUT, OWN_CHOICE, SNR_INPUT
from link.manifest import GraphSpec
from link.session import open_session
from link.snr import NO_MIN, SYMBOL_MAX
from link.tensors import as_tensor, require_finite, within


class Transmission(NamedTuple):
    """What one run of the transmitter sends.

    Attributes
    ----------
    mode : (B,) int64
    indices : (B, N) int64
        Codewords chosen; 0 past the mode's tokens.
    bits : (B, L) uint8
        Payload, MSB first; 0 past num_bits.
    num_bits : (B,) int64
    symbols : (B, S, 2) float32
        (I, Q), Es = 1; 0 past num_symbols.
    num_symbols : (B,) int64
    """

    mode: NDArray[np.int64]
    indices: NDArray[np.int64]
    bits: NDArray[np.uint8]
    num_bits: NDArray[np.int64]
    symbols: NDArray[np.float32]
    num_symbols: NDArray[np.int64]


class Reception(NamedTuple):
    """What one run of the receiver finds.

    Attributes
    ----------
    llr : (B, L) float32
        ln P(b=1)/P(b=0), clipped at the manifest's value; of no meaning past the mode's bits.
    indices_hat : (B, N) int64
        Most likely codewords; of no meaning past the mode's tokens.
    logits : (B, C) float32 or None
        Scores of the classes; None where a text is answered.
    pieces : (B, T) int64 or None
        The most likely piece at each position of a text; of no meaning past its end. None where a class is answered.
    log_prob : (B, T) float32 or None
        Log of its probability, nats.
    """

    llr: NDArray[np.float32]
    indices_hat: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None
    pieces: NDArray[np.int64] | None = None
    log_prob: NDArray[np.float32] | None = None

    @property
    def decisions(self) -> NDArray[np.int64]:
        """Class of each sample, (B,), the highest logit and the lowest index on ties; or the pieces of a text, (B, T)."""
        if self.pieces is not None:
            return self.pieces
        assert self.logits is not None
        return np.asarray(np.argmax(self.logits, axis=-1), dtype=np.int64)

    @property
    def score(self) -> NDArray[np.float32]:
        """Scores of the classes, (B, C), or log probability of the pieces, (B, T)."""
        score = self.logits if self.log_prob is None else self.log_prob
        assert score is not None
        return score


class Transmitter:
    """transmitter.onnx of a bundle, and its tokenizer where it carries one.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        Threads inside one operation; more than one rarely pays for small graphs.
    device : str
        "cpu", or "cuda" or "cuda:N" for a GPU.
    memory_bytes : int, optional
        What the graph may take of a GPU's memory, see link.session.open_session.

    Raises
    ------
    BundleError
        If the graph or the tokenizer cannot be loaded, or the graph's interface is not the manifest's.
    MissingExtra
        If onnxruntime is not installed; where `tokenizers` is not, only once a text is given.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, device: str = "cpu", memory_bytes: int | None = None) -> None:
        self.manifest = bundle.manifest
        self._spec = bundle.manifest.transmitter
        self._reader = InputReader(bundle, self.manifest.task_inputs)
        self._snr_range = _range(self._spec, SNR_INPUT)
        self._session = open_session(bundle, self._spec, threads, device, memory_bytes)

    def __call__(
        self, inputs: Mapping[str, ArrayLike], snr_db: ArrayLike | None = None, mode: ArrayLike | None = None
    ) -> Transmission:
        """Encode a batch.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
            The task's inputs, as the manifest names them; where the bundle has a tokenizer, a list of B texts may stand in
            place of what it makes of them.
        snr_db : float or (B,) float, optional
            The transmitter's own estimate of Es/N0, dB, in [-30, 60]: required where the bundle has a router and `mode`
            leaves it a choice, refused where it has none. Where the graph was made for a narrower range, the nearest end of
            that is taken.
        mode : int or (B,) int, optional
            Mode to send each sample in, in [0, M); -1, or none, leaves the choice to the transmitter. Bundles of before
            there was a choice take none.

        Raises
        ------
        ArgumentError
            If an input is missing, unknown, of the wrong shape, not finite or out of range.
        BundleError
            If the bundle has several modes, and the graph sends what its manifest does not have, or not as it was told.
        """
        return self.run(self.tensors(inputs), snr_db, mode)

    def run(
        self, tensors: Mapping[str, NDArray[Any]], snr_db: ArrayLike | None = None, mode: ArrayLike | None = None
    ) -> Transmission:
        """Encode what `read` or `tensors` gave; estimate, modes and errors as for a call."""
        batch = len(next(iter(tensors.values())))
        asked = read_mode(self.manifest, mode, batch)
        estimate = read_estimate(self.manifest, snr_db, batch, asked)
        feed = dict(tensors)
        if estimate is not None:
            feed[SNR_INPUT] = np.clip(estimate, *self._snr_range)
        if self.manifest.takes_mode:
            feed[MODE_INPUT] = np.full(batch, OWN_CHOICE, dtype=np.int64) if asked is None else asked
        sent = Transmission(*self._session.run(list(Transmission._fields), feed))
        if len(self.manifest.modes) > 1:
            self._check(sent, asked)
        return sent

    def _check(self, sent: Transmission, asked: NDArray[np.int64] | None) -> None:
        """Refuse to send what is not in the manifest: with several modes it would be received as something else."""
        modes = self.manifest.modes
        if not ((sent.mode >= 0) & (sent.mode < len(modes))).all():
            raise self._refused("mode", f"is not in [0, {len(modes)})")
        if asked is not None and ((asked != OWN_CHOICE) & (asked != sent.mode)).any():
            raise self._refused("mode", "is not the one that was asked for")
        for name, values in (
            ("num_bits", [mode.num_bits for mode in modes]),
            ("num_symbols", [mode.num_symbols for mode in modes]),
        ):
            if (getattr(sent, name) != np.array(values)[sent.mode]).any():
                raise self._refused(name, "is not that of the mode")
        tokens = np.array([mode.tokens for mode in modes])[sent.mode]
        for name, count in (("indices", tokens), ("bits", sent.num_bits), ("symbols", sent.num_symbols)):
            values = getattr(sent, name)
            unused = np.arange(values.shape[1]) >= count[:, None]
            if values[unused].any():
                raise self._refused(name, "is not 0 past the end of the mode")

    def _refused(self, name: str, text: str) -> BundleError:
        return BundleError(f"{self.manifest.name}: {name} of {self._spec.file} {text}; export the bundle again")

    def tensors(self, inputs: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """The task's inputs as the graph takes them, see `read`; texts that were cut or say nothing are logged."""
        return self._reader.tensors(inputs)

    def read(self, inputs: Mapping[str, ArrayLike]) -> TaskInputs:
        """The task's inputs as the graph takes them: texts as integers, all checked; see link.inputs."""
        return self._reader.read(inputs)


class Receiver:
    """receiver.onnx of a bundle; parameters and errors as for Transmitter."""

    def __init__(self, bundle: Bundle, threads: int = 1, device: str = "cpu", memory_bytes: int | None = None) -> None:
        self.manifest = bundle.manifest
        self._spec = bundle.manifest.receiver
        self._answers = [tensor.name for tensor in self._spec.outputs]
        self.tokenizer = None if bundle.manifest.task.text is None else bundle.tokenizer()
        self._side = InputReader(bundle, self.manifest.side_inputs)
        self._session = open_session(bundle, self._spec, threads, device, memory_bytes)

    def __call__(
        self,
        symbols: ArrayLike,
        no: ArrayLike,
        mode: ArrayLike | None = None,
        llr_in: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> Reception:
        """Decode a batch.

        Parameters
        ----------
        symbols : (B, S, 2) float32
            Equalised symbols as (I, Q), finite.
        no : (B, S) float32
            Noise variance per complex symbol, at least 1e-6; inf marks an erased symbol.
        mode : (B,) int64, optional
            Mode of each sample; the default mode where absent.
        llr_in : (B, L) float32, optional
            LLRs added to the demapped ones; 0 where absent. With `no` = inf they alone decide.
        inputs : mapping of name to (B, ...) array, optional
            What the receiver has of its own, as the manifest names it; a list of B texts may stand in place of what the
            tokenizer makes of them. Required where it has any.

        Raises
        ------
        ArgumentError
            If an array has the wrong shape or a value outside its range, or an input of its own is missing or unknown.
        """
        found = self.read(symbols, no, mode, llr_in, inputs)
        self._side.tell(found)
        return self.run(found.arrays)

    def texts(self, pieces: NDArray[np.int64]) -> list[str]:
        """What pieces (B, T) spell, each row up to its end, where this receiver answers texts."""
        spec = self.manifest.task.text
        assert spec is not None
        assert self.tokenizer is not None
        return self.tokenizer.texts(pieces, spec.end_id)

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> Reception:
        """Decode what `read` gave."""
        return Reception(**dict(zip(self._answers, self._session.run(self._answers, dict(tensors)), strict=True)))

    def read(
        self,
        symbols: ArrayLike,
        no: ArrayLike,
        mode: ArrayLike | None = None,
        llr_in: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> TaskInputs:
        """The arrays as the graph takes them, checked; arguments and errors as for a call."""
        y = as_tensor("symbols", symbols, "float32", (None, self.manifest.num_symbols, 2), finite=False)
        batch = len(y)
        if not within(y, -SYMBOL_MAX, SYMBOL_MAX):
            require_finite("symbols", y)
            raise ArgumentError("symbols", f"must be in [{-SYMBOL_MAX:g}, {SYMBOL_MAX:g}]")
        variances = as_tensor("no", no, "float32", (batch, self.manifest.num_symbols), finite=False)
        if not variances.min() >= NO_MIN:
            raise ArgumentError("no", f"must be at least {NO_MIN:g} (inf marks an erased symbol)")
        modes = (
            np.full(batch, self.manifest.default_mode, dtype=np.int64)
            if mode is None
            else as_tensor("mode", mode, "int64", (batch,))
        )
        if not within(modes, 0, len(self.manifest.modes) - 1):
            raise ArgumentError("mode", f"must be in [0, {len(self.manifest.modes)})")
        prior_llr = (
            np.zeros((batch, self.manifest.num_bits), dtype=np.float32)
            if llr_in is None
            else as_tensor("llr_in", llr_in, "float32", (batch, self.manifest.num_bits))
        )
        received = {"symbols": y, "no": variances, "mode": modes, "llr_in": prior_llr}
        if not inputs and not self.manifest.side_inputs:
            return TaskInputs(received, None)
        side = self._side.read(inputs or {}, batch)
        return side._replace(arrays=received | side.arrays)


def _range(spec: GraphSpec, name: str) -> tuple[np.float32, np.float32]:
    """The range that a graph has an input in; without bounds where it tells none, or has no such input."""
    low, high = next(((tensor.low, tensor.high) for tensor in spec.inputs if tensor.name == name), (None, None))
    return np.float32(-np.inf if low is None else low), np.float32(np.inf if high is None else high)
