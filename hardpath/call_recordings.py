"""Recordings of sensors over a server's link, window by window: what is done in each is told as soon as it is decided."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hardpath.call_files import save
from hardpath.call_jobs import Output
from hardpath.call_tables import Answers
from hardpath.terminal import INTERRUPTED, in_one_line, note, percent, say, say_json_line
from link.errors import ArgumentError, HardpathError

if TYPE_CHECKING:
    from link.manifest import Manifest
    from serve.client import Client
    from serve.client.recording import Decided
    from train.tasks import WholeRecording

_NAME_WIDTH: Final = 160
"""Which recording of a file, and which part of it, stands at a name's end."""


def recordings_of(path: Path, manifest: Manifest) -> list[WholeRecording]:
    """The recordings of a path as the model takes them.

    Raises
    ------
    ArgumentError
        If the model takes none, there are none, or one cannot be used.
    """
    from train.tasks import recordings_of_manifest

    try:
        return recordings_of_manifest(manifest, path)
    except ArgumentError as error:
        if error.field == "data":
            raise ArgumentError("--recording", error.message) from None
        raise


def send_recordings(
    client: Client,
    manifest: Manifest,
    recordings: Sequence[WholeRecording],
    asked: Mapping[str, Any],
    timeout_s: float | None,
    output: Output,
) -> None:
    """Send one after another, each on a stream of its own, and tell of each window as it is decided.

    What was decided by then is summed up and saved where Ctrl-C or the server ends it.

    Parameters
    ----------
    asked : mapping
        Options of the link, with `snr_db` and `lag`.
    """
    if manifest.task.sequence is None:
        if asked["lag"]:
            raise ArgumentError(
                "--lag", "must be absent: the model has no sequence stage, and decides each window alone"
            )
        note("the model has no sequence stage: each window is decided by itself")
    answers: Answers = []
    ended: KeyboardInterrupt | HardpathError | None = None
    width = max(map(len, manifest.task.classes))
    late = f", decided {asked['lag']} windows late" if asked["lag"] else ""
    try:
        for recording in recordings:
            if not output.as_json:
                whose = f"{in_one_line(recording.name, _NAME_WIDTH)}, subject {in_one_line(recording.subject)}"
                say(f"{whose}: {recording.told}{late}")
            options = {name: value for name, value in asked.items() if value is not None}
            with closing(_decided(client, manifest, recording, options, len(answers), timeout_s)) as windows:
                for decided in windows:
                    answer = _answer(recording, decided)
                    answers.append(answer)
                    if output.as_json:
                        say_json_line(answer)
                    else:
                        say(_line(answer, width))
    except (KeyboardInterrupt, HardpathError) as error:
        if isinstance(error, HardpathError) and not answers:
            raise
        ended = error
    if not output.as_json:
        note(_summary(answers))
    save(output.out, answers, None)
    if ended is None:
        return
    total = sum(len(recording.labels) for recording in recordings)
    if isinstance(ended, HardpathError):
        note(f"{len(answers)} of {total} windows were decided by then")
        raise ended
    note(f"hardpath: interrupted after {len(answers)} of {total} windows")
    sys.exit(INTERRUPTED)


def _decided(
    client: Client,
    manifest: Manifest,
    recording: WholeRecording,
    options: Mapping[str, Any],
    sent: int,
    timeout_s: float | None,
) -> Generator[Decided, None, None]:
    """Each window, in order; noise goes on from the `sent` windows before."""
    from serve.client.recording import alone, decide

    windows = (
        {name: array[row : row + 1] for name, array in recording.inputs.items()} for row in range(len(recording.labels))
    )
    link = {name: value for name, value in options.items() if name != "lag"}
    link |= {"sample_offset": sent, "timeout_s": timeout_s}
    if manifest.task.sequence is None:
        return alone(client, windows, **link)
    return decide(client, windows, lag=options["lag"], **link)


def _answer(recording: WholeRecording, decided: Decided) -> dict[str, Any]:
    label = recording.labels[decided.window]
    return {
        "recording": recording.name,
        "subject": recording.subject,
        "window": decided.window,
        "start_s": round(float(recording.starts_s[decided.window]), 6),
        "decision": decided.class_name,
        "probability": decided.probability,
        "alone": decided.alone,
        "label": label or None,
        "correct": decided.class_name == label if label else None,
    }


def _line(answer: Mapping[str, Any], width: int) -> str:
    alone = f"alone: {answer['alone']}" if answer["alone"] != answer["decision"] else ""
    wrong = f"labelled: {answer['label']}" if answer["correct"] is False else ""
    line = f"{answer['start_s']:9.1f} s  {answer['decision']:<{width}}  {answer['probability']:.3f}"
    return "   ".join(part for part in (line, alone, wrong) if part)


def _summary(answers: Answers) -> str:
    changes = sum(1 for _ in groupby(answers, lambda answer: (answer["recording"], answer["decision"])))
    told = f"{len(answers)} windows, {changes} {'stretch' if changes == 1 else 'stretches'} of one behaviour"
    known = [answer for answer in answers if answer["label"]]
    if not known:
        return told
    right = sum(answer["correct"] for answer in known) / len(known)
    alone = sum(answer["alone"] == answer["label"] for answer in known) / len(known)
    return f"{told}; of {len(known)} with a label {percent(right)} % are right, decided alone {percent(alone)} %"
