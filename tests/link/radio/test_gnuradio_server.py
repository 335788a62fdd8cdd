"""A server whose radio is a GNU Radio flowgraph: it answers, and outlives a flowgraph that is killed under load."""

import json

import numpy as np
import pytest

from benchmarks.radio.flowgraph import channel_model
from link.bundle import load_bundle
from link.chain import Link
from link.channel import RADIO
from link.semantic import clean_decisions
from serve.client import Client
from serve.client.failures import Unavailable
from serve.client.retries import Retries
from serve.config.schema import ServerConfig
from serve.server import Server

ONCE, OFTEN = Retries(attempts=1), Retries(attempts=20)


def toml(options):
    given = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    return f"timeout_s = 1.0\n[frontend]\nkind = 'zmq'\n{given}"


@pytest.mark.parametrize("pattern", ["push-pull", "request-reply"])
def test_a_flowgraph_that_is_killed_under_load_is_a_clear_failure_and_taken_up_again(
    flowgraph, modes_bundle, latents_of, tmp_path, pattern
):
    latents = latents_of(np.arange(24) % 3).inputs
    clean = clean_decisions(Link(load_bundle(modes_bundle)), latents).tolist()
    graph = flowgraph(channel_model(noise_voltage=0.05, frequency_offset=1e-3, taps=(0.9, 0, 0, 0.3j)), pattern=pattern)
    file = tmp_path / "radio.toml"
    file.write_text(toml(graph.options))
    config = ServerConfig(bundles=(modes_bundle,), listen={"port": 0}, radio={"file": file})
    with (
        Server(config=config) as server,
        Client(server.address, retries=ONCE) as client,
        Client(server.address, retries=OFTEN) as patient,
    ):
        for _ in range(2):
            reply = patient.transmit(latents, channel=RADIO)
            assert reply.decoded.decisions.tolist() == clean
            assert reply.frames.lost == 0
            assert 20.0 < reply.frames.snr_db < 30.0
            stream = client.transmit_stream((latents for _ in range(10_000)), channel=RADIO)
            next(stream)
            graph.kill()  # while requests of the stream are under way
            with pytest.raises(Unavailable, match="cannot do this now"):
                for _ in stream:
                    pass
            assert client.transmit(latents, snr_db=20.0).settings.channel == "awgn"
            graph.start()
