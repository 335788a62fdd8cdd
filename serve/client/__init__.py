"""The client: what the engine answers, from another process; NumPy arrays on both sides.

    with Client("127.0.0.1:50051") as client:
        client.transmit(images, snr_db=12.0, seed=1).decoded.class_names

    async with AsyncClient("10.0.0.1:50051,10.0.0.2:50051") as client:
        await client.transmit(images, snr_db=12.0, seed=1)

Both have the same calls with the same arguments and results; `Client` is for threads, any number of them, `AsyncClient` for
asyncio. What an address may be stands in serve.client.target, which failures are sent again and when in
serve.client.retries, what a call raises in serve.client.failures, how a large batch is cut in serve.client.requests.
"""

from serve.client.aio import AsyncClient
from serve.client.points import SweepPoint
from serve.client.requests import ModelSummary
from serve.client.retries import Retries
from serve.client.threads import Client

__all__ = ["AsyncClient", "Client", "ModelSummary", "Retries", "SweepPoint"]
