"""Call a server from a program: what it holds, one transmission, a large batch, and a sweep.

    hardpath serve runs/demo/bundle &
    python examples/serve_client.py 127.0.0.1:50051

Samples are random within the ranges that the model states, so any model of numbers will do. HARDPATH_TOKEN holds the token
where the server wants one.
"""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np

from link.errors import HardpathError
from serve.client import Client


def main() -> None:
    """Print what the server answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="host:port; several with commas are called in turn")
    parser.add_argument("--model", default="", help="which model, where the server holds several")
    parser.add_argument("--samples", type=int, default=10_000, help="size of the large batch")
    asked = parser.parse_args()
    with Client(asked.address, model=asked.model, token=os.environ.get("HARDPATH_TOKEN")) as client:
        for model in client.models():
            print(f"{model.name} version {model.version}: {model.task}, answered by {model.receiver_name}")
        (spec,) = client.model().manifest.task_inputs
        random = np.random.default_rng(1)
        samples = random.uniform(spec.low, spec.high, size=(asked.samples, *spec.shape[1:])).astype(np.float32)

        reply = client.transmit(samples[:4], snr_db=9.0, channel="rayleigh", seed=1, include_symbols=True)
        print(f"decided {', '.join(reply.decoded.class_names)}; bit errors {reply.bit_errors.tolist()}")
        print(
            f"of {reply.y.shape[1]} symbols a sample, the first came as {reply.y[0, 0]} for {reply.sent.symbols[0, 0]}"
        )

        # More than the server takes at once: cut, several under way, put together again.
        large = client.transmit(
            samples, snr_db=9.0, seed=1, progress=lambda done, of: print(f"{done} of {of}", end="\r")
        )
        print(f"{len(large.bit_errors)} samples, BER {large.bit_errors.sum() / large.sent.num_bits.sum():.4f}")

        # Points come as they end; leaving the loop ends the sweep at the server too.
        for point in client.sweep(samples[:50], [0.0, 6.0, 12.0], seed=1, draws=8):
            print(f"{point.snr_db:4g} dB: as without noise {point.accuracy.value:.3f}, BER {point.ber.value:.4f}")


if __name__ == "__main__":
    try:
        main()
    except HardpathError as error:
        sys.exit(f"{error}")
