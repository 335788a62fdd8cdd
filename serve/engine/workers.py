"""Threads that run batches, for all models of a server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

logger = logging.getLogger(__name__)

NAME: Final = "hardpath-run"


class Workers:
    """A number of threads over one queue; a thread pool's futures would cost more than handing over does.

    Parameters
    ----------
    count : int
        Threads, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{NAME}-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """Have `call` run."""
        self._calls.put(call)

    def close(self) -> None:
        """Run what is waiting, and end."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:  # a defect of one batch must not take a worker from all others
                logger.exception("a batch failed in its worker")
            del call  # while it waits, a worker holds no batcher, and so no model
