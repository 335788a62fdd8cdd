"""A data set over a bundle's link, block by block: what a semantic sweep asks the simulator to run.

    inputs ─┬─encode──> symbols ── block: one draw of some thousand rows ──> channel ──> receiver ──> counts
            └─ side inputs, where the receiver has some of its own ─────────────────────────┘

Noise is addressed by (seed, sample, draw, SNR), with a sample's row as its number. A bundle with a router encodes at each
point anew, since what it sends depends on the SNR; any other encodes once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.chain import Link
from link.channel import Channel
from link.channel.base import erase_unsent
from link.channel.frames import FrameCounts
from link.constellation import bits_per_symbol
from link.device import host_engine
from link.grid import SweepSpec
from link.montecarlo import ClusterSums, cluster_sums
from link.randomness import Draws
from link.runtime import Transmission
from link.snr import NO_MIN, SNR_DB_MAX, millidecibels
from link.stopping import Tally
from link.text_quality import sentence_statistics
from link.truth import UNJUDGED, up_to_the_end

PART_ROWS: Final = 4096
"""Rows of a block, rounded down to whole frames. It is part of what a block is: another number asks another question."""

CHUNK_ROWS: Final = 1024
"""Receptions that go through the receiver at once: bounds memory, changes no result."""

HEADER_COUNTS: Final = ("headers", "headers_lost", "headers_wrong", "header_symbols", "pilot_symbols")
"""Of link.header.HeaderOutcome."""


class PassCounts(NamedTuple):
    """What one draw of some rows gave; fields that are not told here are as in link.results.SweepPoint.

    Attributes
    ----------
    first_row, rows : int
    correct : str
        A bit a decision, 1 where it is right, first row first and of a text first position first, in hexadecimal.
    bit_errors, index_errors : tuple of int
        ClusterSums over receptions whose header was right and whose symbols were all received.
    abs_llr : float
        Sum of |LLR| over their payload bits, nats.
    energy : float
        Of the payload symbols sent; Es = 1 each on average over the constellation.
    payload_symbols, payload_bits : int
        As sent, padding included.
    mode_samples : tuple of int
    header_counts : tuple of int
        Of HEADER_COUNTS.
    pilot_symbols : int
        Of the payload; over a radio all symbols of its frames that are not payload.
    frames : tuple
        FrameCounts of a radio, headers' frames included; zeros elsewhere.
    positions : tuple of int
        Decisions of each row; empty where each has one.
    texts : tuple of int
        Counts of link.text_quality.sentence_statistics, row by row; empty where no texts are answered.
    """

    first_row: int
    rows: int
    correct: str
    bit_errors: tuple[int, ...]
    index_errors: tuple[int, ...]
    abs_llr: float
    energy: float
    payload_symbols: int
    payload_bits: int
    mode_samples: tuple[int, ...]
    header_counts: tuple[int, ...]
    pilot_symbols: int
    frames: tuple[float, ...] = FrameCounts()
    positions: tuple[int, ...] = ()
    texts: tuple[int, ...] = ()

    @property
    def judged(self) -> NDArray[np.int64]:
        """Decisions of each row, (rows,)."""
        return np.array(self.positions, dtype=np.int64) if self.positions else np.ones(self.rows, dtype=np.int64)

    @property
    def right(self) -> NDArray[np.int64]:
        """Right decisions of each row, (rows,)."""
        judged = self.judged
        packed = np.frombuffer(bytes.fromhex(self.correct), dtype=np.uint8)
        decided = np.unpackbits(packed, count=int(judged.sum()))
        return np.add.reduceat(decided, np.cumsum(judged) - judged, dtype=np.int64)

    def require_fit(self, samples: int) -> None:
        """Raise ValueError unless it holds the decisions of each of its rows, and those are of so many samples."""
        last = self.first_row + self.rows
        if not 0 <= self.first_row < last <= samples:
            raise ValueError(f"rows {self.first_row} to {last - 1} do not fit {samples} samples")
        if self.positions and (len(self.positions) != self.rows or min(self.positions) < 1):
            raise ValueError(f"{len(self.positions)} counts of positions do not fit {self.rows} rows")
        decisions = sum(self.positions) or self.rows
        if len(bytes.fromhex(self.correct)) != -(-decisions // 8):
            raise ValueError(f"{len(self.correct)} digits do not hold {decisions} decisions")


@dataclass
class SemanticPasses:
    """A data set that is sent over a link, draw by draw; a link.simulator.Workload.

    Parameters
    ----------
    link : Link
    tensors : mapping of name to (n, ...) array
        As link.chain.Link.tensors gives them.
    truth : (n,) or (n, T) int64
        The right classes, or pieces (link.truth).
    spec : SweepSpec
    chunk_rows : int
        Receptions decoded at once; rounded down to whole frames, where samples share headers, and up to one.
    engine : str
        What draws the normals, see link.device.
    texts : sequence of n str, optional
        The right texts, where texts are answered; where absent, what `truth` spells.
    """

    link: Link
    tensors: Mapping[str, NDArray[Any]]
    truth: NDArray[np.int64]
    spec: SweepSpec
    chunk_rows: int = CHUNK_ROWS
    engine: str = field(default_factory=host_engine)
    texts: Sequence[str] | None = None
    block_type: ClassVar[type[PassCounts]] = PassCounts
    _sent: tuple[int | None, Transmission] | None = field(default=None, init=False)
    _channel: Channel = field(init=False)

    def __post_init__(self) -> None:
        self._channel = self.spec.build_channel()
        header = self.link.manifest.header
        self._frame = 1 if header is None else header.frame_samples
        self._part = max(1, PART_ROWS // self._frame) * self._frame
        self._judged = (self.truth != UNJUDGED).reshape(len(self.truth), -1)
        self.decisions: NDArray[np.int64] = self._judged.sum(axis=1)
        text = self.link.manifest.task.text
        if text is not None and self.texts is None:
            self.texts = self.link.receiver.texts(np.where(self.truth == UNJUDGED, text.end_id, self.truth))

    @property
    def stride(self) -> int:
        """Blocks of a draw: a point ends behind whole draws."""
        return -(-len(self.truth) // self._part)

    def __getstate__(self) -> dict[str, Any]:
        """Workers need what is sent and what the receiver has; what it is made of, only where it changes with the SNR."""
        if self.link.manifest.routed:
            return self.__dict__
        self.sent(self.spec.snr_db[0])
        return self.__dict__ | {"tensors": self.link.side(self.tensors)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of a radio."""
        close = getattr(self._channel, "close", None)
        if close is not None:
            close()

    def sent(self, snr_db: float) -> Transmission:
        """The data set as it is sent at an SNR."""
        name = millidecibels(snr_db) if self.link.manifest.routed else None
        if self._sent is None or self._sent[0] != name:
            self._sent = (name, self._encode(snr_db))
        return self._sent[1]

    def run(self, snr_db: float, block: int) -> PassCounts:
        """Send the rows of a block once."""
        draw, part = divmod(block, self.stride)
        first = part * self._part
        rows = np.arange(first, min(first + self._part, len(self.truth)), dtype=np.int64)
        manifest, truth = self.link.manifest, self.truth[first : first + self._part]
        sent = Transmission._make(values[first : first + self._part] for values in self.sent(snr_db))
        side = {name: values[first : first + self._part] for name, values in self.link.side(self.tensors).items()}
        tokens = np.array([mode.tokens for mode in manifest.modes])
        symbol_bits = np.array([bits_per_symbol(mode.order) for mode in manifest.modes])
        correct = np.empty((len(rows), self._judged.shape[1]), np.bool_)
        counts: list[int] = []
        bits, bit_errors, indices, index_errors = (np.empty(len(rows), np.int64) for _ in range(4))
        abs_llr = np.empty(len(rows), np.float64)
        headers, pilots, frames = np.zeros(len(HEADER_COUNTS), np.int64), 0, FrameCounts()
        for place in self._chunks(len(rows)):
            chunk = Transmission._make(values[place] for values in sent)
            draws = Draws(self.spec.seed, rows[place], draw, engine=self.engine)
            own = {name: values[place] for name, values in side.items()}
            result = self.link.carry(chunk, self._channel, snr_db, draws, own)
            sent_here = np.arange(manifest.num_symbols) < chunk.num_symbols[:, None]
            decoded, right = result.decoded, np.isfinite(result.received.no).all(axis=-1, where=sent_here)
            pilots += result.received.pilot_symbols
            frames = frames.plus(result.received.frames or FrameCounts())
            if result.header is not None:
                right &= result.header.right
                headers += [getattr(result.header, name) for name in HEADER_COUNTS]
                frames = frames.plus(result.header.carried_in or FrameCounts())
            bits[place], indices[place] = np.where(right, chunk.num_bits, 0), np.where(right, tokens[chunk.mode], 0)
            judged = np.arange(manifest.num_bits) < bits[place, None]
            compared = np.arange(manifest.num_tokens) < indices[place, None]
            correct[place] = (decoded.decisions == truth[place]).reshape(len(chunk.mode), -1)
            if self.texts is not None:
                answers = self.link.receiver.texts(decoded.decisions)
                meant = self.texts[first + place.start : first + place.stop]
                counts += sentence_statistics(answers, meant).ravel().tolist()
            bit_errors[place] = np.sum(((decoded.llr > 0) != chunk.bits) & judged, axis=-1)
            index_errors[place] = np.sum((decoded.indices_hat != chunk.indices) & compared, axis=-1)
            abs_llr[place] = np.sum(np.abs(decoded.llr) * judged, axis=-1, dtype=np.float64)
        return PassCounts(
            first_row=first,
            rows=len(rows),
            correct=np.packbits(correct[self._judged[first : first + self._part]]).tobytes().hex(),
            bit_errors=tuple(cluster_sums(bit_errors, bits)),
            index_errors=tuple(cluster_sums(index_errors, indices)),
            abs_llr=float(abs_llr.sum()),
            energy=float(np.square(sent.symbols).sum(dtype=np.float64)),
            payload_symbols=int(sent.num_symbols.sum()),
            payload_bits=int((sent.num_symbols * symbol_bits[sent.mode]).sum()),
            mode_samples=tuple(np.bincount(sent.mode, minlength=len(manifest.modes)).tolist()),
            header_counts=tuple(headers.tolist()),
            pilot_symbols=pilots,
            frames=tuple(frames),
            positions=() if self.truth.ndim == 1 else tuple(self.decisions[first : first + self._part].tolist()),
            texts=tuple(counts),
        )

    def tally(self, block: PassCounts) -> Tally:
        """Decisions: those of a reception are a unit, given the samples."""
        block.require_fit(len(self.truth))
        wrong = block.judged - block.right
        return Tally(
            units=block.rows,
            unit_errors=int((wrong > 0).sum()),
            trials=int(block.judged.sum()),
            errors=int(wrong.sum()),
            squares=int(np.square(wrong).sum()),
        )

    @property
    def words(self) -> int:
        """Of the texts that are meant, between white space; 0 where none are answered."""
        return sum(len(text.split()) for text in self.texts or ())

    def _chunks(self, rows: int) -> Iterator[slice]:
        """Rows that go together: whole frames."""
        step = max(self.chunk_rows // self._frame, 1) * self._frame
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))

    def _encode(self, snr_db: float) -> Transmission:
        parts = [
            self.link.encode(
                {name: value[start : start + self.chunk_rows] for name, value in self.tensors.items()},
                snr_db,
                self.spec.snr_error_db,
            )
            for start in range(0, len(self.truth), self.chunk_rows)
        ]
        return Transmission._make(np.concatenate(field) for field in zip(*parts, strict=True))


def clean_decisions(link: Link, inputs: Mapping[str, ArrayLike], snr_db: float = SNR_DB_MAX) -> NDArray[np.int64]:
    """What the receiver decides of each sample where nothing comes between it and the transmitter, as labels.

    Parameters
    ----------
    link : Link
    inputs : mapping of name to (n, ...) array
    snr_db : float
        What a router takes the SNR for, dB.
    """
    tensors = link.tensors(inputs)
    decisions = []
    for first in range(0, len(next(iter(tensors.values()))), CHUNK_ROWS):
        rows = {name: value[first : first + CHUNK_ROWS] for name, value in tensors.items()}
        sent = link.encode(rows, snr_db)
        no = np.full(sent.symbols.shape[:-1], NO_MIN, dtype=np.float32)
        y, no = erase_unsent(sent.symbols, no, sent.num_symbols)
        decisions.append(link.receiver(y, no, sent.mode, inputs=link.side(rows)).decisions)
    found = np.concatenate(decisions)
    return found if found.ndim == 1 else up_to_the_end(found, link.manifest.task)


def summed(sums: Iterable[tuple[int, ...]]) -> ClusterSums:
    """Cluster sums of blocks, together."""
    result = ClusterSums()
    for item in sums:
        result = result.plus(ClusterSums(*item))
    return result
