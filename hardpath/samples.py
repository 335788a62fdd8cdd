"""The samples that a sub-command is given: arrays, texts, images, or the test set of a bundle's task."""

from __future__ import annotations

import logging
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from link.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from link.interface import TensorSpec
    from link.manifest import Manifest
    from link.sentences import Sentences
    from link.texts import TextRows
    from train.tasks import SampleTask, TextTask

_LOGGER: Final = logging.getLogger(__name__)


class Samples:
    """Inputs by name and their labels, None where none are known."""

    def __init__(self, inputs: dict[str, NDArray[Any]], labels: NDArray[Any] | None) -> None:
        self.inputs = inputs
        self.labels = labels

    def texts(self, manifest: Manifest) -> list[str]:
        """The texts among the inputs; none where there are other inputs."""
        found = None if manifest.tokenizer is None else self.inputs.get(manifest.tokenizer.text)
        return [] if found is None else [str(text) for text in found]


def load_samples(data: Path | None, manifest: Manifest, options: str = "--data", *, skip_bad: bool = False) -> Samples:
    """Samples from an .npz or .npy, from texts, or the test set of the bundle's task (from a folder, where it needs files).

    Parameters
    ----------
    options : str
        What names the samples, for the line that says that they are missing.
    skip_bad : bool
        Whether lines, rows and images that cannot be used are left out, which is said with their count and the first of
        them, in place of ending with that one.

    Raises
    ------
    ArgumentError
        If the file holds no such arrays, its texts or labels cannot be used, the task has no test set of its own and none
        is named, or there is nothing of which some could be left out.
    """
    if data is not None and data.is_file() and not _holds_recordings(data, manifest):
        from link.texts import SUFFIXES

        if data.suffix.lower() in SUFFIXES:
            return _read_texts(data, manifest, skip_bad=skip_bad)
        if skip_bad:
            raise ArgumentError(
                "--skip-bad", f"must be absent: {data} holds arrays, not lines, of which any may be bad"
            )
        return _read_arrays(data, manifest)
    if data is not None and not data.exists():
        raise ArgumentError("data", f"{data} does not exist")
    try:
        from train.tasks import task_of_manifest
    except ModuleNotFoundError as error:
        raise ArgumentError(
            "data",
            f"must name an .npz here: the test set of {manifest.task.name} needs {error.name}, of hardpath[train]",
        ) from None
    task = task_of_manifest(manifest, skip_bad=skip_bad)
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


def texts_given(text: Sequence[str], file: Path | None, inputs: Path | None, *, skip_bad: bool = False) -> list[str]:
    """The texts of --text and --texts, in this order; `skip_bad` as for `load_samples`, of the file alone.

    Raises
    ------
    ArgumentError
        If one is empty or no text, the file cannot be read, or --inputs is given as well. Of a table the texts alone are
        taken.
    """
    from link.texts import SUFFIXES, lines_in, read_texts
    from link.tokenizer import as_texts

    if inputs is not None and (text or file is not None):
        raise ArgumentError("--inputs", "must be absent beside --text and --texts")
    given = as_texts("--text", list(text)) if text else []
    if file is None:
        if given and skip_bad:
            raise ArgumentError("--skip-bad", "must be absent beside --text alone: it is for lines of a file")
        return given
    if file.suffix.lower() in SUFFIXES and file.suffix.lower() != ".txt":
        try:
            rows = read_texts(file, skip_bad=skip_bad)
        except ArgumentError as error:
            raise ArgumentError("--texts", str(error).removeprefix(f"{error.field} ")) from None
    else:
        stdin = sys.stdin.buffer.read() if str(file) == "-" else None
        rows = lines_in("stdin" if str(file) == "-" else file, stdin, field="--texts", skip_bad=skip_bad)
    _tell_skipped(rows)
    return [*given, *rows.texts]


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


def _holds_recordings(file: Path, manifest: Manifest) -> bool:
    """Whether a file holds recordings, out of which the bundle's task cuts its inputs, and not those inputs."""
    if manifest.tokenizer is not None or file.suffix.lower() == ".npy":
        return False
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as arrays:
            if {f"{name}.npy" for name in manifest.input_names} & set(arrays.namelist()):
                return False
    try:
        from train.tasks import of_recordings, task_names
    except ModuleNotFoundError:
        return False
    return manifest.task.name in task_names() and of_recordings(manifest.task.name)


def _read_texts(file: Path, manifest: Manifest, *, skip_bad: bool) -> Samples:
    from link.sentences import read_sentences
    from link.texts import class_numbers, of_known_classes, read_lines, read_texts

    if manifest.tokenizer is None or len(manifest.input_names) != 1:
        takes = ", ".join(manifest.input_names)
        raise ArgumentError("data", f"{file} holds texts, this bundle takes {takes}: save an .npz")
    if manifest.task.text is not None:  # where nothing else is told, a text is answered with itself
        read = read_sentences if file.suffix.lower() == ".txt" else read_texts
        found = read(file, skip_bad=skip_bad)
        _tell_skipped(found)
        texts = np.array(found.texts, dtype=object)
        return Samples({manifest.tokenizer.text: texts}, texts)
    rows = read_texts(file, skip_bad=skip_bad)
    classes = file.with_name("classes.txt")
    names = read_lines(classes) if classes.is_file() and classes != file else None
    if skip_bad and rows.labels is not None:
        rows = of_known_classes(rows, manifest.task.classes, names=names)
    _tell_skipped(rows)
    labels = None if rows.labels is None else np.array(class_numbers(rows, manifest.task.classes, names=names))
    return Samples({manifest.tokenizer.text: np.array(rows.texts, dtype=object)}, labels)


def _tell_skipped(found: Sentences | TextRows) -> None:
    if found.skipped:
        lines = len(found) + found.skipped
        _LOGGER.warning(
            "%s: %d of %d lines are left out; the first, %s", found.file, found.skipped, lines, found.first_skipped
        )


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
        arrays = {names[0]: arrays}
    spec = manifest.tokenizer
    if spec is not None and spec.text not in arrays and all(name in arrays for name in spec.becomes):
        names = [*spec.becomes, *names[1:]]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ArgumentError("data", f"{file} lacks {', '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}")
    labels = arrays.get("labels")
    arrays = {name: arrays[name] for name in names}
    _check_rows(file, arrays if labels is None else {**arrays, "labels": labels})
    _check_inputs(file, arrays, manifest)
    return Samples(arrays, labels)


def _check_rows(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays of which one has no rows, or others than the first."""
    first, *others = arrays
    for name, value in arrays.items():
        if not value.ndim:
            raise ArgumentError("data", f"{file}: {name} must have a row for each sample, got a single number")
    for name in others:
        if len(arrays[name]) != len(arrays[first]):
            rows = f"{len(arrays[first])} rows of {first} and {len(arrays[name])} of {name}"
            raise ArgumentError("data", f"{file} holds {rows}: save as many of each")


def _check_inputs(file: Path, arrays: Mapping[str, NDArray[Any]], manifest: Manifest) -> None:
    """Refuse rows that the bundle does not take, by file and number; whether there are any is for those who ask for some."""
    from link.tensors import check_inputs
    from link.tokenizer import as_texts

    specs = tuple(spec for spec in manifest.sample_inputs if spec.name in arrays)
    numbers = {spec.name: arrays[spec.name] for spec in specs}
    if not all(map(len, arrays.values())):
        return
    try:
        for name in arrays.keys() - numbers.keys():
            as_texts(name, arrays[name])
        check_inputs(specs, numbers)
    except ArgumentError as error:
        row = _refused_row(specs, numbers) if error.field.startswith("inputs.") else None
        raise ArgumentError("data", f"{file}: {error if row is None else row}") from None


def _refused_row(specs: tuple[TensorSpec, ...], arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """The first row that is refused by itself, and why."""
    from link.tensors import check_inputs

    for row in range(max(map(len, arrays.values()))):
        try:
            check_inputs(specs, {name: value[row : row + 1] for name, value in arrays.items()})
        except ArgumentError as error:
            return f"row {row}: {str(error).removeprefix('inputs.')}"
    return None
