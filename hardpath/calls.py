"""Sub-command that calls a server: call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from hardpath.call_files import check_out, received, received_beside, save
from hardpath.call_options import is_given, refuse_what_does_nothing
from hardpath.call_tables import (
    Batch,
    decoded_answers,
    encoded_answers,
    frames_told,
    known_labels,
    note_frames,
    note_labels,
    note_texts,
    point_answers,
    show,
    show_points,
    transmitted_answers,
)
from hardpath.connection import (
    CONNECTION_PANEL,
    Ca,
    Certificate,
    Key,
    ServerName,
    Tls,
    TokenFile,
    connection,
)
from hardpath.options import (
    OUTPUT_PANEL,
    STOP_PANEL,
    BlockSymbols,
    Confidence,
    CsiKind,
    Json,
    KFactor,
    NoOffset,
    Pilots,
    RelWidth,
    Seed,
    ServerChannel,
    SkipBad,
    SnrError,
    TargetErrors,
    path_of,
    row_range,
)
from hardpath.terminal import INTERRUPTED, ends_with, note, percent, progress
from link.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hardpath.call_tables import Answers
    from hardpath.samples import Samples
    from link.manifest import Manifest
    from serve.client import Client
    from serve.client.points import SweepPoint
    from serve.results import ModelInfo

commands = typer.Typer()

_BAR_ROWS: Final = 1000
"""From so many rows on progress is shown."""


@commands.command()
@ends_with(" before the answer was there; nothing is kept")
def call(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Argument(
            metavar="HOST:PORT",
            help="Where a server listens; several with commas, or dns:///NAME:PORT, are called in turn.",
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Which model, where the server holds several.")
    ] = "",
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            help="An .npy with the input, an .npz by name, or texts as --data of sweep; where absent, the task's test set.",
            parser=path_of,
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text to send, where the model reads texts; may be repeated.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            "--texts",
            metavar="FILE",
            help="Texts to send: a table as --data of sweep, or one a line in UTF-8; - reads stdin.",
            parser=path_of,
        ),
    ] = None,
    skip_bad: SkipBad = False,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Rows to send, FIRST:LAST, the last excluded; where absent, 0:8, or all of --text, --texts and --sweep."
        ),
    ] = None,
    encode: Annotated[
        bool, typer.Option("--encode", help="Encode only: print or save bits and symbols, for a modem of one's own.")
    ] = False,
    decode: Annotated[
        Path | None,
        typer.Option(
            "--decode",
            metavar="FILE.npz",
            help="Decode only: `symbols` with `no`, or `llr_in`, or `bits`, and `mode` where there are several. Of what "
            "--out saved of a transmission, what was received, `y` with `no`; of --encode, what was sent.",
            parser=path_of,
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", metavar="GRID", help="Send all samples at each Es/N0 in dB: LOW:HIGH:STEP, or 0,6,12."),
    ] = None,
    snr_db: Annotated[
        float,
        typer.Option(
            "--snr-db",
            help="Es/N0 in dB; with --encode, for a model with a router alone. Over a radio none is asked for unless given.",
        ),
    ] = 12.0,
    mode: Annotated[
        int | None,
        typer.Option(
            "--mode",
            metavar="N",
            min=0,
            help="Mode to send in, where there are several; absent: the transmitter's choice.",
        ),
    ] = None,
    channel: ServerChannel = "awgn",
    block_symbols: BlockSymbols = 0,
    k_factor_db: KFactor = 6.0,
    csi: CsiKind = "perfect",
    pilots: Pilots = 0,
    no_offset_db: NoOffset = 0.0,
    seed: Seed = 0,
    snr_error_db: SnrError = 0.0,
    draws: Annotated[
        int,
        typer.Option(
            min=1, help="Times that --sweep sends the samples; with a target, at most.", rich_help_panel=STOP_PANEL
        ),
    ] = 1,
    target_errors: TargetErrors = None,
    rel_width: RelWidth = None,
    confidence: Confidence = 0.95,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds that the call may take, repetitions included: 30; of --sweep, no limit.",
            rich_help_panel=CONNECTION_PANEL,
        ),
    ] = None,
    tls: Tls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    server_name: ServerName = None,
    token_file: TokenFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Save as well: .npz with all arrays, or .json or .csv with what is printed.",
            parser=path_of,
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send samples over the link of a running server; print what was decided and how many bits were wrong."""
    from hardpath.samples import text_samples, texts_given
    from link.channel import RADIO
    from serve.client import Client
    from serve.client.calls import TIMEOUT_S

    job = _only_one({"--encode": encode, "--decode": decode is not None, "--sweep": sweep is not None})
    refuse_what_does_nothing(context, job, channel)
    check_out(out, arrays=job != "--sweep")
    given = texts_given(text or [], texts, inputs, skip_bad=skip_bad)
    asked_rows, rows = rows, rows or (f"0:{len(given)}" if given else None if job in ("--sweep", "--decode") else "0:8")
    chosen = slice(0, None) if rows is None else row_range(rows)
    options = {
        "channel": channel,
        "block_symbols": block_symbols,
        "k_factor_db": k_factor_db if channel.startswith("rician") else None,
        "csi": csi,
        "pilots": pilots,
        "no_offset_db": no_offset_db,
        "seed": seed,
        "snr_error_db": snr_error_db,
    }
    reached = connection(
        tls=tls, ca=ca, certificate=certificate, key=key, server_name=server_name, token_file=token_file
    )
    timeout_s = TIMEOUT_S if timeout is None else timeout
    if decode is not None:
        arrays = received(decode)
        _check_rows(asked_rows, chosen, _rows(arrays), as_json=as_json)
        arrays = {name: array[chosen] for name, array in arrays.items()}
    with Client(address, model=model, timeout_s=timeout_s, **reached) as client:
        manifest = _model(client, model).manifest
        output = _Output({"model": manifest.name, "version": manifest.version}, out, as_json)
        if decode is not None:
            own = received_beside(decode, manifest.given_as(manifest.side_inputs), chosen)
            _decode(client, decode, arrays | ({"inputs": own} if own else {}), chosen.start, output)
            return
        named = "--inputs" if manifest.tokenizer is None else "--text, --texts or --inputs"
        found = text_samples(given, manifest) if given else _samples(inputs, manifest, named, skip_bad=skip_bad)
        batch = Batch.of(found, manifest, chosen)
        _check_rows(asked_rows, chosen, _rows(found.inputs), as_json=as_json)
        if encode:
            estimate = snr_db if is_given(context, "snr_db") or manifest.routed else None
            sent = batch.of_names((*manifest.given_as(manifest.task_inputs), *(s.name for s in manifest.task_inputs)))
            _encode(client, sent, {"snr_db": estimate, "mode": mode}, output)
        elif sweep is not None:
            rule = {"draws": draws, "target_errors": target_errors, "rel_width": rel_width, "confidence": confidence}
            _sweep(client, batch, sweep, timeout, options | rule, output)
        else:
            asked = None if channel == RADIO and not is_given(context, "snr_db") else snr_db
            _transmit(
                client, batch, options | {"snr_db": asked, "mode": mode}, output, known_labels(batch, manifest.task)
            )


class _Output(NamedTuple):
    """What becomes of answers: shown beside what is `told` of their model, and saved to `out`."""

    told: Mapping[str, Any]
    out: Path | None
    as_json: bool

    def give(self, client: Client, asked: Mapping[str, Any], answers: Answers, title: str, result: Any) -> None:
        """Show first: what cannot be saved was seen."""
        show(client.address, {**self.told, **asked}, answers, title, as_json=self.as_json)
        save(self.out, answers, result)


def _transmit(
    client: Client, batch: Batch, options: Mapping[str, Any], output: _Output, known: NDArray[np.bool_]
) -> None:
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


def _encode(client: Client, batch: Batch, options: Mapping[str, Any], output: _Output) -> None:
    with _bar("encoding", batch.rows) as update:
        sent = client.encode(batch.inputs, progress=update, **options)
    answers = encoded_answers(sent, batch)
    output.give(client, options, answers, "encoded", sent)


def _decode(client: Client, file: Path, arrays: Mapping[str, Any], first: int, output: _Output) -> None:
    with _bar("decoding", _rows(arrays)) as update:
        found = client.decode(**arrays, include_llr=output.out is not None, progress=update)
    answers = decoded_answers(found, first)
    output.give(client, {}, answers, f"{file} decoded", found)
    if not output.as_json:
        note_texts(found)


def _sweep(
    client: Client,
    batch: Batch,
    grid: str,
    timeout: float | None,
    options: Mapping[str, Any],
    output: _Output,
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


def _only_one(jobs: Mapping[str, bool]) -> str | None:
    asked = [name for name, is_asked in jobs.items() if is_asked]
    if len(asked) > 1:
        raise ArgumentError(asked[1], f"must be absent beside {asked[0]}")
    return asked[0] if asked else None


def _model(client: Client, model: str) -> ModelInfo:
    """The model that is called; where it is to be named, the option that does."""
    from serve.client.failures import ModelNotFound

    try:
        return client.model()
    except ModelNotFound:
        if model:
            raise
        names = ", ".join(found.name for found in client.models())
        raise ArgumentError("--model", f"must name one of the models that the server holds: {names}") from None


def _samples(inputs: Path | None, manifest: Manifest, named: str, *, skip_bad: bool) -> Samples:
    from hardpath.samples import load_samples

    try:
        return load_samples(inputs, manifest, named, skip_bad=skip_bad)
    except ArgumentError as error:
        if error.field == "data":
            raise ArgumentError("--inputs", error.message) from None
        raise


def _rows(arrays: Mapping[str, Any]) -> int:
    return len(next(iter(arrays.values())))


def _check_rows(rows: str | None, chosen: slice, found: int, *, as_json: bool) -> None:
    """Refuse rows that begin past the end, and say where some lie there."""
    if not found:
        raise ArgumentError("--inputs", "must hold at least one row")
    if rows is None:
        return
    if chosen.start >= found:
        raise ArgumentError("--rows", f"names none of the {found} rows, got {rows!r}")
    if chosen.stop > found and not as_json:
        note(f"rows {rows} reach past the end: {found - chosen.start} are sent")


@contextmanager
def _bar(what: str, rows: int) -> Iterator[Callable[[int, int], None]]:
    """Progress by rows, where there are so many that it takes a while."""
    if rows < _BAR_ROWS:
        yield lambda done, total: None
        return
    with progress(what, rows) as update:
        yield lambda done, total: update(done, "rows")
