"""The whole job on real digits: train, export, serve, verify, call, sweep, report."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from hardpath.inspection import describe_sent
from hardpath.jobs import run_sweep, run_training, run_verification
from hardpath.report import CONSTELLATION_SNR_DB, LLR_SNR_DB, TABLE_HEAD, Findings, table_rows, write_report
from hardpath.terminal import note, percent, progress, say, say_table, waiting, write_text
from link.errors import HardpathError, ServerError

if TYPE_CHECKING:
    from train.run import Summary

SNR_DB: Final = tuple(float(snr_db) for snr_db in range(-6, 19, 3))
SWEEP_SEED: Final = 7
DRAWS: Final = 20
_READY_S: Final = 30.0


def run_demo(folder: Path, seed: int) -> None:
    """Run the whole job into `folder`; what is finished there is not done again.

    Raises
    ------
    HardpathError
        If a step fails, the verification included.
    """
    from link.bundle import load_bundle
    from link.chain import Link
    from link.channel import build_channel
    from link.randomness import Draws
    from link.repetition import sweep_repetition
    from link.sweep import SweepSpec
    from train.baseline import without_link
    from train.export import export
    from train.recipe_file import load_recipe
    from train.record import read_metrics
    from train.tasks import load_task
    from train.verify import VerifySettings, render

    started = time.monotonic()
    recipe = load_recipe("digits", {"seed": str(seed)})
    bundle = folder / "bundle"
    trained = run_training(recipe, folder, None, threads=1, brief=True)
    with progress("training the classifier without a link", recipe.schedule.epochs) as update:
        baseline = without_link(recipe, folder, on_epoch=lambda epoch: update(epoch, ""))
    with waiting("exporting transmitter.onnx and receiver.onnx, and comparing them with torch"):
        manifest = export(folder / "best", bundle)

    with _server(bundle) as address:
        settings = VerifySettings(snr_db=SNR_DB)
        verification = run_verification(bundle, folder / "best", settings, address, None)
        write_text(bundle / "verification.json", verification.model_dump_json(indent=2) + "\n")
        answer = _call(address)

    awgn = run_sweep(bundle, SweepSpec(snr_db=SNR_DB, seed=SWEEP_SEED, draws=DRAWS), None, folder / "sweep" / "awgn")
    rayleigh = SweepSpec(snr_db=SNR_DB, channel="rayleigh", seed=SWEEP_SEED, draws=DRAWS)
    faded = run_sweep(bundle, rayleigh, None, folder / "sweep" / "rayleigh")
    test = load_task(recipe.task).load(None).test
    # Never less than the semantic link spends, headers included.
    num_symbols = math.ceil(max(point.symbols_per_sample for point in awgn.points))
    repetition = sweep_repetition(
        baseline.decisions,
        test.labels,
        awgn.spec,
        num_classes=len(manifest.task.classes),
        num_symbols=num_symbols,
    )
    link = Link(load_bundle(bundle))
    draws = Draws(SWEEP_SEED, np.arange(len(test)))
    found = Findings(
        manifest=manifest,
        records=read_metrics(folder),
        verification=verification,
        awgn=awgn,
        rayleigh=faded,
        repetition=repetition,
        no_link_accuracy=baseline.accuracy,
        soft_accuracy=_soft_accuracy(folder / "best"),
        receptions={
            snr_db: link.transmit(test.inputs, build_channel("awgn"), snr_db, draws)
            for snr_db in (CONSTELLATION_SNR_DB, LLR_SNR_DB)
        },
    )
    commands = _commands(folder)
    with waiting("drawing the report"):
        report = write_report(folder, found, render(verification), commands)
    _print_summary(found, trained, report, answer, commands, time.monotonic() - started)
    if verification.exit_code:
        raise HardpathError(f"the bundle did not verify: see {report}")


@contextmanager
def _server(bundle: Path) -> Iterator[str]:
    """A real server in a process of its own on a free port; its address."""
    command = [sys.executable, "-m", "hardpath", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " on " not in line:
                raise ServerError(f"the server did not start (exit code {process.wait()})")
            yield line.rsplit(" on ", 1)[1].strip()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(_READY_S)
            if code:
                note(f"the server ended with exit code {code}")


def _call(address: str) -> str:
    """One real call over gRPC, in words."""
    from serve.client import Client
    from train.tasks import load_task

    test = load_task("digits").load(None).test
    with Client(address) as client:
        reply = client.transmit({"image": test.inputs["image"][:8]}, snr_db=12.0, channel="awgn", seed=1)
    truth = " ".join(str(label) for label in test.labels[:8])
    return (
        f"{address} answered over AWGN at 12 dB: digits {truth} -> {' '.join(reply.decoded.class_names)}, "
        f"{int(reply.bit_errors.sum())} of {int(reply.sent.num_bits.sum())} bits wrong"
    )


def _soft_accuracy(checkpoint: Path) -> dict[float, float]:
    """Accuracy of the soft surrogate on the test set, through the noise that the sweep sends the hard path through."""
    from train import checkpoint as checkpoints
    from train.evaluate import evaluate

    described, model = checkpoints.load(checkpoint)
    task = checkpoints.task_of(described)
    grid = described.recipe.channel.model_copy(update={"eval_snr_db": SNR_DB, "eval_draws": DRAWS})
    with waiting("sending the soft surrogate through the sweep's noise"):
        found = evaluate(
            model,
            task,
            task.load(None).test,
            grid,
            temperature=described.vq_temp,
            symbol_temperature=described.symbol_temp,
            seed=SWEEP_SEED,
        )
    return found.soft


def _commands(folder: Path) -> str:
    """What to try next, as it would be typed in this shell."""
    checkpoint = folder / "best"
    bundle = folder / "bundle"
    lines = [
        f"hardpath inspect {bundle}",
        f"hardpath sweep {bundle} --snr-db -6:18:1 --draws 20 --seed {SWEEP_SEED} --out {folder / 'sweep' / 'fine'}",
        f"hardpath verify {bundle} --checkpoint {checkpoint} --margin 0.005",
        f"hardpath serve {bundle} --port 50051",
        "hardpath call 127.0.0.1:50051 --snr-db 3 --channel rayleigh",
        f"tensorboard --logdir {folder / 'tensorboard'}",
    ]
    activate = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("hardpath") is None and activate.is_file():
        lines.insert(0, f". {os.path.relpath(activate)}")
    return "\n".join(lines)


def _print_summary(found: Findings, trained: Summary, report: Path, answer: str, commands: str, seconds: float) -> None:
    say_table(
        f"digits, test set, {describe_sent(found.manifest, tokens=False)}, training seed "
        f"{found.manifest.provenance.seed}",
        TABLE_HEAD,
        table_rows(found),
    )
    kept = [
        f"{name} epoch {checkpoint.epoch} with {percent(checkpoint.mean_hard_accuracy)} %"
        for name, checkpoint in trained._asdict().items()
    ]
    say(f"training      {', '.join(kept)} on validation, hard, mean over {len(trained.best.hard_accuracy)} SNRs")
    say(f"no link       {percent(found.no_link_accuracy)} %")
    say(f"sent energy   {found.awgn.points[0].es_db:+.2f} dB, mean over the test set; Es/N0 refers to 0 dB")
    say(f"verification  {found.verification.summary}")
    say(f"server        {answer}")
    say(f"report        {report} ({seconds:.0f} s)")
    say(f"\nTry next:\n{commands}")
