"""The radio's figures as a page."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.machine import describe
from benchmarks.radio import suite
from benchmarks.radio.cases import Case
from benchmarks.radio.suite import Envelope, Row, Semantic, Speed

SEMANTIC_SNRS_DB = (3.0, 6.0, 9.0)
SEMANTIC_DRAWS = 60


class Findings(NamedTuple):
    """All that one run measured."""

    rows: list[Row]
    ablations: dict[str, Case]
    semantic: list[Semantic]
    envelopes: list[Envelope]
    speed: Speed
    seconds: float


def measure(bundle: Path, scale: float) -> Findings:
    """Everything, at a share of its size."""
    from hardpath.samples import labels_of, load_samples
    from link.bundle import load_bundle
    from link.chain import Link

    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s  {what}", file=sys.stderr, flush=True)

    say("speed")
    speed = suite.speed()
    say("bit errors through GNU Radio")
    rows = suite.ber_table(suite.settings(scale))
    say("ablations")
    ablations = suite.ablations(scale)
    say("accuracy through GNU Radio")
    link = Link(load_bundle(bundle))
    samples = load_samples(None, link.manifest)
    draws = max(2, round(SEMANTIC_DRAWS * scale))
    semantic = [suite.semantic(link, samples.inputs, labels_of(samples), snr_db, draws) for snr_db in SEMANTIC_SNRS_DB]
    say("envelope")
    envelopes = suite.envelopes(max(5, round(50 * scale)))
    return Findings(rows, ablations, semantic, envelopes, speed, time.monotonic() - begun)


def write(folder: Path, found: Findings) -> str:
    """radio.md; its text."""
    text = page(found)
    (folder / "radio.md").write_text(text, encoding="utf-8")
    return text


def page(found: Findings) -> str:
    """The page."""
    machine = describe()
    speed = found.speed
    parts = [
        "# What the radio link reaches",
        "`make bench-radio` measures what this page says and writes it anew. Frames of 1,024 symbols of 16-QAM, root raised "
        "cosine 0.35, 4 samples a symbol, through GNU Radio's `channel_model` over ZMQ, in a process of its own.",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; commit "
        f"{machine['commit'] or 'unknown'}; {found.seconds:.0f} s.",
        "## Bit errors through GNU Radio",
        "The bound is the best linear equaliser's (theory over AWGN where there are no echoes). Lost is by how many dB less "
        "noise the bound would make as many bit errors. Told is the noise variance that the receiver was told over the mean "
        "square error; calibration the mean over bits of |share of ones - what the LLR claims|, in 20 bins.",
        _table(
            ("case", "Es/N0 dB", "found", "bit errors", "BER", "bound", "lost dB", "at most", "told dB", "calibration"),
            [_row(row) for row in found.rows],
        ),
        "## Without one part of the receiver",
        "Three taps, CFO 1e-3 cycles a sample, 16 dB; a frame whose header is not read is not found.",
        _table(
            ("receiver", "found", "BER of those"),
            [
                (name, f"{case.found}/{case.frames}", f"{case.ber:.2e}" if case.found else "-")
                for name, case in found.ablations.items()
            ],
        ),
        "## Accuracy",
        f"Digits over GNU Radio (three taps, CFO, noise), and over AWGN at the SINR that the receiver measured: the same "
        f"bundle, {found.semantic[0].radio.decisions} receptions each, the two-sample 95 % interval over the noise.",
        _table(
            ("Es/N0 dB", "measured SINR dB", "frames lost", "radio %", "AWGN %", "difference, points"),
            [_semantic(item) for item in found.semantic],
        ),
        "## Envelope",
        "By simulation, 16-QAM: share of the frames found, and in brackets how many dB the mean square error lies above the "
        "best linear equaliser's, at 0, 8 and 16 dB.",
        *(_envelope(item) for item in found.envelopes),
        "## Speed, one core",
        _table(
            ("", "measured", "asked"),
            [
                ("detection", f"{speed.detection_rate / 1e6:.1f} MS/s", "5 MS/s"),
                ("its Fourier transforms alone", f"{speed.samples / speed.transforms_ms / 1e3:.1f} MS/s", ""),
                ("a frame of 1,024 symbols received, detection included", f"{speed.frame_ms:.2f} ms", "5 ms"),
                ("a drop over the loopback, less its modulation and reception", f"{speed.loopback_ms:.2f} ms", "1 ms"),
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _row(row: Row) -> tuple[str, ...]:
    setting, case = row.setting, row.case
    limit = setting.limit_db
    return (
        setting.name,
        f"{setting.snr_db:g}",
        f"{case.found}/{case.frames}",
        str(case.bit_errors),
        f"{case.ber:.2e}",
        f"{row.ber_bound:.2e}",
        f"{row.loss_db:.2f}",
        "" if limit is None else f"{limit:g}{'' if row.loss_db <= limit else ' **missed**'}",
        f"{case.told_db:+.2f}",
        f"{case.miscalibration:.4f}",
    )


def _semantic(item: Semantic) -> tuple[str, ...]:
    radio = item.radio.radio
    assert radio is not None
    return (
        f"{item.radio.snr_db:g}",
        f"{item.awgn.snr_db:.2f}",
        f"{radio.frames_lost}/{radio.frames}",
        f"{100.0 * item.radio.accuracy.value:.2f}",
        f"{100.0 * item.awgn.accuracy.value:.2f}",
        f"{100.0 * item.difference:+.2f} +- {100.0 * item.half_width:.2f}",
    )


def _envelope(item: Envelope) -> str:
    head = (f"{item.name}, {item.unit}", *(f"{value:g}" for value in item.values))
    rows = [
        (
            f"{snr_db:g} dB",
            *(
                f"{100.0 * share:.0f} % ({'-' if np.isnan(lost) else f'{lost:.1f}'})"
                for share, lost in zip(item.found[row], item.loss_db[row], strict=True)
            ),
        )
        for row, snr_db in enumerate(item.snrs_db)
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
