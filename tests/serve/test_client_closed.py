"""A client that is closed, before a call and in the middle of one."""

import asyncio
import threading

import pytest

from link.errors import ServerError
from serve.client import AsyncClient, Client

CALLS = {
    "model": lambda client, images: client.model(),
    "encode": lambda client, images: client.encode(images),
    "transmit": lambda client, images: client.transmit(images, snr_db=3.0),
    "stream": lambda client, images: client.transmit_stream([images], snr_db=3.0),
    "sweep": lambda client, images: client.sweep(images, [3.0]),
}
HELD = ("transmit", "stream", "sweep")


async def answered(call):
    return [item async for item in call] if hasattr(call, "__aiter__") else await call


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_client_says_so(server, images, name, used):
    client = Client(server.address)
    if used:
        client.model()
    client.close()
    with pytest.raises(ServerError, match=f"the connection to {server.address} is closed"):
        list(CALLS[name](client, images))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_client_for_asyncio_says_so_and_connects_no_more(server, images, name, used):
    async def run():
        client = AsyncClient(server.address)
        if used:
            await client.model()
        await client.close()
        with pytest.raises(ServerError, match=f"the connection to {server.address} is closed"):
            await answered(CALLS[name](client, images))
        assert ("_channel" in vars(client)) is used

    asyncio.run(run())


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("name", HELD)
def test_who_waits_for_a_reply_of_asyncio_is_told_that_it_was_closed(serving, bundle_path, images, hold, name, most):
    with serving(bundle_path) as own:
        held = hold(own.server)

        async def run():
            client = AsyncClient(own.address, max_batch=most)
            waiting = asyncio.create_task(answered(CALLS[name](client, images)))
            assert await asyncio.to_thread(held.entered.wait, 20)
            await client.close()
            with pytest.raises(ServerError, match="was closed before the reply"):
                await waiting

        try:
            asyncio.run(run())
        finally:
            held.go.set()


def test_a_stream_that_is_fed_while_its_client_is_closed_says_so(server, images):
    client, closed = Client(server.address), threading.Event()

    def batches():
        yield images
        closed.wait(20)
        yield images

    results = client.transmit_stream(batches(), snr_db=3.0)
    next(results)
    client.close()
    closed.set()
    with pytest.raises(ServerError, match="closed before the reply"):
        next(results)
