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
from functools import lru_cache, partial
from time import monotonic, perf_counter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from link.bundle import Bundle
from link.chain import Link
from link.channel import CHANNELS, TR38901, Channel, build_channel
from link.choice import read_estimate, read_mode
from link.errors import ArgumentError, require_range
from link.provenance import code_version
from link.randomness import SEED_MAX
from link.snr import SNR_DB_MAX, SNR_DB_MIN
from link.tensors import as_tensor
from serve.engine.batcher import ANYONE, Batcher, Caller, Run
from serve.engine.cost import CostModel
from serve.engine.errors import Expired
from serve.engine.means import Means
from serve.engine.programs import Decode, DecodeJob, Encode, EncodeJob, Transmit, TransmitJob
from serve.results import Decoded, Encoded, ModelId, ModelInfo, Settings, Transmitted

OPERATIONS: Final = ("transmitter", "receiver", "link")
"""Of a model, as they are called outside: NAME.transmitter and so on."""

HARD_LLR: Final = 20.0
"""What a hard bit stands for, nats."""

_NUMBERS: Final = 2**32
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
        self.info = ModelInfo(self.link.manifest, code_version(), CHANNELS, means.max_batch, digest)
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
        caller: Caller = ANYONE,
    ) -> Decoded:
        """Decode a batch of symbols, or what another modem made of them.

        Parameters
        ----------
        symbols, no, mode, llr_in : array
            As for link.runtime.Receiver; without `symbols` and `no`, `llr_in` alone decides.
        bits : (B, L) int
            Hard decisions instead of all of these but `mode`.

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
        inputs: dict[str, Any] = {
            "symbols": symbols,
            "no": no,
            "mode": np.full(rows, manifest.default_mode, dtype=np.int64) if mode is None else mode,
            "llr_in": np.zeros((rows, manifest.num_bits), dtype=np.float32) if llr_in is None else llr_in,
        }
        decoded: Decoded = await self._batchers["receiver"].submit(DecodeJob(rows, inputs), caller)
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
        """
        rows = self.rows(inputs)
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
        require_range("snr_db", settings.snr_db, SNR_DB_MIN, SNR_DB_MAX)
        channel = channel_of(
            settings.channel or "awgn",
            settings.block_symbols,
            settings.k_factor_db,
            settings.csi or "perfect",
            settings.pilots,
            settings.no_offset_db,
        )
        _require_address(settings, rows)
        estimate = self.link.estimate(settings.snr_db, settings.snr_error_db)
        return TransmitJob(
            rows,
            inputs,
            _as_used(settings, channel),
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
        for rows in _CALIBRATION_ROWS:
            if rows > self.means.max_batch:
                break
            inputs: dict[str, Any] = {
                spec.name: np.full((rows, *spec.sizes), spec.low or 0, dtype=spec.dtype)
                for spec in manifest.task_inputs
            }
            estimate = np.full(rows, settings.snr_db, dtype=np.float32) if manifest.routed else None
            received: dict[str, Any] = {
                spec.name: np.full((rows, *spec.sizes), spec.name == "no", dtype=spec.dtype)
                for spec in manifest.receiver.inputs
            }
            jobs = (
                EncodeJob(rows, inputs, estimate),
                DecodeJob(rows, received),
                self._transmit_job(rows, inputs, settings),
            )
            for operation, program, job in zip(OPERATIONS, programs, jobs, strict=True):
                _measure(program, job, self.costs[operation], twice=rows == _CALIBRATION_ROWS[0])


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


@lru_cache(maxsize=256)
def channel_of(
    name: str, block_symbols: int, k_factor_db: float | None, csi: str, pilots: int, no_offset_db: float
) -> Channel:
    """The channel asked for; an option that it has no use for is refused, lest it be believed to matter."""
    given: dict[str, Any] = {} if k_factor_db is None else {"k_factor_db": k_factor_db}
    channel = build_channel(
        name, block_symbols=block_symbols, csi=csi, pilots=pilots, no_offset_db=no_offset_db, **given
    )
    if block_symbols and getattr(channel, "block_symbols", 0) != block_symbols:
        raise ArgumentError("block_symbols", f"must be 0 for channel {name!r}, got {block_symbols}")
    if given and getattr(channel, "k_factor_db", None) is None:
        raise ArgumentError("k_factor_db", f"must be absent for channel {name!r}, got {k_factor_db:g}")
    return channel


def _require_address(settings: Settings, rows: int) -> None:
    if not 0 <= settings.seed <= SEED_MAX:
        raise ArgumentError("seed", f"must be in [0, 2**63), got {settings.seed}")
    if not 0 <= settings.draw < _NUMBERS:
        raise ArgumentError("draw", f"must be in [0, 2**32), got {settings.draw}")
    if not 0 <= settings.sample_offset <= _NUMBERS - rows:
        raise ArgumentError(
            "sample_offset", f"must be in [0, 2**32 - {rows}] for {rows} samples, got {settings.sample_offset}"
        )


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
        csi=settings.csi or "perfect",
        pilots=settings.pilots,
        no_offset_db=settings.no_offset_db,
    )
