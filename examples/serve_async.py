"""Stream samples through a server as they arrive, with asyncio, and decide each within a deadline.

    hardpath serve runs/demo/bundle &
    python examples/serve_async.py 127.0.0.1:50051

A source that takes its time stands for a sensor: its batches are answered one by one, in order, while it goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from link.errors import HardpathError
from link.interface import TensorSpec
from serve.client import AsyncClient


async def sensor(spec: TensorSpec, batches: int, sent: list[float]) -> AsyncIterator[NDArray[np.float32]]:
    """A batch of four samples every five milliseconds; notes when each was sent."""
    random = np.random.default_rng(2)
    for _ in range(batches):
        await asyncio.sleep(0.005)
        sent.append(time.perf_counter())
        yield random.uniform(spec.low, spec.high, size=(4, *spec.shape[1:])).astype(np.float32)


async def main() -> None:
    """Print what came back, and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="host:port; several with commas are called in turn")
    parser.add_argument("--model", default="", help="which model, where the server holds several")
    parser.add_argument("--batches", type=int, default=100)
    asked = parser.parse_args()
    async with AsyncClient(asked.address, model=asked.model, timeout_s=2.0) as client:
        (spec,) = (await client.model()).manifest.task_inputs
        sent: list[float] = []
        took: list[float] = []
        async for reply in client.transmit_stream(sensor(spec, asked.batches, sent), snr_db=6.0, seed=2):
            took.append(1e3 * (time.perf_counter() - sent[len(took)]))
            if len(took) % 25 == 0:
                print(f"batch {len(took)}: {', '.join(reply.decoded.class_names)}")
        print(f"{len(took)} batches, ms from sensor to decision: median {np.median(took):.1f}, worst {max(took):.1f}")

        # Calls of their own go on together.
        image = np.full((1, *spec.shape[1:]), spec.low, np.float32)
        replies = await asyncio.gather(*(client.transmit(image, snr_db=snr_db) for snr_db in range(-6, 18, 3)))
        print("one sample from -6 to 15 dB:", " ".join(reply.decoded.class_names[0] for reply in replies))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except HardpathError as error:
        sys.exit(f"{error}")
