"""What several sub-commands share: the jobs themselves, with their progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hardpath.live import live_table
from hardpath.samples import labels_of, load_samples
from hardpath.terminal import note, percent, progress, say, waiting, write_text
from link.errors import ArgumentError
from link.lock import locked

if TYPE_CHECKING:
    from link.baseline import BaselinePoint
    from link.ber import BerResult
    from link.modem_spec import ModemSpec
    from link.sweep import SweepPoint, SweepResult, SweepSpec
    from train.checkpoint import Checkpoint
    from train.finetune import Finetuned, FinetuneSettings
    from train.processes import Processes
    from train.recipe import Recipe
    from train.run import Summary
    from train.verify import Verification, VerifySettings


def run_training(
    recipe: Recipe,
    folder: Path,
    data: Path | None,
    threads: int,
    *,
    brief: bool,
    processes: Processes | None = None,
    transmitter: Path | None = None,
) -> Summary:
    """Train with a paragraph an epoch on the screen, or with a progress bar where `brief`; the first process speaks."""
    import torch

    from train.record import EpochRecord
    from train.run import train

    torch.set_num_threads(threads)
    if processes is not None and not processes.is_first:
        return train(recipe, folder, data_folder=data, processes=processes, transmitter=transmitter)
    if processes is not None and processes.count > 1:
        note(f"{processes.count} processes train together, this one on {processes.device}")

    def found(last: Checkpoint) -> None:
        _say_what_is_there(folder, last)

    if not brief:
        with _encoding_bar() as on_encoding:
            return train(
                recipe,
                folder,
                data_folder=data,
                on_epoch=lambda record: say(record.text()),
                on_encoding=on_encoding,
                on_found=found,
                on_stage=_say_stage,
                processes=processes,
                transmitter=transmitter,
            )
    with progress(f"training {recipe.name}", recipe.schedule.epochs) as update:

        def show(record: EpochRecord) -> None:
            accuracy = record.hard_mean if record.hard_mean is not None else record.validation_no_link
            update(record.epoch, f"{record.phase.value.lower()}, validation {percent(accuracy or 0.0)} %")
            for alarm in record.alarms:
                note(f"epoch {record.epoch}: {alarm}")

        def encoding(part: str, done: int, total: int) -> None:
            update(0, f"the frozen encoder reads {part}: {done} of {total} rows")

        return train(
            recipe,
            folder,
            data_folder=data,
            on_epoch=show,
            on_encoding=encoding,
            on_found=found,
            on_stage=lambda epoch, loss: update(recipe.schedule.epochs, f"sequence stage, epoch {epoch}: {loss:.4f}"),
            processes=processes,
            transmitter=transmitter,
        )


def _say_stage(epoch: int, loss: float) -> None:
    say(f"[Stage {epoch}] windows of recordings together: loss={loss:.4f} nats a window")


def run_finetuning(
    recipe: Recipe, folder: Path, data: Path | None, settings: FinetuneSettings, threads: int
) -> Finetuned:
    """Fine-tune a recipe's encoder; transformers draws the progress."""
    import torch

    from train.finetune import finetune

    torch.set_num_threads(threads)
    with locked(folder):
        return finetune(recipe, folder, data, settings)


@contextmanager
def _encoding_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each part of the data that a frozen encoder reads, from its first rows to its last."""
    with ExitStack() as bar:
        current: dict[str, Callable[[int, str], None]] = {}

        def show(part: str, done: int, total: int) -> None:
            if part not in current:
                bar.close()
                current.clear()
                current[part] = bar.enter_context(progress(f"the frozen encoder reads {part}", total))
            current[part](done, "rows")
            if done == total:
                bar.close()

        yield show


def _say_what_is_there(folder: Path, found: Checkpoint) -> None:
    """Tell a run that is finished, or goes on, from a new one."""
    if found.ended is not None:
        note(f"{folder} ended after epoch {found.epoch} ({found.ended}): nothing is trained again")
    elif found.finished:
        note(f"{folder} holds all {found.epoch} epochs already: nothing is trained again")
    else:
        note(f"{folder} goes on after epoch {found.epoch}")


def run_verification(
    bundle: Path,
    checkpoint: Path,
    settings: VerifySettings,
    grpc: str | None,
    data: Path | None,
    receiver: str | None = None,
    *,
    skip_bad: bool = False,
) -> Verification:
    """Verify a bundle, by one of its receivers, against its checkpoint and, where an address is given, a server."""
    from link.bundle import load_bundle
    from train.verify import verify

    found = load_bundle(bundle, receiver)
    samples = load_samples(data, found.manifest, skip_bad=skip_bad)
    with ExitStack() as stack:
        remote = None
        if grpc is not None:
            from serve.client import Client

            remote = stack.enter_context(Client(grpc))
        update = stack.enter_context(progress("verifying", 100))
        return verify(
            found,
            checkpoint,
            samples.inputs,
            labels_of(samples),
            settings,
            remote=remote,
            progress=lambda what, fraction: update(round(100 * fraction), what),
        )


def run_sweep(
    bundle: Path,
    spec: SweepSpec,
    data: Path | None,
    out: Path | None,
    receiver: str | None = None,
    *,
    skip_bad: bool = False,
    workers: int = 1,
    backend: str = "loky",
    max_time: float | None = None,
    device: str = "cpu",
) -> SweepResult:
    """Sweep a bundle, by one of its receivers, with a table of its points as they come."""
    from link.bundle import load_bundle
    from link.chain import Link
    from link.sweep import sweep

    link = Link(load_bundle(bundle, receiver), device=device)
    samples = load_samples(data, link.manifest, skip_bad=skip_bad)
    with live_table(f"sweeping {spec.channel}", "wrong decisions", workers) as watch:
        return sweep(
            link,
            samples.inputs,
            labels_of(samples),
            spec,
            out=out,
            workers=workers,
            backend=backend,
            max_time=max_time,
            watch=watch,
        )


def check_baselines(kinds: Sequence[str], bundle: Path, receiver: str | None) -> None:
    """Refuse baselines of a bundle that has none, before hours of a sweep are spent."""
    from link.bundle import load_bundle

    if kinds and load_bundle(bundle, receiver).manifest.task.text is not None:
        raise ArgumentError("--baseline", "must be absent: baselines send classes, and this bundle answers texts")


def run_baselines(
    kinds: Sequence[str],
    bundle: Path,
    receiver: str | None,
    data: Path | None,
    result: SweepResult,
    out: Path | None,
    *,
    skip_bad: bool = False,
) -> dict[str, tuple[BaselinePoint, ...]]:
    """What a bundle has to beat, at the points of its sweep: its own decision, sent over as many symbols.

    The decision is the receiver's for symbols without noise, which is what the model would decide at the transmitter. In
    `out` it is baselines.json. Where a router chooses how many symbols to send, each point has its own number.
    """
    if not kinds or not result.points:
        return {}
    from link.bundle import load_bundle
    from link.chain import Link
    from link.repetition import sweep_repetition, sweep_uncoded
    from link.semantic import clean_decisions
    from link.separate import sweep_separate

    link = Link(load_bundle(bundle, receiver))
    samples = load_samples(data, link.manifest, skip_bad=skip_bad)
    decisions, labels = clean_decisions(link, samples.inputs), labels_of(samples)
    classes, draws = len(link.manifest.task.classes), max(point.draws for point in result.points)

    def send(kind: str, point: SweepPoint) -> tuple[BaselinePoint, ...]:
        spec = result.spec.model_copy(update={"draws": draws, "snr_db": (point.snr_db,)})
        symbols = round((point.symbols - point.pilot_symbols) / point.receptions)
        if kind == "uncoded":
            return sweep_uncoded(decisions, labels, spec, num_classes=classes)
        scheme = sweep_repetition if kind == "repetition" else sweep_separate
        return scheme(decisions, labels, spec, num_classes=classes, num_symbols=symbols)

    found = {}
    for kind in dict.fromkeys(kinds):
        with waiting(f"sending decisions, {kind}"):
            found[kind] = tuple(one for point in result.points for one in send(kind, point))
    if out is not None:
        rows = {kind: [point.model_dump(mode="json") for point in points] for kind, points in found.items()}
        write_text(out / "baselines.json", json.dumps(rows, indent=2) + "\n")
    return found


def run_ber(
    spec: ModemSpec, out: Path | None, *, workers: int, backend: str, max_time: float | None, device: str
) -> BerResult:
    """Sweep a modem, with a table of its points as they come."""
    from link.ber import ber

    with live_table(f"counting errors of {spec.title}", "bit errors", workers) as watch:
        return ber(spec, out=out, workers=workers, backend=backend, max_time=max_time, device=device, watch=watch)
