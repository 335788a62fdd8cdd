"""Compare the demappers with Sionna's in double precision: the last table of docs/results.md.

    python examples/llr_accuracy.py

Both get the received symbols and the noise variances as rounded to the dtype that is tested.
"""

from __future__ import annotations

import numpy as np
import torch
from sionna.phy.mapping import Demapper

from link.constellation import ORDERS, app_llr, bits_per_symbol, max_log_llr, points
from link.snr import no_from_esn0_db

SYMBOLS = {4: 20_000, 16: 20_000, 64: 10_000, 256: 4_000, 1024: 2_000, 4096: 600}
PEERS = {"maxlog": max_log_llr, "app": app_llr}


def worst(method: str, order: int, dtype: type[np.floating]) -> float:
    """Largest |difference| / (1 + |LLR|) from -10 to 40 dB."""
    generator = np.random.default_rng(1)
    peer = Demapper(method, "qam", bits_per_symbol(order), precision="double")
    largest = 0.0
    for esn0_db in range(-10, 41, 5):
        sent = points(order)[generator.integers(0, order, SYMBOLS[order])]
        no = no_from_esn0_db(esn0_db)
        y = (sent + generator.normal(size=sent.shape) * np.sqrt(no / 2)).astype(dtype)
        variances = np.full(len(y), no).astype(dtype)
        symbols = torch.from_numpy(y[:, :1].astype(np.float64) + 1j * y[:, 1:].astype(np.float64))
        expected = peer(symbols, torch.from_numpy(variances[:, None].astype(np.float64))).numpy()
        found = PEERS[method](y[:, None, :], variances[:, None], order)[:, 0]
        largest = max(largest, float((np.abs(found - expected) / (1 + np.abs(expected))).max()))
    return largest


def main() -> None:
    """Print the table."""
    print("| order | max-log, float64 | max-log, float32 | log-sum-exp, float64 | log-sum-exp, float32 |")
    print("|---|---|---|---|---|")
    for order in ORDERS:
        cells = [f"{worst(method, order, dtype):.1e}" for method in PEERS for dtype in (np.float64, np.float32)]
        print(f"| {order} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
