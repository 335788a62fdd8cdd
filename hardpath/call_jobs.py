"""What `call` does with a server: transmit, encode, decode, sweep. `hardpath.call_recordings` sends recordings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hardpath.call_files import save
from hardpath.call_tables import (
    Batch,
    decoded_answers,
    encoded_answers,
    frames_told,
    note_frames,
    note_labels,
    note_texts,
    point_answers,
    show,
    show_points,
    transmitted_answers,
)
from hardpath.terminal import INTERRUPTED, note, percent, progress
from link.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hardpath.call_tables import Answers
    from serve.client import Client
    from serve.client.points import SweepPoint

_BAR_ROWS: Final = 1000
"""From so many rows on progress is shown."""


class Output(NamedTuple):
    """What becomes of answers: shown beside what is `told` of their model, and saved to `out`."""

    told: Mapping[str, Any]
    out: Path | None
    as_json: bool

    def give(self, client: Client, asked: Mapping[str, Any], answers: Answers, title: str, result: Any) -> None:
        """Show first: what cannot be saved was seen."""
        show(client.address, {**self.told, **asked}, answers, title, as_json=self.as_json)
        save(self.out, answers, result)


def transmit(
    client: Client, batch: Batch, options: Mapping[str, Any], output: Output, known: NDArray[np.bool_]
) -> None:
    """Send samples over the link."""
    with _bar("sending", batch.rows) as update:
        reply = client.transmit(
            batch.inputs,
            sample_offset=batch.first,
            include_llr=output.out is not None,
            include_symbols=output.out is not None,
            progress=update,
            **options,
        )
    answers = transmitted_answers(reply, batch, known)
    used = asdict(reply.settings)
    at = "" if used["snr_db"] is None else f" at {used['snr_db']:g} dB"
    told = {} if reply.frames is None else {"radio": frames_told(reply.frames)}
    title = f"{used['channel']}{at}, seed {used['seed']}"
    output.give(client, {**used, "mode": options["mode"], **told}, answers, title, reply)
    if not output.as_json:
        note_frames(reply.frames)
        note_texts(reply)
        note_labels(batch, known)


def encode(client: Client, batch: Batch, options: Mapping[str, Any], output: Output) -> None:
    """Have bits and symbols of samples."""
    with _bar("encoding", batch.rows) as update:
        sent = client.encode(batch.inputs, progress=update, **options)
    answers = encoded_answers(sent, batch)
    output.give(client, options, answers, "encoded", sent)


def decode(client: Client, file: Path, arrays: Mapping[str, Any], first: int, output: Output) -> None:
    """Have decisions on what was received."""
    with _bar("decoding", rows_of(arrays)) as update:
        found = client.decode(**arrays, include_llr=output.out is not None, progress=update)
    answers = decoded_answers(found, first)
    output.give(client, {}, answers, f"{file} decoded", found)
    if not output.as_json:
        note_texts(found)


def sweep(
    client: Client,
    batch: Batch,
    grid: str,
    timeout: float | None,
    options: Mapping[str, Any],
    output: Output,
) -> None:
    """Show the points that came, also where Ctrl-C ends the sweep."""
    from link.errors import require_range
    from link.grid import parse_grid

    if options["rel_width"] is not None:  # 0 stands for none on the wire
        require_range("--rel-width", options["rel_width"], 1e-3, 10.0)
    if not 0.0 < options["confidence"] < 1.0:
        raise ArgumentError("--confidence", f"must be in (0, 1), got {options['confidence']:g}")
    snr_db = parse_grid(grid, "--sweep")
    given = {name: value for name, value in options.items() if value is not None}
    points: list[SweepPoint] = []
    interrupted = False
    with progress(f"sweeping {options['channel']}", len(snr_db)) as update:
        try:
            for point in client.sweep(batch.inputs, snr_db, labels=batch.labels, timeout_s=timeout, **given):
                points.append(point)
                update(len(points), f"{point.snr_db:g} dB: {percent(point.accuracy.value)} %")
        except KeyboardInterrupt:
            interrupted = True
    answers = point_answers(points)
    if output.as_json:
        show(client.address, {**output.told, **options}, answers, "", as_json=True, name="points")
    elif points:
        show_points(
            f"{client.address} over {options['channel']}, seed {options['seed']}", points, options["confidence"]
        )
    save(output.out, answers, None)
    if interrupted:
        note(f"hardpath: interrupted after {len(points)} of {len(snr_db)} points")
        sys.exit(INTERRUPTED)


def rows_of(arrays: Mapping[str, Any]) -> int:
    """How many rows arrays have."""
    return len(next(iter(arrays.values())))


@contextmanager
def _bar(what: str, rows: int) -> Iterator[Callable[[int, int], None]]:
    """Progress by rows, where there are so many that it takes a while."""
    if rows < _BAR_ROWS:
        yield lambda done, total: None
        return
    with progress(what, rows) as update:
        yield lambda done, total: update(done, "rows")
