"""Frames as they were received, one by one: what is said of each, and its symbols, LLRs and decisions as arrays."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from link.radio.modem.demodulator import ReceivedFrame
from link.radio.recording.marks import frame_fields


class FrameRow(NamedTuple):
    """What is said of a frame.

    Attributes
    ----------
    exchange : int or None
        In which it came; None where the recording does not say.
    start : float
        Sample of the recording in which its first symbol stands.
    version, mode, sequence, length : int
        Of its header.
    cfo, clock_ppm, snr_db, evm, crc_ok
        See link.radio.modem.receiver.ReceivedFrame.
    """

    exchange: int | None
    start: float
    version: int
    mode: int
    sequence: int
    length: int
    cfo: float
    clock_ppm: float
    snr_db: float
    evm: float
    crc_ok: bool | None


class LlrDigest:
    """sha256 over the LLRs of frames, float32, little-endian."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, frame: ReceivedFrame) -> None:
        """The next frame; one of no known constellation has no LLRs."""
        if (llr := frame.llr) is not None:
            self._hash.update(llr.astype("<f4").tobytes())

    @property
    def hex(self) -> str:
        """Digits of it so far."""
        return self._hash.hexdigest()


class FrameLog:
    """Frames in the order of arrival.

    Parameters
    ----------
    keeps_symbols : bool
        Whether symbols and LLRs are kept, or what is said of the frames alone.

    Attributes
    ----------
    rows : list of FrameRow
    digest : LlrDigest
    """

    def __init__(self, *, keeps_symbols: bool) -> None:
        self.rows: list[FrameRow] = []
        self.digest = LlrDigest()
        self._keeps_symbols = keeps_symbols
        self._symbols: list[NDArray[np.complex128]] = []
        self._no: list[NDArray[np.float64]] = []
        self._llr: list[NDArray[np.float32]] = []
        self._decisions: list[NDArray[np.int64]] = []

    def add(self, exchange: int | None, start: float, frame: ReceivedFrame) -> None:
        """The next frame."""
        fields: dict[str, Any] = frame_fields(frame)
        self.rows.append(FrameRow(exchange, start, **fields))
        self.digest.add(frame)
        if self._keeps_symbols:
            llr = frame.llr
            self._symbols.append(frame.payload)
            self._no.append(frame.no)
            self._llr.append(np.zeros(0, np.float32) if llr is None else llr.ravel())

    def decide(self, decisions: NDArray[np.int64]) -> None:
        """What a bundle decided of the next batch."""
        self._decisions.append(decisions)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, a row a frame, where symbols were kept.

        Returns
        -------
        dict
            exchange : (n,) int64, -1 where it is not known. start, cfo, clock_ppm, snr_db, evm : (n,) float64.
            version, mode, sequence, length : (n,) int64. crc_ok : (n,) int8, -1 where it is not known.
            symbols : (sum of lengths, 2) float32 as (I, Q); no : (sum of lengths,) float64; frame i's from
            symbol_ends[i - 1] to symbol_ends[i].
            llr : (bits,) float32 and bits : (bits,) uint8, MSB first; frame i's from bit_ends[i - 1] to bit_ends[i].
            decisions : (rows,) int64, of a bundle.
        """
        integers = ("version", "mode", "sequence", "length")
        columns = {name: [getattr(row, name) for row in self.rows] for name in FrameRow._fields}
        found: dict[str, NDArray[Any]] = {
            name: np.array(values, dtype=np.int64 if name in integers else np.float64)
            for name, values in columns.items()
            if name not in ("exchange", "crc_ok")
        }
        found["exchange"] = np.array([-1 if value is None else value for value in columns["exchange"]], dtype=np.int64)
        found["crc_ok"] = np.array([-1 if value is None else value for value in columns["crc_ok"]], dtype=np.int8)
        symbols = np.concatenate([np.zeros(0, np.complex128), *self._symbols])
        found["symbols"] = np.stack([symbols.real, symbols.imag], axis=-1).astype(np.float32)
        found["no"] = np.concatenate([np.zeros(0), *self._no])
        found["symbol_ends"] = np.cumsum([len(part) for part in self._symbols], dtype=np.int64)
        found["llr"] = np.concatenate([np.zeros(0, np.float32), *self._llr])
        found["bits"] = (found["llr"] > 0.0).astype(np.uint8)
        found["bit_ends"] = np.cumsum([len(part) for part in self._llr], dtype=np.int64)
        if self._decisions:
            found["decisions"] = np.concatenate(self._decisions)
        return found
