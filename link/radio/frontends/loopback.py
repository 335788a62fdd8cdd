"""What is sent is received: a cable of no length."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

import numpy as np

from link.errors import RadioError
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples


class Spec(FrontEndSpec):
    """A loopback has no options."""

    kind: ClassVar[str] = "loopback"

    def build(self) -> Loopback:
        return Loopback()


class Loopback(FrontEnd):
    """Samples come back as they were sent, at once and all of them.

    Examples
    --------
    >>> with Loopback() as cable:
    ...     cable.send(np.array([1.0, 1.0j], dtype=np.complex64), 0.1), cable.recv(8, 0.1).samples
    (2, array([1.+0.j, 0.+1.j], dtype=complex64))
    """

    capabilities = Capabilities(exclusive=False)

    def __init__(self) -> None:
        self._held: deque[Samples] | None = None

    def open(self) -> None:
        if self._held is None:
            self._held = deque()

    def send(self, samples: Samples, timeout_s: float) -> int:
        self._queue().append(np.array(samples, dtype=np.complex64))
        return len(samples)

    def recv(self, most: int, timeout_s: float) -> Block:
        held = self._queue()
        if not held:
            return Block()
        first = held.popleft()
        if len(first) > most:
            held.appendleft(first[most:])
        return Block(first[:most])

    def close(self) -> None:
        self._held = None

    def _queue(self) -> deque[Samples]:
        if self._held is None:
            raise RadioError("the loopback is not open")
        return self._held
