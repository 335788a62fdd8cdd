"""Sub-command that calls a server: call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hardpath import call_jobs
from hardpath.call_files import check_out, received, received_beside
from hardpath.call_jobs import Output, rows_of
from hardpath.call_options import is_given, refuse_what_does_nothing
from hardpath.call_recordings import recordings_of, send_recordings
from hardpath.call_tables import Batch, known_labels
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
from hardpath.terminal import ends_with, note
from link.errors import ArgumentError

if TYPE_CHECKING:
    from hardpath.samples import Samples
    from link.manifest import Manifest
    from serve.client import Client
    from serve.results import ModelInfo

commands = typer.Typer()


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
    recording: Annotated[
        Path | None,
        typer.Option(
            "--recording",
            metavar="PATH",
            help="Recordings of sensors, as --data of train takes them: sent window by window, and decided as they come.",
            parser=path_of,
        ),
    ] = None,
    lag: Annotated[
        int, typer.Option(min=0, help="Windows after its own that a decision on one of --recording waits for.")
    ] = 0,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Rows to send, FIRST:LAST, the last excluded; where absent, 0:8, or all of --text, --texts, --sweep and "
            "--recording, where they are recordings."
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
            help="Seconds that the call may take, repetitions included: 30; of --sweep and --recording, no limit.",
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

    job = _only_one(
        {
            "--encode": encode,
            "--decode": decode is not None,
            "--sweep": sweep is not None,
            "--recording": recording is not None,
        }
    )
    refuse_what_does_nothing(context, job, channel)
    check_out(out, arrays=job not in ("--sweep", "--recording"))
    given = texts_given(text or [], texts, inputs, skip_bad=skip_bad)
    all_rows = None if job in ("--sweep", "--decode", "--recording") else "0:8"
    asked_rows, rows = rows, rows or (f"0:{len(given)}" if given else all_rows)
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
        _check_rows(asked_rows, chosen, rows_of(arrays), as_json=as_json)
        arrays = {name: array[chosen] for name, array in arrays.items()}
    with Client(address, model=model, timeout_s=timeout_s, **reached) as client:
        manifest = _model(client, model).manifest
        output = Output({"model": manifest.name, "version": manifest.version}, out, as_json)
        if decode is not None:
            own = received_beside(decode, manifest.given_as(manifest.side_inputs), chosen)
            call_jobs.decode(client, decode, arrays | ({"inputs": own} if own else {}), chosen.start, output)
            return
        estimate = None if channel == RADIO and not is_given(context, "snr_db") else snr_db
        if recording is not None:
            parts = recordings_of(recording, manifest)
            _check_rows(asked_rows, chosen, len(parts), as_json=as_json)
            asked = options | {"snr_db": estimate, "lag": lag}
            send_recordings(client, manifest, parts[chosen], asked, timeout, output)
            return
        named = "--inputs" if manifest.tokenizer is None else "--text, --texts or --inputs"
        found = text_samples(given, manifest) if given else _samples(inputs, manifest, named, skip_bad=skip_bad)
        batch = Batch.of(found, manifest, chosen)
        _check_rows(asked_rows, chosen, rows_of(found.inputs), as_json=as_json)
        if encode:
            told = snr_db if is_given(context, "snr_db") or manifest.routed else None
            sent = batch.of_names((*manifest.given_as(manifest.task_inputs), *(s.name for s in manifest.task_inputs)))
            call_jobs.encode(client, sent, {"snr_db": told, "mode": mode}, output)
        elif sweep is not None:
            rule = {"draws": draws, "target_errors": target_errors, "rel_width": rel_width, "confidence": confidence}
            call_jobs.sweep(client, batch, sweep, timeout, options | rule, output)
        else:
            asked = options | {"snr_db": estimate, "mode": mode}
            call_jobs.transmit(client, batch, asked, output, known_labels(batch, manifest.task))


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
