"""One version of a bundle in service, and what it shares with the others.

    encode     inputs ──> transmitter ──> bits, symbols
    decode     symbols, no, or bits, or LLRs ──> receiver ──> decisions
    transmit   inputs ──> transmitter ──> channel ──> receiver ──> decisions

What does not depend on other requests is checked here, when a request comes; then it goes to the batcher of its operation
(serve.engine.batcher), which runs it together with others (serve.engine.programs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bundle import Bundle
from link.chain import Link
from link.channel import CHANNELS, RADIO, TR38901
from link.choice import read_estimate, read_mode
from link.errors import ArgumentError, require_range
from link.provenance import code_version
from link.snr import SNR_DB_MAX, SNR_DB_MIN
from link.tensors import as_tensor
from serve.engine.batcher import ANYONE, Batcher, Caller, Run
from serve.engine.channels import as_used, channel_of, estimate_over, require_address
from serve.engine.cost import CostModel
from serve.engine.errors import Expired, NoRadio
from serve.engine.means import Means
from serve.engine.programs import Decode, DecodeJob, Encode, EncodeJob, Transmit, TransmitJob
from serve.results import Decoded, Encoded, ModelId, ModelInfo, Settings, Transmitted

if TYPE_CHECKING:
    from serve.engine.radio import Turn

OPERATIONS: Final = ("transmitter", "receiver", "link")
"""Of a model, as they are called outside: NAME.transmitter and so on."""

HARD_LLR: Final = 20.0
"""What a hard bit stands for, nats."""

_DIGEST: Final = 16
_CALIBRATION_ROWS: Final = (1, 4, 16, 64)

T = TypeVar("T")


class Model:
    """One version of a bundle, ready to answer.

    Parameters
    ----------
    bundle : Bundle
    means : Means

    Attributes
    ----------
    link : Link
    info : ModelInfo

    Raises
    ------
    BundleError
        If a graph cannot be loaded.
    MissingExtra
        If onnxruntime is not installed.
    """

    def __init__(self, bundle: Bundle, means: Means) -> None:
        self.link = Link(bundle, means.threads, means.device, means.memory_bytes)
        self.means = means
        digest = hashlib.sha256(self.link.manifest.model_dump_json().encode()).hexdigest()[:_DIGEST]
        self.info = ModelInfo(self.link.manifest, code_version(), _channels(means), means.max_batch, digest)
        self._transmit = Transmit(self.link)
        programs: tuple[Any, ...] = (Encode(self.link), Decode(self.link), self._transmit)
        self.costs = {operation: CostModel() for operation in OPERATIONS}
        self._batchers: dict[str, Batcher[Any, Any]] = {
            operation: Batcher(
                program,
                means.policy(self.costs[operation]),
                self.costs[operation],
                means.workers,
                means.admission,
                partial(means.ran, f"{self.name}.{operation}"),
            )
            for operation, program in zip(OPERATIONS, programs, strict=True)
        }
        self._warm(programs)

    @property
    def name(self) -> str:
        """As the manifest has it."""
        return self.link.manifest.name

    @property
    def version(self) -> int:
        """As the manifest has it."""
        return self.link.manifest.version

    @property
    def id(self) -> ModelId:
        """What tells it from every other."""
        return ModelId(self.version, self.info.digest)

    def waiting_requests(self, operation: str) -> int:
        """Requests that wait for a run."""
        return self._batchers[operation].waiting_requests

    async def encode(
        self,
        inputs: Mapping[str, ArrayLike],
        snr_db: ArrayLike | None = None,
        caller: Caller = ANYONE,
        *,
        mode: ArrayLike | None = None,
    ) -> Encoded:
        """Encode a batch; arguments as for link.runtime.Transmitter.

        Raises
        ------
        ArgumentError
            If an input or a mode is wrong, or the batch larger than `max_batch`.
        Refused
            See serve.engine.errors.
        """
        rows = self.rows(inputs)
        asked = read_mode(self.link.manifest, mode, rows)
        job = EncodeJob(rows, inputs, read_estimate(self.link.manifest, snr_db, rows, asked), asked)
        encoded: Encoded = await self._batchers["transmitter"].submit(job, caller)
        return encoded

    async def decode(
        self,
        symbols: ArrayLike | None = None,
        no: ArrayLike | None = None,
        mode: ArrayLike | None = None,
        llr_in: ArrayLike | None = None,
        bits: ArrayLike | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        caller: Caller = ANYONE,
    ) -> Decoded:
        """Decode a batch of symbols, or what another modem made of them.

        Parameters
        ----------
        symbols, no, mode, llr_in : array
            As for link.runtime.Receiver; without `symbols` and `no`, `llr_in` alone decides.
        bits : (B, L) int
            Hard decisions instead of all of these but `mode`.
        inputs : mapping of name to (B, ...) array
            What the receiver has of its own.

        Raises
        ------
        ArgumentError
            If an array is wrong, or the batch larger than `max_batch`.
        Refused
            See serve.engine.errors.
        """
        manifest = self.link.manifest
        if bits is not None:
            llr_in = _hard_llrs(bits, manifest.num_bits, {"symbols": symbols, "no": no, "llr_in": llr_in})
        if symbols is None and llr_in is not None:
            if no is not None:
                raise ArgumentError("no", "must be absent where symbols are")
            rows = self._batch("bits" if bits is not None else "llr_in", llr_in)
            symbols = np.zeros((rows, manifest.num_symbols, 2), dtype=np.float32)
            no = np.full((rows, manifest.num_symbols), np.inf, dtype=np.float32)
        for name, given in (("symbols", symbols), ("no", no)):
            if given is None:
                raise ArgumentError(name, "is missing")
        assert symbols is not None
        rows = self._batch("symbols", symbols)
        self.rows(inputs or {})
        received: dict[str, Any] = {
            "symbols": symbols,
            "no": no,
            "mode": np.full(rows, manifest.default_mode, dtype=np.int64) if mode is None else mode,
            "llr_in": np.zeros((rows, manifest.num_bits), dtype=np.float32) if llr_in is None else llr_in,
        }
        for name in received.keys() & (inputs or {}).keys():
            raise ArgumentError(f"inputs.{name}", f"is no input of the receiver's own: give it as `{name}`")
        job = DecodeJob(rows, received | dict(inputs or {}))
        decoded: Decoded = await self._batchers["receiver"].submit(job, caller)
        return decoded

    async def transmit(
        self,
        inputs: Mapping[str, ArrayLike],
        settings: Settings,
        caller: Caller = ANYONE,
        *,
        mode: ArrayLike | None = None,
    ) -> Transmitted:
        """Carry a batch over the link.

        Parameters
        ----------
        inputs : mapping of name to (B, ...) array
        settings : Settings
        caller : Caller
        mode : int or (B,) int, optional
            As for link.runtime.Transmitter.

        Raises
        ------
        ArgumentError
            If an input, a setting or a mode is out of range, or the batch larger than `max_batch`.
        Refused
            See serve.engine.errors.
        RadioError
            If the radio is asked for, and is not there, or gone.
        """
        rows = self.rows(inputs)
        if settings.channel == RADIO:
            return await self._transmit_over_radio(rows, inputs, settings, caller, mode)
        job = self._transmit_job(rows, inputs, settings, mode)
        if job.settings.channel in TR38901:
            return await self._transmit_apart(job, caller)
        transmitted: Transmitted = await self._batchers["link"].submit(job, caller)
        return transmitted

    async def _transmit_apart(self, job: TransmitJob, caller: Caller) -> Transmitted:
        started: list[float] = []

        def run() -> Transmitted:
            started.append(perf_counter())
            return _only(self._transmit.run([job]))

        try:
            return await self.apart(run, caller)
        finally:
            if started:
                self.means.ran(f"{self.name}.link", Run(1, job.rows, 0, perf_counter() - started[0]))

    async def _transmit_over_radio(
        self,
        rows: int,
        inputs: Mapping[str, ArrayLike],
        settings: Settings,
        caller: Caller,
        mode: ArrayLike | None,
    ) -> Transmitted:
        radio = self.means.radio
        if radio is None:
            raise NoRadio
        require_address(settings, rows)
        asked = read_mode(self.link.manifest, mode, rows)
        estimate = estimate_over(radio.spec, self.link, settings, rows, asked)
        job = TransmitJob(rows, inputs, as_used(settings, radio.channel), radio.channel, estimate, asked)

        def run(turn: Turn) -> Transmitted:
            result = _only(self._transmit.run([replace(job, channel=turn, queued_s=turn.waited_s)]))
            return result._replace(frames=turn.frames)

        self.means.admission.enter(caller.nbytes, lambda: radio.expected_s)
        try:
            result = await radio.run(run, caller)
        finally:
            self.means.admission.leave(caller.nbytes)
        spent = result.timing
        self.means.ran(f"{self.name}.link", Run(1, rows, 0, 1e-6 * (sum(spent) - spent.queue_us)))
        return result

    async def apart(self, call: Callable[[], T], caller: Caller = ANYONE) -> T:
        """Run what takes long beside the batches.

        Raises
        ------
        Overloaded
            If as much is waiting there as may.
        Expired
            If the deadline passes before its turn.
        """

        def in_time() -> T:
            if caller.deadline is not None and caller.deadline <= monotonic():
                raise Expired("the deadline has passed")
            return call()

        self.means.admission.enter(caller.nbytes, lambda: 1.0)
        try:
            return await self.means.aside.run(in_time)
        finally:
            self.means.admission.leave(caller.nbytes)

    def _transmit_job(
        self, rows: int, inputs: Mapping[str, ArrayLike], settings: Settings, mode: ArrayLike | None = None
    ) -> TransmitJob:
        if settings.snr_db is None:
            raise ArgumentError("snr_db", "is missing: give Es/N0 in dB")
        require_range("snr_db", settings.snr_db, SNR_DB_MIN, SNR_DB_MAX)
        channel = channel_of(
            settings.channel or "awgn",
            settings.block_symbols,
            settings.k_factor_db,
            settings.csi or "perfect",
            settings.pilots,
            settings.no_offset_db,
        )
        require_address(settings, rows)
        estimate = self.link.estimate(settings.snr_db, settings.snr_error_db)
        return TransmitJob(
            rows,
            inputs,
            as_used(settings, channel),
            channel,
            None if estimate is None else np.full(rows, estimate, dtype=np.float32),
            read_mode(self.link.manifest, mode, rows),
        )

    def rows(self, inputs: Mapping[str, ArrayLike]) -> int:
        """Samples of a request; 1 where that cannot be told, and something is wrong.

        Raises
        ------
        ArgumentError
            If there are more than `max_batch`.
        """
        rows = [self._batch(f"inputs.{name}", value) for name, value in inputs.items()]
        return rows[0] if rows else 1

    def _batch(self, field: str, value: ArrayLike) -> int:
        rows = len(value) if isinstance(value, list | tuple) else (np.shape(value) or (0,))[0]
        if rows > self.means.max_batch:
            raise ArgumentError(field, f"must hold at most {self.means.max_batch} samples, got {rows}")
        return max(1, rows)

    def _warm(self, programs: tuple[Any, ...]) -> None:
        """Run each operation on batches of a few sizes: the first run of a graph is slow, and cost is to be known."""
        manifest = self.link.manifest
        settings = Settings(snr_db=12.0)
        mask = None if manifest.tokenizer is None else manifest.tokenizer.attention_mask  # a text of full length
        for rows in _CALIBRATION_ROWS:
            if rows > self.means.max_batch:
                break
            both: dict[str, Any] = {
                spec.name: np.full((rows, *spec.sizes), 1 if spec.name == mask else spec.low or 0, dtype=spec.dtype)
                for spec in manifest.sample_inputs
            }
            inputs = {spec.name: both[spec.name] for spec in manifest.task_inputs}
            estimate = np.full(rows, settings.snr_db, dtype=np.float32) if manifest.routed else None
            received: dict[str, Any] = {
                spec.name: np.full((rows, *spec.sizes), spec.name == "no", dtype=spec.dtype)
                for spec in manifest.receiver.inputs
            } | {spec.name: both[spec.name] for spec in manifest.side_inputs}
            jobs = (
                EncodeJob(rows, inputs, estimate),
                DecodeJob(rows, received),
                self._transmit_job(rows, both, settings),
            )
            for operation, program, job in zip(OPERATIONS, programs, jobs, strict=True):
                _measure(program, job, self.costs[operation], twice=rows == _CALIBRATION_ROWS[0])


def _channels(means: Means) -> tuple[str, ...]:
    """Those that a request may name."""
    return CHANNELS if means.radio is None else (*CHANNELS, RADIO)


def _measure(program: Any, job: Any, cost: CostModel, *, twice: bool) -> None:
    for _ in range(2 if twice else 1):
        start = perf_counter()
        (result,) = program.run([job])
        seconds = perf_counter() - start
        if isinstance(result, Exception):
            return  # a graph may refuse what was made up; its first request tells the cost
    cost.record(job.rows, seconds)


def _only(results: list[T | Exception]) -> T:
    (result,) = results
    if isinstance(result, Exception):
        try:
            raise result
        finally:
            del results, result  # a ring with the traceback, and garbage
    return result


def _hard_llrs(bits: ArrayLike, num_bits: int, others: Mapping[str, ArrayLike | None]) -> NDArray[np.float32]:
    for name, given in others.items():
        if given is not None:
            raise ArgumentError(name, "must be absent where bits are given")
    decided = as_tensor("bits", bits, "int64", (None, num_bits))
    if not ((decided == 0) | (decided == 1)).all():
        raise ArgumentError("bits", f"must be 0 or 1, got [{decided.min()}, {decided.max()}]")
    return (HARD_LLR * (2.0 * decided - 1.0)).astype(np.float32)
