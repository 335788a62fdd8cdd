"""What may wait: a bound on requests and on bytes, for all models of a server together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from serve.engine.errors import Overloaded, ShuttingDown

QUEUE_REQUESTS: Final = 1024
QUEUE_BYTES: Final = 256 * 2**20

_RETRY_MIN_S: Final = 0.01
_RETRY_MAX_S: Final = 30.0


class Admission:
    """Requests that were let in and are not answered yet.

    Parameters
    ----------
    requests : int
        At most so many at a time.
    nbytes : int
        At most so many bytes of their messages; a single request is let in alone, whatever its size.

    Attributes
    ----------
    requests, nbytes : int
        Held now.
    turned_away : int
        Requests that came after `close`.
    """

    def __init__(self, requests: int = QUEUE_REQUESTS, nbytes: int = QUEUE_BYTES) -> None:
        self.requests = 0
        self.nbytes = 0
        self.turned_away = 0
        self._most_requests = requests
        self._most_bytes = nbytes
        self._closed = False

    def enter(self, nbytes: int, wait_s: Callable[[], float]) -> None:
        """Let a request in.

        Parameters
        ----------
        nbytes : int
            Size of its message.
        wait_s : callable
            Tells when there is likely to be room, for a refusal.

        Raises
        ------
        Overloaded
            If the bound is reached.
        ShuttingDown
            If no more work is taken.
        """
        self.require_open()
        if self.requests >= self._most_requests:
            raise Overloaded(f"{self.requests} requests are waiting, as many as may", retry_after(wait_s()))
        if self.requests and self.nbytes + nbytes > self._most_bytes:
            raise Overloaded(
                f"requests of {self.nbytes} bytes are waiting, and {nbytes} more pass {self._most_bytes}",
                retry_after(wait_s()),
            )
        self.requests += 1
        self.nbytes += nbytes

    def require_open(self) -> None:
        """Raise ShuttingDown where no more work is taken."""
        if self._closed:
            self.turned_away += 1
            raise ShuttingDown("the server is shutting down")

    def leave(self, nbytes: int) -> None:
        """Let a request go that `enter` let in."""
        self.requests -= 1
        self.nbytes -= nbytes

    def close(self) -> None:
        """Take no more work."""
        self._closed = True


def retry_after(wait_s: float) -> float:
    """What a refused caller is told to wait, seconds: not so little that it storms, not so long that it gives up."""
    return min(max(wait_s, _RETRY_MIN_S), _RETRY_MAX_S)
