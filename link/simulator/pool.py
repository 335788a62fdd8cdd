"""Where tasks run: in this process, or on workers of loky, Dask or Ray.

Each backend is a handful of lines that give futures; what happens when a worker dies is decided here, once: its tasks are
run again, once, on new workers, and a task that loses two workers is reported. No backend sees more of a task than a
function and its arguments, so none can change a result.

Beyond one machine, `dask` joins the scheduler that DASK_SCHEDULER_ADDRESS names and `ray` the cluster of RAY_ADDRESS;
without them both start workers here. A bundle is opened by its path, so workers elsewhere need the same folder.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from link.errors import ArgumentError, MissingExtra, WorkerError
from link.simulator.block import Done, Task, Workload, perform

BACKENDS: Final = ("loky", "dask", "ray")
WORKERS_MAX: Final = 4096

_WATCH_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0
_TASKS_A_WORKER: Final = 2
"""In flight: one that runs, and one that waits for its turn."""


class Pool(Protocol):
    """Runs tasks.

    Attributes
    ----------
    room : int
        Tasks that it would take now.
    busy : bool
        Whether any is under way.
    """

    @property
    def room(self) -> int: ...
    @property
    def busy(self) -> bool: ...
    def submit(self, task: Task) -> None: ...
    def wait(self, timeout: float | None) -> list[Done]:
        """What has finished: at least one task, but for a timeout (s)."""
        ...


def require_pool(workers: int, backend: str) -> None:
    """Raise ArgumentError unless there is such a pool."""
    if not 1 <= workers <= WORKERS_MAX:
        raise ArgumentError("workers", f"must be in [1, {WORKERS_MAX}], got {workers}")
    if backend not in BACKENDS:
        raise ArgumentError("backend", f"must be one of {', '.join(BACKENDS)}, got {backend!r}")


@contextmanager
def open_pool(workload: Workload, workers: int = 1, backend: str = "loky") -> Iterator[Pool]:
    """A pool for one workload, closed with the block; what is under way then is dropped.

    Parameters
    ----------
    workload : Workload
    workers : int
        In [1, 4096]; 1 runs in this process, whatever the backend, unless a cluster is named in the environment.
    backend : str
        One of BACKENDS.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    MissingExtra
        If the backend is not installed.
    WorkerError
        If the cluster that the environment names cannot be reached.
    """
    require_pool(workers, backend)
    if workers == 1 and not os.environ.get(_ADDRESSES.get(backend, "")):
        yield _Inline(workload)
        return
    with ExitStack() as stack:
        pool = _Workers(workload, workers, _STARTS[backend])
        stack.callback(pool.close)
        yield pool


class _Inline:
    """The process that asks."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._waiting: deque[Task] = deque()

    @property
    def room(self) -> int:
        return 1 - len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def wait(self, timeout: float | None) -> list[Done]:
        return [perform(self._workload, self._waiting.popleft())]


class _Started(Protocol):
    """Workers of a backend, started for a workload."""

    @property
    def lost(self) -> tuple[type[BaseException], ...]:
        """What a future raises whose worker has died."""
        ...

    def submit(self, task: Task) -> Future[Done]: ...
    def close(self) -> None: ...


class _Workers:
    """Workers elsewhere, and what to do when they die."""

    def __init__(self, workload: Workload, workers: int, start: Callable[[Workload, int], _Started]) -> None:
        self._workload, self._workers, self._start = workload, workers, start
        self._started = start(workload, workers)
        self._flying: dict[Future[Done], Task] = {}
        self._run_again: set[Task] = set()

    @property
    def room(self) -> int:
        return _TASKS_A_WORKER * self._workers - len(self._flying)

    @property
    def busy(self) -> bool:
        return bool(self._flying)

    def submit(self, task: Task) -> None:
        try:
            self._flying[self._started.submit(task)] = task
        except self._started.lost as error:
            self._restart([task], error)

    def wait(self, timeout: float | None) -> list[Done]:
        finished = wait(self._flying, timeout, FIRST_COMPLETED).done
        done, lost, cause = [], [], None
        for future in finished:
            task = self._flying.pop(future)
            try:
                done.append(future.result())
            except self._started.lost as error:
                lost.append(task)
                cause = error
        if cause is not None:
            self._restart(lost, cause)
        return done

    def _restart(self, lost: list[Task], cause: BaseException) -> None:
        """Run what was under way again, on new workers: which of them killed its worker cannot be told."""
        # Those that ended before the death are results, and are taken in their turn.
        over = {future for future in self._flying if future.done() and future.exception() is None}
        lost = [*lost, *(task for future, task in self._flying.items() if future not in over)]
        self._flying = {future: self._flying[future] for future in over}
        for task in lost:
            if task in self._run_again:
                raise WorkerError(
                    f"two workers died at {task} (out of memory?); what was finished is kept: run the same command again to "
                    "go on"
                ) from cause
        self._run_again |= set(lost)
        self._started.close()
        self._started = self._start(self._workload, self._workers)
        for task in lost:
            self._flying[self._started.submit(task)] = task

    def close(self) -> None:
        """What is under way ends with its workers: a future cancelled here is one that a backend may be about to settle."""
        self._started.close()


_kept: list[Workload] = []
"""In a worker of loky: what it was started for."""


def _keep(workload: Workload, parent: int) -> None:
    """Ctrl-C reaches every process of a terminal; workers leave it to the one that writes the results, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _kept[:] = [workload]


def _end_with(parent: int) -> None:
    """End this process once its parent is gone: one that was killed tells its workers nothing."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _perform_kept(task: Task) -> Done:
    return perform(_kept[0], task)


class _Loky:
    lost = (BrokenExecutor,)

    def __init__(self, workload: Workload, workers: int) -> None:
        try:
            from loky import ProcessPoolExecutor
            from loky.backend import resource_tracker as of_loky
        except ImportError:
            raise MissingExtra("loky", "sweep") from None
        for tracker in (of_loky, resource_tracker):
            tracker.ensure_running()  # its start would let go of what `submit` holds back
        self._executor = ProcessPoolExecutor(
            workers, env=_ONE_THREAD, initializer=_keep, initargs=(workload, os.getpid())
        )

    def submit(self, task: Task) -> Future[Done]:
        # Workers start here, and inherit what is held back: none meets Ctrl-C before `_keep` has turned it off.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            future: Future[Done] = self._executor.submit(_perform_kept, task)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return future

    def close(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)


class _Dask:
    def __init__(self, workload: Workload, workers: int) -> None:
        try:
            import distributed
        except ImportError:
            raise MissingExtra("distributed", "dask") from None
        self.lost = (distributed.KilledWorker,)
        self._stack = ExitStack()
        address = os.environ.get(_ADDRESSES["dask"])
        if address:
            _require_cluster("dask", address)
        if not address:
            address = self._stack.enter_context(
                distributed.LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
                )
            )
        self._client = self._stack.enter_context(distributed.Client(address))  # type: ignore[no-untyped-call]
        self._workload = self._client.scatter(workload, broadcast=True)
        self._executor = self._client.get_executor(pure=False, retries=0)

    def submit(self, task: Task) -> Future[Done]:
        future: Future[Done] = self._executor.submit(perform, self._workload, task)
        return future

    def close(self) -> None:
        self._stack.close()


class _Ray:
    def __init__(self, workload: Workload, workers: int) -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "ray") from None
        self._ray = ray
        self.lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        self._ours = not ray.is_initialized()
        if self._ours:
            address = os.environ.get(_ADDRESSES["ray"])
            if address and address not in ("auto", "local"):
                _require_cluster("ray", address)
            here: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
        self._workload = ray.put(workload)
        self._perform = ray.remote(num_cpus=1, max_retries=0)(perform)

    def submit(self, task: Task) -> Future[Done]:
        future: Future[Done] = self._perform.remote(self._workload, task).future()
        return future

    def close(self) -> None:
        if self._ours:
            self._ray.shutdown()


_ONE_THREAD: Final = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
}
"""Workers share the cores already."""


def _require_cluster(backend: str, address: str) -> None:
    """Find out in seconds whether anyone listens there: their own clients try for minutes.

    Raises
    ------
    WorkerError
        If nobody does, or the address names no host and port.
    """
    what = f"{_ADDRESSES[backend]} is {address!r}"
    try:
        found = urlsplit(address if "://" in address else f"//{address}")
        if not found.hostname or found.port is None:
            raise ValueError("no host and port")
    except ValueError:
        raise WorkerError(
            f"{what}: must be HOST:PORT of a {backend} cluster, or absent to start workers here"
        ) from None
    try:
        socket.create_connection((found.hostname, found.port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise WorkerError(f"{what}, where no cluster can be reached: {error.strerror or error}") from None


_ADDRESSES: Final = {"dask": "DASK_SCHEDULER_ADDRESS", "ray": "RAY_ADDRESS"}
_STARTS: Final[dict[str, Callable[[Workload, int], _Started]]] = {"loky": _Loky, "dask": _Dask, "ray": _Ray}
