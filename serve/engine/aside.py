"""What takes long (a sweep minutes, a channel of TR 38.901 seconds) runs beside the batches, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from serve.engine.errors import Overloaded

WAITING_MAX: Final = 4
_NICE: Final = 19
_RETRY_S: Final = 1.0

T = TypeVar("T")


class Aside:
    """One thread of low priority; a few calls may wait for it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hardpath-aside", initializer=yield_to_others)
        self._lock = threading.Lock()  # of _calls
        self._calls = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` answers, once it is its turn; where the caller goes before, it never runs.

        A call that has begun keeps its place until it ends, also where nobody waits for it any more.

        Raises
        ------
        Overloaded
            If as many calls wait as may.
        """
        with self._lock:
            if self._calls > WAITING_MAX:
                raise Overloaded(f"{WAITING_MAX} long calls (sweeps, channels of TR 38.901) are waiting", _RETRY_S)
            self._calls += 1
        work = self._pool.submit(call)
        work.add_done_callback(self._ended)
        try:
            return await asyncio.wrap_future(work)
        finally:
            del work  # an error's traceback holds this frame, and the future the error: no ring, no garbage

    def _ended(self, work: object) -> None:
        """In whatever thread it ended, or was given up."""
        with self._lock:
            self._calls -= 1

    def close(self) -> None:
        """Wait for the call that is being run; those that wait are dropped."""
        self._pool.shutdown(cancel_futures=True)


def yield_to_others() -> None:
    """Give this thread a low priority, where the system has one for a thread."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
