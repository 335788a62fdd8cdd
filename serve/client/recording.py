"""A recording over a stream: its windows are decided together where the recording is.

    windows ──TransmitStream──> logits, LLRs of each window ──> sequence stage, with the model's tables ──> decisions

The server decides each window by itself and keeps nothing of a recording, so a stream that breaks and is opened anew, or
goes on at another server, changes no decision.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from contextlib import aclosing, closing
from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from link.manifest import Manifest
from link.sequence import SequenceStream, SequenceTables, code_probabilities
from serve.client.aio import AsyncClient
from serve.client.requests import Inputs, LinkOptions
from serve.client.threads import Client
from serve.results import Decoded


class Decided(NamedTuple):
    """The decision on one window.

    Attributes
    ----------
    window : int
        Number in its recording, from 0.
    class_name : str
    probability : float
        Given all windows up to `lag` after it.
    alone : str
        What the window was decided to be by itself.
    """

    window: int
    class_name: str
    probability: float
    alone: str


class Recording:
    """The stage of one recording, and what waits for its decision.

    Parameters
    ----------
    tables : SequenceTables
    manifest : Manifest
    lag : int
    """

    def __init__(self, tables: SequenceTables, manifest: Manifest, lag: int) -> None:
        self._stream = SequenceStream(tables, lag)
        self._mode = manifest.modes[0]
        self._classes = manifest.task.classes
        self._alone: list[str] = []
        self._decided = 0

    def push(self, decoded: Decoded) -> Iterator[Decided]:
        """What is decided once these windows are here."""
        assert decoded.llr is not None
        assert decoded.logits is not None
        codes = code_probabilities(decoded.llr, self._mode).astype(np.float64)
        for row, window in enumerate(codes):
            self._alone.append(self._classes[int(decoded.decisions[row])])
            found = self._stream.push(decoded.logits[row].astype(np.float64), window)
            if found is not None:
                yield self._next(found)

    def flush(self) -> Iterator[Decided]:
        """What is left, given all windows."""
        for found in self._stream.flush():
            yield self._next(found)

    def _next(self, log_p: NDArray[np.float64]) -> Decided:
        number, best = self._decided, int(np.argmax(log_p))
        self._decided += 1
        return Decided(number, self._classes[best], float(np.exp(log_p[best])), self._alone[number])


def decide(
    client: Client,
    windows: Iterable[Inputs],
    *,
    snr_db: float | None = None,
    lag: int = 0,
    model: str | None = None,
    timeout_s: float | None = None,
    **options: Unpack[LinkOptions],
) -> Generator[Decided, None, None]:
    """Send a recording on one stream, and decide its windows together as they come.

    Parameters
    ----------
    client : Client
    windows : iterable
        One or more windows each, as `x` of `Client.transmit`; it may be a live source.
    lag : int
        Windows that a decision waits for, at least 0: more are surer, and later.
    snr_db, model, timeout_s, options
        As for `Client.transmit_stream`.

    Yields
    ------
    Decided
        Of each window, in order; the last `lag` of them when the recording has ended.

    Raises
    ------
    ArgumentError
        If the model decides each sample by itself, or the lag is below 0.
    """
    recording = Recording(client.sequence(model), client.model(model).manifest, lag)
    sent = client.transmit_stream(windows, snr_db=snr_db, include_llr=True, model=model, timeout_s=timeout_s, **options)
    with closing(sent) as results:
        for result in results:
            yield from recording.push(result.decoded)
    yield from recording.flush()


def alone(
    client: Client,
    windows: Iterable[Inputs],
    *,
    snr_db: float | None = None,
    model: str | None = None,
    timeout_s: float | None = None,
    **options: Unpack[LinkOptions],
) -> Generator[Decided, None, None]:
    """Send a recording on one stream, and decide each window by itself: whatever the model, without its sequence stage.

    Parameters and what is yielded are those of `decide`; nothing is waited for.
    """
    sent = client.transmit_stream(windows, snr_db=snr_db, model=model, timeout_s=timeout_s, **options)
    number = 0
    with closing(sent) as results:
        for result in results:
            decoded = result.decoded
            assert decoded.probabilities is not None
            for answer, probabilities in zip(decoded.answers, decoded.probabilities, strict=True):
                yield Decided(number, answer, float(probabilities.max()), answer)
                number += 1


async def decide_async(
    client: AsyncClient,
    windows: Iterable[Inputs] | AsyncIterable[Inputs],
    *,
    snr_db: float | None = None,
    lag: int = 0,
    model: str | None = None,
    timeout_s: float | None = None,
    **options: Unpack[LinkOptions],
) -> AsyncGenerator[Decided, None]:
    """As `decide`, for asyncio."""
    recording = Recording(await client.sequence(model), (await client.model(model)).manifest, lag)
    sent = client.transmit_stream(windows, snr_db=snr_db, include_llr=True, model=model, timeout_s=timeout_s, **options)
    async with aclosing(sent) as results:
        async for result in results:
            for decided in recording.push(result.decoded):
                yield decided
    for decided in recording.flush():
        yield decided
