"""What several sub-commands share: the jobs themselves, with their progress."""

from __future__ import annotations

import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hardpath.live import live_table
from hardpath.terminal import note, percent, progress, say, waiting, write_text
from link.errors import ArgumentError
from link.lock import locked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from link.baseline import BaselinePoint
    from link.ber import BerResult
    from link.manifest import Manifest
    from link.modem_spec import ModemSpec
    from link.sweep import SweepPoint, SweepResult, SweepSpec
    from train.checkpoint import Checkpoint
    from train.finetune import Finetuned, FinetuneSettings
    from train.processes import Processes
    from train.recipe import Recipe
    from train.run import Summary
    from train.tasks import SampleTask, TextTask
    from train.verify import Verification, VerifySettings


class Samples:
    """Inputs by name and their labels, None where none are known."""

    def __init__(self, inputs: dict[str, NDArray[Any]], labels: NDArray[Any] | None) -> None:
        self.inputs = inputs
        self.labels = labels

    def texts(self, manifest: Manifest) -> list[str]:
        """The texts among the inputs; none where there are other inputs."""
        found = None if manifest.tokenizer is None else self.inputs.get(manifest.tokenizer.text)
        return [] if found is None else [str(text) for text in found]


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
            processes=processes,
            transmitter=transmitter,
        )


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
) -> Verification:
    """Verify a bundle, by one of its receivers, against its checkpoint and, where an address is given, a server."""
    from link.bundle import load_bundle
    from train.verify import verify

    found = load_bundle(bundle, receiver)
    samples = load_samples(data, found.manifest)
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
    samples = load_samples(data, link.manifest)
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
    samples = load_samples(data, link.manifest)
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


def load_samples(data: Path | None, manifest: Manifest, options: str = "--data") -> Samples:
    """Samples from an .npz or .npy, from texts, or the test set of the bundle's task (from a folder, where it needs files).

    Parameters
    ----------
    options : str
        What names the samples, for the line that says that they are missing.

    Raises
    ------
    ArgumentError
        If the file holds no such arrays, its texts or labels cannot be used, or the task has no test set of its own and
        none is named.
    """
    if data is not None and data.is_file():
        from link.texts import SUFFIXES

        return _read_texts(data, manifest) if data.suffix.lower() in SUFFIXES else _read_arrays(data, manifest)
    if data is not None and not data.is_dir():
        raise ArgumentError("data", f"{data} does not exist")
    try:
        from train.tasks import task_of_manifest
    except ModuleNotFoundError as error:
        raise ArgumentError(
            "data",
            f"must name an .npz here: the test set of {manifest.task.name} needs {error.name}, of hardpath[train]",
        ) from None
    task = task_of_manifest(manifest)
    try:
        if hasattr(task, "test_samples"):
            inputs, labels = cast("SampleTask", task).test_samples(data)
            return Samples(inputs, labels)
        if manifest.tokenizer is not None:
            texts, labels = cast("TextTask", task).test_texts(data)
            return Samples({manifest.tokenizer.text: np.array(texts, dtype=object)}, labels)
        test = task.load(data).test
    except ArgumentError as error:
        if data is None and error.field == "data":  # the task asks for its files
            what = "the texts" if manifest.tokenizer is not None else "the samples"
            raise ArgumentError(
                options, f"must name {what}: the task of this bundle, {manifest.task.name}, has no test set of its own"
            ) from None
        raise
    return Samples(dict(test.inputs), test.labels)


def labels_of(samples: Samples) -> NDArray[Any]:
    """The labels, where accuracy is asked for.

    Raises
    ------
    ArgumentError
        If there are none.
    """
    if samples.labels is None:
        raise ArgumentError("data", "must be an .npz with an array `labels` beside the inputs, or texts with labels")
    return samples.labels


def texts_given(text: Sequence[str], file: Path | None, inputs: Path | None) -> list[str]:
    """The texts of --text and --texts, in this order.

    Raises
    ------
    ArgumentError
        If one is empty or no text, the file cannot be read, or --inputs is given as well. Of a table the texts alone are
        taken.
    """
    from link.texts import SUFFIXES, read_lines, read_texts
    from link.tokenizer import as_texts

    if inputs is not None and (text or file is not None):
        raise ArgumentError("--inputs", "must be absent beside --text and --texts")
    given = as_texts("--text", list(text)) if text else []
    if file is None:
        return given
    if file.suffix.lower() in SUFFIXES and file.suffix.lower() != ".txt":
        try:
            return [*given, *read_texts(file).texts]
        except ArgumentError as error:
            raise ArgumentError("--texts", str(error).removeprefix(f"{error.field} ")) from None
    stdin = sys.stdin.buffer.read() if str(file) == "-" else None
    return [*given, *read_lines("stdin" if str(file) == "-" else file, stdin, field="--texts")]


def text_samples(texts: Sequence[str], manifest: Manifest) -> Samples:
    """Texts without labels, for a bundle that reads texts alone.

    Raises
    ------
    ArgumentError
        If it does not.
    """
    if manifest.tokenizer is None or len(manifest.input_names) != 1:
        raise ArgumentError("--text", f"is not what this model takes: {', '.join(manifest.input_names)}")
    return Samples({manifest.tokenizer.text: np.array(texts, dtype=object)}, None)


def _read_texts(file: Path, manifest: Manifest) -> Samples:
    from link.sentences import read_sentences
    from link.texts import class_numbers, read_lines, read_texts

    if manifest.tokenizer is None or len(manifest.input_names) != 1:
        takes = ", ".join(manifest.input_names)
        raise ArgumentError("data", f"{file} holds texts, this bundle takes {takes}: save an .npz")
    if manifest.task.text is not None:  # where nothing else is told, a text is answered with itself
        found = read_sentences(file).texts if file.suffix.lower() == ".txt" else read_texts(file).texts
        texts = np.array(found, dtype=object)
        return Samples({manifest.tokenizer.text: texts}, texts)
    rows = read_texts(file)
    classes = file.with_name("classes.txt")
    names = read_lines(classes) if classes.is_file() and classes != file else None
    labels = None if rows.labels is None else np.array(class_numbers(rows, manifest.task.classes, names=names))
    return Samples({manifest.tokenizer.text: np.array(rows.texts, dtype=object)}, labels)


def _read_arrays(file: Path, manifest: Manifest) -> Samples:
    names = list(manifest.input_names)
    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError):
        # NumPy's own words on a file that is neither are advice to trust it.
        raise ArgumentError("data", f"{file} is neither .npz nor .npy, is damaged, or holds Python objects") from None
    if isinstance(arrays, np.ndarray):
        if len(names) != 1:
            raise ArgumentError("data", f"{file} holds one array, this bundle takes {', '.join(names)}: save an .npz")
        return Samples({names[0]: arrays}, None)
    spec = manifest.tokenizer
    if spec is not None and spec.text not in arrays and all(name in arrays for name in spec.becomes):
        names = [*spec.becomes, *names[1:]]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ArgumentError("data", f"{file} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    return Samples({name: arrays[name] for name in names}, arrays.get("labels"))
