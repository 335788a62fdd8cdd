"""When a call that failed is sent again: the client's patience.

Sent again is what may pass: to a server that is not there or went away (UNAVAILABLE, and CANCELLED where it stopped before
it answered), and to one that refused at once since it had too much to do, and said when to come back (RESOURCE_EXHAUSTED
with RetryInfo). Every call of hardpath.v1 is a pure function of its request, so an answer that was lost on its way may be
asked for again. Nothing else is repeated.

gRPC can repeat calls itself (`retryPolicy` of the service config), and is not asked to. It does not read RetryInfo: what it
respects is the trailer `grpc-retry-pushback-ms` alone, so it would come back to an overloaded server before the time that
this one named. It also begins attempts that cannot end before the deadline. What stays with gRPC are its transparent
retries: of a request that never left, or that the server says it never saw.

A sick server is not stormed: attempts of one call are few, pauses grow and are jittered, and all calls of a client share a
budget of retries that only successes refill, as gRPC's retry throttling has it (gRFC A6).
"""

from __future__ import annotations

import random
import threading
import time
from typing import Final, NamedTuple

from serve.client.failures import Failure

_JITTER: Final = random.Random()  # its own: nobody's seed is used up


class Retries(NamedTuple):
    """How often, how soon, and how many of them.

    Attributes
    ----------
    attempts : int
        Most attempts of one request, the first included.
    backoff_s : float
        Pause before the second attempt, in seconds; it doubles from attempt to attempt. Each is drawn from the upper half.
    backoff_max_s : float
        Longest such pause. What a server asks for is waited in full, and the pause comes on top.
    budget : int
        Failures without successes between them after which a client repeats calls no more; it keeps count of twice as many.
    refill : float
        Failures that one success makes up for.
    """

    attempts: int = 5
    backoff_s: float = 0.1
    backoff_max_s: float = 2.0
    budget: int = 100
    refill: float = 0.1


class Budget:
    """Retries that a client still has, shared by all of its calls; any number of threads may use it.

    Examples
    --------
    >>> budget = Budget(Retries(budget=1, refill=0.5))
    >>> budget.fail(), budget.fail()
    (True, False)
    >>> budget.succeed()
    >>> budget.succeed()
    >>> budget.succeed()
    >>> budget.succeed()
    >>> budget.fail()
    True
    """

    def __init__(self, retries: Retries) -> None:
        self._most = 2.0 * retries.budget
        self._refill = retries.refill
        self._left = self._most
        self._lock = threading.Lock()

    def succeed(self) -> None:
        """Count a call that was answered."""
        if self._left < self._most:  # a stale look costs nothing: the next success counts
            with self._lock:
                self._left = min(self._most, self._left + self._refill)

    def fail(self) -> bool:
        """Count an attempt that failed; whether it may be followed by another."""
        with self._lock:
            self._left = max(0.0, self._left - 1.0)
            return self._left >= 0.5 * self._most


class Course:
    """The attempts of one request, within the time that its caller has.

    Parameters
    ----------
    retries : Retries
    budget : Budget
        The client's.
    deadline : float or None
        time.monotonic() by which the answer is wanted.
    """

    __slots__ = ("_budget", "_deadline", "_failed", "_retries")

    def __init__(self, retries: Retries, budget: Budget, deadline: float | None) -> None:
        self._retries = retries
        self._budget = budget
        self._deadline = deadline
        self._failed = 0

    @property
    def left_s(self) -> float | None:
        """Seconds that the next attempt has, which the server is told; None where there is no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def succeeded(self) -> None:
        """An attempt was answered: what fails from now on fails for the first time."""
        self._failed = 0
        self._budget.succeed()

    def pause_after(self, failure: Failure) -> float | None:
        """Seconds to wait before the next attempt, or None where there is none."""
        if not failure.may_pass:
            return None
        self._failed += 1
        if not self._budget.fail() or self._failed >= self._retries.attempts:
            return None
        grown = min(self._retries.backoff_s * 2.0 ** (self._failed - 1), self._retries.backoff_max_s)
        pause = (failure.retry_after_s or 0.0) + _JITTER.uniform(0.5, 1.0) * grown
        left = self.left_s
        return pause if left is None or pause < left else None
