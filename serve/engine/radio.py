"""The radio of a server: one call at a time has it, and it is looked for while it is gone.

    call ──> turn, first come, first served ──> thread of the radio: transmitter ──> radio ──> receiver ──> turn goes on
              └── none within its time: Overloaded        └── RadioError: closed; whoever comes next opens it anew

What a call sends ends before the turn goes on, also where nobody waits for the answer any more. All waits are bounded: that
for a turn by `wait_s` and by the caller's deadline, an exchange by the radio's own `timeout_s`.

Imports link.radio, which takes a while: loaded where a server has a radio.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from link.channel import Received
from link.channel.frames import FrameCounts
from link.errors import RadioError
from link.radio.channel import RadioChannel
from link.radio.spec import RadioSpec
from link.randomness import Draws
from serve.engine.admission import retry_after
from serve.engine.batcher import ANYONE, Caller
from serve.engine.errors import Expired, Overloaded, ShuttingDown
from serve.results import RadioState

logger = logging.getLogger(__name__)

WAIT_S: Final = 5.0

_RETRY_FIRST_S: Final = 0.5
_RETRY_LAST_S: Final = 30.0
_LOOK_S: Final = 5.0
"""How often a radio that is there and idle is looked at."""
_ATTACH_S: Final = 0.5
"""How long a look waits for the other side to show itself."""
_REPLY_S: Final = 0.01
"""From the end of an exchange, or a refusal, until the caller has it, with room to spare."""
_WEIGHT: Final = 0.2

T = TypeVar("T")


class Turn:
    """The radio as the channel of the call that has it, see link.channel.Channel.

    Attributes
    ----------
    name : str
    waited_s : float
        Until it began.
    exchanges : int
        Bursts of this call.
    frames : FrameCounts
        What became of their frames, those of headers included.
    """

    def __init__(self, channel: RadioChannel, waited_s: float = 0.0) -> None:
        self.name = channel.name
        self.waited_s = waited_s
        self.exchanges = 0
        self.frames = FrameCounts()
        self._channel = channel

    def __call__(self, x: Any, num_symbols: NDArray[np.int64], snr_db: float, draws: Draws) -> Received:
        """As RadioChannel."""
        received = self._channel(x, num_symbols, snr_db, draws)
        if received.frames is not None:
            self.exchanges += 1
            self.frames = self.frames.plus(received.frames)
        return received


class Radio:
    """A radio and its thread; belongs to one event loop.

    Parameters
    ----------
    spec : RadioSpec
    wait_s : float
        How long a call waits for its turn.

    Attributes
    ----------
    spec : RadioSpec
    channel : RadioChannel
        Of the thread of whoever has the turn, and of no other.

    Raises
    ------
    DriverUnavailable
        If its driver is not installed.
    """

    def __init__(self, spec: RadioSpec, wait_s: float = WAIT_S) -> None:
        self.spec = spec
        self.channel = RadioChannel(spec)
        self._wait_s = wait_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hardpath-radio")
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._up: bool | None = None
        self._expected_s = 0.0
        self._exchanges = self._errors = self._waiting = 0
        self._frames = FrameCounts()

    @property
    def state(self) -> RadioState:
        """Now; any thread may ask."""
        frames = self._frames
        return RadioState(
            kind=self.spec.frontend.kind,
            up=self._up is True,
            exchanges=self._exchanges,
            errors=self._errors,
            frames=frames.frames,
            frames_lost=frames.lost,
            crc_failed=frames.crc_failed,
            waiting=self._waiting,
        )

    @property
    def expected_s(self) -> float:
        """Seconds until a call that came now would have its turn, by what calls have taken."""
        return self._expected_s * (self._waiting + self._turn.locked())

    async def run(self, call: Callable[[Turn], T], caller: Caller = ANYONE) -> T:
        """What `call` answers, in the radio's thread, once it is its turn.

        Where the caller goes before, it never runs; where later, it ends before the turn goes on.

        Raises
        ------
        Overloaded
            If it gets no turn in time.
        Expired
            If the deadline has passed.
        RadioError
            If the radio is not there, or gone.
        """
        came = monotonic()
        await self._wait(caller)
        turn = Turn(self.channel, monotonic() - came)

        def run() -> T:
            if caller.deadline is not None and caller.deadline <= monotonic():
                raise Expired("the deadline has passed")
            return call(turn)

        began = monotonic()
        return await self._submit(run, lambda work: self._ended(work, turn, monotonic() - began))

    async def watch(self) -> None:
        """Take hold of the radio, and look for it with growing pauses while it is gone; until cancelled."""
        pause = _RETRY_FIRST_S
        while True:
            await self._look()
            if await self._rest(_LOOK_S if self._up else pause):
                pause = _RETRY_FIRST_S
                await asyncio.sleep(pause)
            else:
                pause = _RETRY_FIRST_S if self._up else min(2.0 * pause, _RETRY_LAST_S)

    def close(self) -> None:
        """Wait for what is being sent, and let go of the device."""
        self._thread.submit(self.channel.close)
        self._thread.shutdown()

    async def _wait(self, caller: Caller) -> None:
        """For the turn."""
        patience = self._wait_s
        if caller.deadline is not None:  # in time for the exchange, or to be told that there is none
            patience = min(patience, max(0.0, caller.deadline - monotonic() - self._expected_s - _REPLY_S))
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._turn.acquire()
        except TimeoutError:
            text = f"the radio is in use: no turn within {patience:.3g} s"
            raise Overloaded(text, retry_after(self.expected_s)) from None
        finally:
            self._waiting -= 1

    async def _submit(self, call: Callable[[], T], ended: Callable[[Future[T]], None]) -> T:
        """What `call` answers, of whoever has the turn, which goes on when it has ended; `ended` is told before."""
        loop = asyncio.get_running_loop()

        def give_on(work: Future[T]) -> None:
            try:
                ended(work)
            finally:
                self._turn.release()

        def tell(work: Future[T]) -> None:  # in whatever thread it ended, or was given up
            with suppress(RuntimeError):  # the loop was closed: nobody is left to have a turn
                loop.call_soon_threadsafe(give_on, work)

        try:
            work = self._thread.submit(call)
        except RuntimeError:  # closed
            self._turn.release()
            raise ShuttingDown("the server is shutting down") from None
        work.add_done_callback(tell)
        try:
            return await asyncio.wrap_future(work)
        finally:
            del work  # an error's traceback holds this frame, and the future the error: no ring, no garbage

    def _ended(self, work: Future[Any], turn: Turn, seconds: float) -> None:
        """A call has ended: count."""
        self._exchanges += turn.exchanges
        self._frames = self._frames.plus(turn.frames)
        if work.cancelled():
            return
        error = work.exception()
        if isinstance(error, RadioError):
            self._errors += 1
            self._gone(error)
        elif turn.exchanges:
            self._expected_s += _WEIGHT * (seconds - self._expected_s) if self._expected_s else seconds
            self._there()

    async def _rest(self, seconds: float) -> bool:
        """Whether a call lost the radio within so many seconds; it ends then."""
        self._lost.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            return False
        return True

    async def _look(self) -> None:
        """Whether it is there; where somebody has it, he finds out."""
        if self._turn.locked():
            return
        await self._turn.acquire()
        try:
            await self._submit(lambda: self.channel.attached(_ATTACH_S), self._seen)
        except RadioError:
            pass  # which is told once
        except Exception:  # a defect of a driver must not end the watch
            logger.exception("the radio (%s) could not be looked at", self.spec.frontend.kind)

    def _seen(self, work: Future[bool]) -> None:
        if work.cancelled():
            return
        error = work.exception()
        if isinstance(error, RadioError):
            self._gone(error)
        elif error is None and work.result():
            self._there()
        elif error is None:
            self._gone(RadioError("nobody is at the other end"))

    def _gone(self, error: RadioError) -> None:
        """Told once, until it is back."""
        if self._up is not False:
            what = "is not there" if self._up is None else "is gone"
            logger.warning("the radio (%s) %s: %s; it is looked for", self.spec.frontend.kind, what, error)
            self._lost.set()
        self._up = False

    def _there(self) -> None:
        if not self._up:
            what = "is there" if self._up is None else "is back"
            logger.info("the radio (%s) %s", self.spec.frontend.kind, what)
        self._up = True
