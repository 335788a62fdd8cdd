"""What people see of a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hardpath.terminal import in_one_line, note, percent, say_json, say_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hardpath.samples import Samples
    from link.channel.frames import FrameCounts
    from link.header import HeaderOutcome
    from link.manifest import Manifest, TaskSpec
    from link.runtime import Transmission
    from serve.client.points import Rate, SweepPoint
    from serve.results import Decoded, Transmitted

Answers = list[dict[str, Any]]


class Batch(NamedTuple):
    """The samples that are sent.

    Attributes
    ----------
    inputs : dict of name to (B, ...) array
    labels : (B,) int64, or (B, T) of pieces, or B names or texts, optional
    texts : list of str
        Empty where the inputs are none.
    first : int
        Number of the first row.
    """

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[Any] | None
    texts: list[str]
    first: int

    @classmethod
    def of(cls, samples: Samples, manifest: Manifest, rows: slice) -> Batch:
        """These rows of them."""
        inputs = {name: value[rows] for name, value in samples.inputs.items()}
        labels = None if samples.labels is None else samples.labels[rows]
        return cls(inputs, labels, samples.texts(manifest)[rows], rows.start)

    def of_names(self, names: Collection[str]) -> Batch:
        """The same with those inputs alone."""
        return self._replace(inputs={name: value for name, value in self.inputs.items() if name in names})

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.inputs.values())))

    def head(self, index: int) -> dict[str, Any]:
        """What the table says of a row before it says what became of it."""
        return {"row": self.first + index} | ({"text": self.texts[index]} if self.texts else {})


def known_labels(batch: Batch, task: TaskSpec) -> NDArray[np.bool_]:
    """Which labels are answers of the task, (B,): classes, by number or by name; or texts, or pieces all of them.

    Raises
    ------
    ArgumentError
        If they are of another shape, or neither integers nor names.
    """
    import numpy as np

    from link.tensors import as_tensor
    from link.truth import UNJUDGED

    labels = batch.labels
    if labels is None or (task.text is not None and labels.ndim == 1 and isinstance(labels[0], str)):
        return np.ones(batch.rows, dtype=np.bool_)
    if labels.dtype.kind == "U":
        return np.isin(np.char.strip(labels), task.classes)
    shape = (batch.rows,) if task.text is None else (batch.rows, task.positions)
    numbers = as_tensor("labels", labels, "int64", shape).reshape(batch.rows, -1)
    lowest = 0 if task.text is None else UNJUDGED
    return np.asarray(((numbers >= lowest) & (numbers < task.choices)).all(axis=1))


def transmitted_answers(reply: Transmitted, batch: Batch, known: NDArray[np.bool_]) -> Answers:
    """A row a sample; `known` as `known_labels` finds them."""
    return [
        batch.head(index)
        | _decision(reply.decoded, index)
        | {
            "bit_errors": int(reply.bit_errors[index]),
            "bits": int(reply.sent.num_bits[index]),
            "symbols": int(reply.sent.num_symbols[index]),
        }
        | ({} if reply.header is None else _header_columns(reply.header, int(reply.sent.mode[index]), index))
        | _texts_read(reply, index)
        | (
            {}
            if batch.labels is None
            else {"correct": _is_right(reply.decoded, index, batch.labels[index]) if known[index] else None}
        )
        for index in range(len(reply.bit_errors))
    ]


def encoded_answers(sent: Transmission, batch: Batch) -> Answers:
    """A row a sample, its bits as they are sent."""
    return [
        batch.head(index)
        | {
            "mode": int(sent.mode[index]),
            "bits": "".join(map(str, sent.bits[index, : sent.num_bits[index]].tolist())),
            "symbols": int(sent.num_symbols[index]),
        }
        for index in range(len(sent.mode))
    ]


def decoded_answers(found: Decoded, first: int) -> Answers:
    """A row a sample."""
    return [
        {"row": first + index} | _decision(found, index) | _texts_read(found, index)
        for index in range(len(found.decisions))
    ]


def point_answers(points: Sequence[SweepPoint]) -> Answers:
    """A row a point; intervals as columns of their own."""
    return [
        {
            column: number
            for name, value in point._asdict().items()
            for column, number in (_interval(name, value) if isinstance(value, tuple) else {name: value}).items()
        }
        for point in points
    ]


def show(
    address: str, asked: Mapping[str, Any], answers: Answers, title: str, *, as_json: bool, name: str = "samples"
) -> None:
    """Answers on stdout."""
    if as_json:
        say_json({"address": address, **asked, name: answers})
        return
    if answers:
        cells = [
            tuple(
                "-" if value is None else f"{value:.3f}" if isinstance(value, float) else in_one_line(str(value))
                for value in row.values()
            )
            for row in answers
        ]
        say_table(f"{address}, {title}", list(answers[0]), cells)


def show_points(title: str, points: Sequence[SweepPoint], confidence: float) -> None:
    """A sweep on stdout, as `hardpath sweep` shows one."""
    ends = any(point.stopped_by != "limit" for point in points)
    rows = [
        (
            f"{point.snr_db:g}",
            percent(point.accuracy.value),
            f"{percent(point.accuracy.low)} .. {percent(point.accuracy.high)}",
            f"{point.correct}/{point.samples * point.draws}",
            "-" if point.ber is None else f"{point.ber.value:.3g}",
            f"{point.bit_errors}/{point.bits}",
            f"{point.symbols_per_sample:g}",
            *((point.stopped_by,) if ends else ()),
        )
        for point in points
    ]
    head = ("Es/N0 dB", "accuracy %", f"{100.0 * confidence:g} % interval", "correct", "BER", "bit errors", "symbols")
    say_table(title, head + (("stopped by",) if ends else ()), rows)


def note_texts(read: Transmitted | Decoded) -> None:
    """Say how many texts were cut, or say nothing to the model, if any."""
    for which, what in (
        (read.truncated, "have too many tokens for the model: cut"),
        (read.unknown, "have no token that the model knows"),
    ):
        if which is not None and which.any():
            note(f"{which.sum()} of {len(which)} texts {what}")


def note_labels(batch: Batch, known: NDArray[np.bool_]) -> None:
    """Say how many labels are no answer of the model, if any, and the first of them."""
    if batch.labels is None or known.all():
        return
    first = int(known.argmin())
    note(
        f"{(~known).sum()} of {batch.rows} labels are none that the model can answer, so neither right nor wrong; the "
        f"first, row {batch.first + first}: {in_one_line(str(batch.labels[first]))}"
    )


def frames_told(frames: FrameCounts) -> dict[str, Any]:
    """What became of a radio's frames, as JSON has it."""
    return {
        "frames": frames.frames,
        "frames_lost": frames.lost,
        "crc_failed": frames.crc_failed,
        "gaps": frames.gaps,
        "clipped": frames.clipped,
        "measured_snr_db": frames.snr_db,
        "evm": frames.evm,
        "papr_db": frames.papr_db,
    }


def note_frames(frames: FrameCounts | None) -> None:
    """Say what became of a radio's frames, where there was one."""
    if frames is None:
        return
    lost = f"{frames.lost} of {frames.frames} frames lost, {frames.crc_failed} not whole"
    heard = "" if frames.snr_db is None else f"; Es/N0 {frames.snr_db:.1f} dB, EVM {percent(frames.evm or 0.0)} %"
    note(f"radio: {lost}{heard}")


def _decision(found: Decoded, index: int) -> dict[str, Any]:
    if found.probabilities is None:
        return {"answer": found.answers[index]}
    return {"decision": found.answers[index], "probability": float(found.probabilities[index].max())}


def _is_right(found: Decoded, index: int, label: Any) -> bool:
    """Whether a sample is answered as its label has it; a text to the letter, or where all of its pieces are."""
    from link.truth import UNJUDGED

    if isinstance(label, str):
        return found.answers[index].strip() == label.strip()
    return bool(((found.decisions[index] == label) | (label == UNJUDGED)).all())


def _texts_read(read: Transmitted | Decoded, index: int) -> dict[str, bool]:
    """Whether a sample's text was cut, or says nothing to the model, where texts were given."""
    found = {"truncated": read.truncated, "unknown": read.unknown}
    return {name: bool(which[index]) for name, which in found.items() if which is not None}


def _header_columns(header: HeaderOutcome, mode: int, index: int) -> dict[str, Any]:
    """Of one sample: its mode, its share of the header, and what became of that."""
    outcome = "lost" if header.lost[index] else f"wrong: {header.mode[index]}" if header.wrong[index] else "right"
    return {"mode": mode, "header_symbols": float(header.symbols[index]), "header": outcome}


def _interval(name: str, rate: Rate | Any) -> dict[str, float]:
    return {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
