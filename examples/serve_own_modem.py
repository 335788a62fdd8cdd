"""Bring a modem of one's own: the server encodes to bits and decodes LLRs; what lies between is this program's.

    inputs ─> Encode ─> bits ─> BPSK or QPSK, repeated ─> AWGN ─> LLRs ─> Decode ─> decisions
              server                  here, in NumPy                       server

    hardpath serve runs/demo/bundle &
    python examples/serve_own_modem.py 127.0.0.1:50051

Hard decisions on the same bits stand beside the LLRs: what a demodulator gives away that only says 0 or 1.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from link.errors import HardpathError
from serve.client import Client


def modulate(bits: NDArray[np.uint8], order: int) -> NDArray[np.complex128]:
    """BPSK or QPSK with Es = 1: bit 0 is a positive amplitude; of QPSK, even bits on I and odd ones on Q.

    Parameters
    ----------
    bits : (B, L) uint8
    order : int
        2 or 4.

    Returns
    -------
    (B, S) complex128
        S = L for BPSK; ceil(L / 2) for QPSK, where a last odd bit is joined by a 0.
    """
    amplitude = 1.0 - 2.0 * bits
    if order == 2:
        return amplitude.astype(np.complex128)
    if bits.shape[1] % 2:
        amplitude = np.concatenate([amplitude, np.ones((len(bits), 1))], axis=1)
    return (amplitude[:, 0::2] + 1j * amplitude[:, 1::2]) / np.sqrt(2.0)


def demodulate(y: NDArray[np.complex128], no: float, order: int, num_bits: int) -> NDArray[np.float32]:
    """LLRs of the bits, ln P(b=1)/P(b=0), exact: -4 Re(y) / N0 for BPSK, -2 sqrt(2) Re or Im(y) / N0 for QPSK.

    Parameters
    ----------
    y : (B, S) complex128
    no : float
        N0, the variance of the complex noise.
    order, num_bits : int

    Returns
    -------
    (B, num_bits) float32
    """
    if order == 2:
        return (-4.0 / no * y.real).astype(np.float32)
    parts = np.stack([y.real, y.imag], axis=-1).reshape(len(y), -1)
    return (-2.0 * np.sqrt(2.0) / no * parts[:, :num_bits]).astype(np.float32)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="host:port")
    parser.add_argument("--model", default="", help="which model, where the server holds several")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=3)
    asked = parser.parse_args()
    random = np.random.default_rng(asked.seed)
    with Client(asked.address, model=asked.model) as client:
        manifest = client.model().manifest
        (spec,) = manifest.task_inputs
        samples = random.uniform(spec.low, spec.high, size=(asked.samples, *spec.shape[1:])).astype(np.float32)
        sent = client.encode(samples, mode=manifest.default_mode)
        clean = client.decode(bits=sent.bits, mode=sent.mode).decisions
        print(
            "| modem | Es/N0 dB | BER | as without noise, LLRs | as without noise, hard bits |\n|---|---|---|---|---|"
        )
        for name, order in (("BPSK", 2), ("QPSK", 4)):
            x = modulate(sent.bits, order)
            for snr_db in (-3.0, 0.0, 3.0, 6.0):
                no = 10.0 ** (-snr_db / 10.0)
                y = x + np.sqrt(no / 2.0) * (random.normal(size=x.shape) + 1j * random.normal(size=x.shape))
                llr = demodulate(y, no, order, sent.bits.shape[1])
                hard = (llr > 0.0).astype(np.uint8)
                soft_share, hard_share = (
                    np.mean(found.decisions == clean)
                    for found in (client.decode(llr_in=llr, mode=sent.mode), client.decode(bits=hard, mode=sent.mode))
                )
                ber = np.mean((hard != sent.bits)[np.arange(sent.bits.shape[1]) < sent.num_bits[:, None]])
                print(f"| {name} | {snr_db:g} | {ber:.4f} | {soft_share:.3f} | {hard_share:.3f} |")


if __name__ == "__main__":
    try:
        main()
    except HardpathError as error:
        sys.exit(f"{error}")
