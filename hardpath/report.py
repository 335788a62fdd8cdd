"""The demo's report: a table, four pictures, and how to get each of them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hardpath.inspection import describe_sent
from hardpath.terminal import percent, write_text
from link.manifest import Manifest

if TYPE_CHECKING:
    from link.chain import LinkResult
    from link.repetition import RepetitionPoint
    from link.sweep import SweepResult
    from train.record import EpochRecord
    from train.verify import Verification

PICTURES: Final = "pictures"
CONSTELLATION_SNR_DB: Final = 12.0
LLR_SNR_DB: Final = 6.0


@dataclass(frozen=True)
class Findings:
    """Everything that the demo measured."""

    manifest: Manifest
    records: Sequence[EpochRecord]
    verification: Verification
    awgn: SweepResult
    rayleigh: SweepResult
    repetition: Sequence[RepetitionPoint]
    no_link_accuracy: float
    soft_accuracy: Mapping[float, float]
    receptions: dict[float, LinkResult]


def table_rows(found: Findings) -> list[tuple[str, ...]]:
    """One row an SNR: hard path with its interval, soft surrogate, fading, repetition, bit error rate."""
    return [
        (
            f"{point.snr_db:g}",
            percent(point.accuracy.value),
            f"{percent(point.accuracy.low)} .. {percent(point.accuracy.high)}",
            percent(found.soft_accuracy[point.snr_db]),
            percent(faded.accuracy.value),
            percent(repeated.accuracy.value),
            "-" if point.ber is None else f"{point.ber.value:.2e}",
        )
        for point, faded, repeated in zip(found.awgn.points, found.rayleigh.points, found.repetition, strict=True)
    ]


TABLE_HEAD: Final = (
    "Es/N0 dB",
    "hard %",
    "95 % interval",
    "soft %",
    "hard, Rayleigh %",
    "label by repetition %",
    "BER",
)


def write_report(folder: Path, found: Findings, verification_text: str, commands: str) -> Path:
    """Write report.md and its pictures into `folder`; the report's path."""
    pictures = folder / PICTURES
    _draw(pictures, found)
    made = found.manifest.provenance
    best = [record for record in found.records if record.is_best][-1]
    head = " | ".join(TABLE_HEAD)
    body = "\n".join("| " + " | ".join(row) + " |" for row in table_rows(found))
    first = found.awgn.points[0]
    text = f"""# {found.manifest.name}: from training to the deployed link

{len(found.records)} epochs, seed {made.seed}; the bundle is epoch {best.epoch} ({best.phase.value.lower()}), chosen by hard
accuracy on the validation set. A sample is sent as {describe_sent(found.manifest)}. The figures
below are of the test set, {first.samples} samples sent {first.draws} times at each SNR through the two ONNX graphs.

| {head} |
|{"---|" * len(TABLE_HEAD)}
{body}

Intervals are over samples and noise (Wilson, with the sample as the independent unit). *Soft* is the surrogate at
T = {made.temperature:g}, through the same noise as *hard*. *Label by repetition* decides at the transmitter, with the
classifier that has no link ({percent(found.no_link_accuracy)} % on the test set), and repeats the label over as many QPSK
symbols: for one task that the transmitter knows it is the baseline to beat. *Rayleigh* is block fading, one gain a sample,
known to the receiver.

## Accuracy against SNR

![Accuracy against Es/N0]({PICTURES}/accuracy.png)

## Bit error rate against SNR

![Bit error rate against Es/N0]({PICTURES}/ber.png)

## Received constellation at {CONSTELLATION_SNR_DB:g} dB

![Received symbols]({PICTURES}/constellation.png)

## LLRs at {LLR_SNR_DB:g} dB

![Histogram of LLRs]({PICTURES}/llr.png)

## The phases of training

![Training]({PICTURES}/training.png)

## Verification

```
{verification_text}
```

## Again

```
{commands}
```
"""
    write_text(folder / "report.md", text)
    return folder / "report.md"


def _draw(pictures: Path, found: Findings) -> None:
    from link.plot import Curve, constellation, llr_histogram, waterfall
    from train.plot import plot_training

    grid = [point.snr_db for point in found.awgn.points]
    waterfall(
        [
            Curve.of_accuracy("hard path (ONNX), AWGN", found.awgn.points),
            Curve("soft surrogate, AWGN", grid, [found.soft_accuracy[snr_db] for snr_db in grid], "baseline"),
            Curve.of_accuracy("hard path (ONNX), Rayleigh block", found.rayleigh.points),
            Curve.of_accuracy("label by repetition, AWGN", found.repetition, "baseline"),
            Curve("no link", [grid[0], grid[-1]], [found.no_link_accuracy] * 2, "theory"),
        ],
        pictures / "accuracy",
    )
    theory = [point for point in found.awgn.points if point.ber_theory is not None]
    waterfall(
        [
            Curve.of_ber("measured, AWGN", found.awgn.points),
            Curve(
                "theory, equally likely bits",
                [p.snr_db for p in theory],
                [p.ber_theory or 0.0 for p in theory],
                "theory",
            ),
        ],
        pictures / "ber",
        metric="ber",
    )
    shown = found.receptions[CONSTELLATION_SNR_DB]
    common = int(np.argmax(np.bincount(shown.sent.mode)))
    heard_of = np.isfinite(shown.received.no) & (shown.sent.mode == common)[:, None]
    order = found.manifest.modes[common].order
    constellation(shown.received.y[heard_of], order, pictures / "constellation", CONSTELLATION_SNR_DB)
    heard = found.receptions[LLR_SNR_DB]
    bits = np.asarray(heard.sent.bits)
    payload = np.arange(bits.shape[1]) < heard.sent.num_bits[:, None]
    if heard.header is not None:
        payload &= heard.header.right[:, None]
    llr_histogram(heard.decoded.llr[payload], bits[payload], pictures / "llr", clip=found.manifest.llr.clip)
    plot_training(found.records, pictures / "training")
