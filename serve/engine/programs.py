"""What a batch of requests runs.

    encode      inputs ──join──> transmitter ──split──> bits, symbols
    decode      symbols, no, llr_in [, side inputs] ──join──> receiver ──split──> decisions
    transmit    inputs ──join─┬> transmitter ──> channel, request by request ──> receiver ──split──> decisions
                              └─ side inputs, where the receiver has some ──────┘

A sample stands alone (the graphs see to that), and its noise is addressed by its request's seed and its own number. So
whoever else is in the batch changes nothing, and a reply says so: sent again, alone, it is the same.

Arguments are checked once for a whole batch; only where something is wrong each request is looked at for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.chain import Conveyed, Link
from link.channel import Channel
from link.codebook import softmax
from link.errors import ArgumentError, HardpathError
from link.header import HeaderOutcome
from link.interface import OWN_CHOICE, TensorSpec
from link.randomness import Draws
from link.runtime import Reception, TaskInputs, Transmission
from serve.results import Decoded, Encoded, Sent, Settings, Timing, Transmitted

Arrays = dict[str, NDArray[Any]]


@dataclass(slots=True, eq=False)
class EncodeJob:
    """Inputs by name, where the model routes the estimate of Es/N0, (rows,) dB, and the modes asked for, (rows,)."""

    rows: int
    inputs: Mapping[str, ArrayLike]
    estimate: NDArray[np.float32] | None = None
    mode: NDArray[np.int64] | None = None
    queued_s: float = 0.0


@dataclass(slots=True, eq=False)
class DecodeJob:
    """All inputs of the receiver by name."""

    rows: int
    inputs: Mapping[str, ArrayLike]
    queued_s: float = 0.0


@dataclass(slots=True, eq=False)
class TransmitJob:
    """Inputs by name, and how they are carried.

    Attributes
    ----------
    settings : Settings
        As used: defaults filled in.
    channel : Channel
        Of these settings.
    estimate : (rows,) float32, optional
        What a router takes the SNR for, dB.
    mode : (rows,) int64, optional
        Modes asked for, -1 where none is; None where none is asked for at all.
    """

    rows: int
    inputs: Mapping[str, ArrayLike]
    settings: Settings
    channel: Channel
    estimate: NDArray[np.float32] | None = None
    mode: NDArray[np.int64] | None = None
    queued_s: float = 0.0


class Encode:
    """The transmitter; a serve.engine.batcher.Program."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inputs = _Inputs(link.transmitter.read, link.manifest.task_inputs)

    def run(self, jobs: Sequence[EncodeJob]) -> list[Encoded | Exception]:
        """Join, encode, split."""
        start = perf_counter()
        joined = self._inputs.join(jobs)
        if not joined.jobs:
            return joined.results([])
        sent = self._link.transmitter.run(joined.arrays, _estimates(joined.jobs), _modes(joined.jobs))
        spent = 1e6 * (perf_counter() - start)
        return joined.results(
            Encoded(_rows(sent, rows), read.cut, read.unknown, Timing(spent, 0.0, 0.0, 1e6 * job.queued_s))
            for job, rows, read in zip(joined.jobs, _slices(joined.jobs), joined.reads, strict=True)
        )


class Decode:
    """The receiver; a serve.engine.batcher.Program."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._plain = _Plain(link.manifest.receiver.inputs)

    def run(self, jobs: Sequence[DecodeJob]) -> list[Decoded | Exception]:
        """Join, decode, split."""
        start = perf_counter()
        joined = _join(jobs, self._plain, self._read)
        if not joined.jobs:
            return joined.results([])
        decoded = _decoded(self._link, self._link.receiver.run(joined.arrays))
        spent = 1e6 * (perf_counter() - start)
        return joined.results(
            _rows(decoded, rows)._replace(
                timing=Timing(0.0, 0.0, spent, 1e6 * job.queued_s), truncated=read.cut, unknown=read.unknown
            )
            for job, rows, read in zip(joined.jobs, _slices(joined.jobs), joined.reads, strict=True)
        )

    def _read(self, inputs: Mapping[str, ArrayLike]) -> TaskInputs:
        """What was received, and beside it what the receiver has of its own."""
        own = dict(inputs)
        received = [own.pop(name, None) for name in ("symbols", "no", "mode", "llr_in")]
        symbols, no, mode, llr_in = received
        assert symbols is not None
        assert no is not None
        return self._link.receiver.read(symbols, no, mode, llr_in, own)


class Transmit:
    """The whole link; a serve.engine.batcher.Program."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inputs = _Inputs(link.read, link.manifest.sample_inputs)
        self._sent = [spec.name for spec in link.manifest.task_inputs]

    def run(self, jobs: Sequence[TransmitJob]) -> list[Transmitted | Exception]:
        """Join, encode, carry, decode, split."""
        start = perf_counter()
        joined = self._inputs.join(jobs)
        if not joined.jobs:
            return joined.results([])
        inputs = {name: joined.arrays[name] for name in self._sent}
        sent = self._link.transmitter.run(inputs, _estimates(joined.jobs), _modes(joined.jobs))
        encoded = perf_counter()
        carried = _carry(self._link, joined.jobs, sent)
        received = perf_counter()
        decoded = _decoded(
            self._link, self._link.receiver.run(carried.tensors(self._link) | self._link.side(joined.arrays))
        )
        bit_errors = _bit_errors(sent, decoded.llr)
        spent = (1e6 * (encoded - start), 1e6 * (received - encoded), 1e6 * (perf_counter() - received))
        return joined.results(
            Transmitted(
                sent=Sent(*_rows(sent, rows)),
                y=carried.y[rows],
                no=carried.no[rows],
                decoded=_rows(decoded, rows),
                bit_errors=bit_errors[rows],
                settings=job.settings,
                timing=Timing(*spent, 1e6 * job.queued_s),
                header=header,
                truncated=read.cut,
                unknown=read.unknown,
                num_pilots=_pilots(carried.num_pilots, rows),
            )
            for job, rows, read, header in zip(
                joined.jobs, _slices(joined.jobs), joined.reads, carried.headers, strict=True
            )
        )


class _Carried(NamedTuple):
    y: NDArray[np.float32]
    no: NDArray[np.float32]
    mode: NDArray[np.int64]
    headers: list[HeaderOutcome | None]
    num_pilots: NDArray[np.int64] | None

    def tensors(self, link: Link) -> Arrays:
        return {
            "symbols": np.ascontiguousarray(self.y, dtype=np.float32),
            "no": np.ascontiguousarray(self.no, dtype=np.float32),
            "mode": self.mode,
            "llr_in": np.zeros((len(self.y), link.manifest.num_bits), dtype=np.float32),
        }


def _pilots(num_pilots: NDArray[np.int64] | None, rows: slice) -> NDArray[np.int64] | None:
    """A request's; None where it has none, whatever else is in the batch."""
    return None if num_pilots is None or not num_pilots[rows].any() else num_pilots[rows]


def _carry(link: Link, jobs: Sequence[TransmitJob], sent: Transmission) -> _Carried:
    """Each request over its own channel.

    Those that differ in sample numbers alone go together, but for headers: a frame is made of the samples of one request.
    """
    groups: dict[object, list[int]] = {}
    for place, job in enumerate(jobs):
        shared = link.manifest.header is None
        key = (id(job.channel), job.settings.snr_db, job.settings.seed) if shared else place
        groups.setdefault(key, []).append(place)
    rows = list(_slices(jobs))
    numbers = [np.arange(job.settings.sample_offset, job.settings.sample_offset + job.rows) for job in jobs]
    if len(groups) == 1:
        conveyed = _convey(link, jobs, sent, numbers)
        received = conveyed.received
        return _Carried(
            received.y, received.no, conveyed.mode(sent), [conveyed.header] * len(jobs), received.num_pilots
        )
    y = np.empty_like(sent.symbols)
    no = np.empty(sent.symbols.shape[:2], dtype=np.float32)
    mode = np.empty_like(sent.mode)
    num_pilots = np.zeros(len(sent.mode), dtype=np.int64)
    headers: list[HeaderOutcome | None] = [None] * len(jobs)
    for places in groups.values():
        if len(places) == 1:
            chosen: Any = rows[places[0]]
        else:
            chosen = np.concatenate([np.arange(rows[place].start, rows[place].stop) for place in places])
        part = _rows(sent, chosen)
        conveyed = _convey(link, [jobs[place] for place in places], part, [numbers[place] for place in places])
        y[chosen], no[chosen], mode[chosen] = conveyed.received.y, conveyed.received.no, conveyed.mode(part)
        if conveyed.received.num_pilots is not None:
            num_pilots[chosen] = conveyed.received.num_pilots
        for place in places:
            headers[place] = conveyed.header
    return _Carried(y, no, mode, headers, num_pilots if num_pilots.any() else None)


def _convey(
    link: Link, jobs: Sequence[TransmitJob], sent: Transmission, numbers: Sequence[NDArray[np.int64]]
) -> Conveyed:
    first = jobs[0].settings
    if len(jobs) == 1:
        draws = Draws(first.seed, numbers[0], first.draw)
    else:
        draw = np.repeat([job.settings.draw for job in jobs], [job.rows for job in jobs])
        draws = Draws(first.seed, np.concatenate(numbers), draw)
    snr_db = (
        0.0 if first.snr_db is None else first.snr_db
    )  # none: over a radio that cannot set it, and does not look at it
    return link.convey(sent, jobs[0].channel, snr_db, draws)


def _decoded(link: Link, reception: Reception) -> Decoded:
    classes = link.manifest.task.classes
    decisions = reception.decisions
    if reception.logits is None:
        return Decoded(
            decisions=decisions,
            answers=tuple(link.receiver.texts(decisions)),
            probabilities=None,
            logits=None,
            indices_hat=reception.indices_hat,
            llr=reception.llr,
            log_prob=reception.log_prob,
        )
    return Decoded(
        decisions=decisions,
        answers=tuple([classes[index] if index < len(classes) else "" for index in decisions.tolist()]),
        probabilities=softmax(reception.logits),
        logits=reception.logits,
        indices_hat=reception.indices_hat,
        llr=reception.llr,
    )


def _bit_errors(sent: Transmission, llr: NDArray[np.float32] | None) -> NDArray[np.int64]:
    assert llr is not None
    payload = np.arange(sent.bits.shape[1]) < sent.num_bits[:, None]
    errors: NDArray[np.int64] = (((llr > 0) != sent.bits.astype(bool)) & payload).sum(axis=1)
    return errors


Batch = TypeVar("Batch", Transmission, Decoded)


def _rows(batch: Batch, rows: Any) -> Batch:
    """Some rows of everything."""
    return type(batch)._make(None if values is None else values[rows] for values in batch)


S = TypeVar("S", EncodeJob, DecodeJob, TransmitJob)
R = TypeVar("R")


def _slices(jobs: Sequence[S]) -> Iterator[slice]:
    stop = 0
    for job in jobs:
        start, stop = stop, stop + job.rows
        yield slice(start, stop)


def _estimates(jobs: Sequence[EncodeJob | TransmitJob]) -> NDArray[np.float32] | None:
    given = [job.estimate for job in jobs if job.estimate is not None]
    return np.concatenate(given) if given else None


def _modes(jobs: Sequence[EncodeJob | TransmitJob]) -> NDArray[np.int64] | None:
    """Of all rows, -1 for those of requests that ask for none."""
    if all(job.mode is None for job in jobs):
        return None
    return np.concatenate([np.full(job.rows, OWN_CHOICE) if job.mode is None else job.mode for job in jobs])


class _Plain:
    """Whether arrays are as a graph takes them, but for their values: then they may be joined as they are."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._specs = {spec.name: (np.dtype(spec.dtype), tuple(spec.shape[1:])) for spec in specs}

    def __call__(self, job: EncodeJob | DecodeJob | TransmitJob) -> bool:
        if job.inputs.keys() != self._specs.keys():
            return False
        for name, (dtype, shape) in self._specs.items():
            array = job.inputs[name]
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != (job.rows, *shape):
                return False
        return True


class _Inputs:
    """The inputs of samples, joined."""

    def __init__(self, read: Callable[[Mapping[str, ArrayLike]], TaskInputs], specs: Sequence[TensorSpec]) -> None:
        self._read = read
        self._plain = _Plain(specs)

    def join(self, jobs: Sequence[S]) -> _Joined[S]:
        return _join(jobs, self._plain, self._read)


@dataclass
class _Joined(Generic[S]):
    """Jobs that can be run together.

    Attributes
    ----------
    jobs : list
        The good ones, in order.
    arrays : dict of name to array
        Their inputs as the graph takes them, one behind the other.
    reads : list of TaskInputs
        What was seen when they were read.
    failed : dict of int to Exception
        What is wrong with the others, by place.
    """

    jobs: list[S]
    arrays: Arrays
    reads: list[TaskInputs]
    failed: dict[int, Exception]

    def results(self, good: Iterable[R]) -> list[R | Exception]:
        """Results of the good jobs, with the others' errors between them."""
        if not self.failed:
            return list(good)
        answers = iter(good)
        total = len(self.jobs) + len(self.failed)
        return [self.failed[place] if place in self.failed else next(answers) for place in range(total)]


def _join(jobs: Sequence[S], plain: _Plain, read: Callable[[Mapping[str, ArrayLike]], TaskInputs]) -> _Joined[S]:
    if len(jobs) > 1 and all(map(plain, jobs)):
        try:
            together = read({name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs})
        except ArgumentError:
            pass  # of one of them: each is read for itself
        else:
            return _Joined(list(jobs), together.arrays, [together] * len(jobs), {})
    good, reads = [], []
    failed: dict[int, Exception] = {}
    for place, job in enumerate(jobs):
        try:
            reads.append(read(job.inputs))
            good.append(job)
        except HardpathError as error:
            failed[place] = error.with_traceback(None)  # it would hold this frame, and everybody's inputs with it
    arrays = {} if not reads else reads[0].arrays
    if len(reads) > 1:
        arrays = {name: np.concatenate([found.arrays[name] for found in reads]) for name in arrays}
    return _Joined(good, arrays, reads, failed)
