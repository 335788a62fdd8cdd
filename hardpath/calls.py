"""Sub-command that calls a server: call."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hardpath.call_tables import (
    Batch,
    check_out,
    decoded_answers,
    encoded_answers,
    note_texts,
    point_answers,
    save,
    show,
    show_points,
    transmitted_answers,
)
from hardpath.options import (
    OUTPUT_PANEL,
    STOP_PANEL,
    BlockSymbols,
    ChannelName,
    Confidence,
    CsiKind,
    Json,
    KFactor,
    NoOffset,
    Pilots,
    RelWidth,
    Seed,
    SnrError,
    TargetErrors,
    path_of,
    row_range,
)
from hardpath.terminal import INTERRUPTED, note, percent, progress
from link.errors import ArgumentError

if TYPE_CHECKING:
    from link.manifest import Manifest
    from serve.client import Client
    from serve.client.points import SweepPoint

commands = typer.Typer()

TOKEN_VARIABLE: Final = "HARDPATH_TOKEN"
_CONNECTION_PANEL: Final = "Connection"
_BAR_ROWS: Final = 1000
"""From so many rows on progress is shown."""


def _connection(flag: str, text: str, *, metavar: str | None = None, path: bool = False) -> Any:
    return typer.Option(
        flag, help=text, metavar=metavar, parser=path_of if path else None, rich_help_panel=_CONNECTION_PANEL
    )


@commands.command()
def call(
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
            help="Decode only: `symbols` with `no`, or `llr_in`, or `bits`, and `mode` where there are several.",
            parser=path_of,
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", metavar="GRID", help="Send all samples at each Es/N0 in dB: LOW:HIGH:STEP, or 0,6,12."),
    ] = None,
    snr_db: Annotated[float, typer.Option("--snr-db", help="Es/N0 in dB.")] = 12.0,
    mode: Annotated[
        int | None,
        typer.Option(
            "--mode",
            metavar="N",
            min=0,
            help="Mode to send in, where there are several; absent: the transmitter's choice.",
        ),
    ] = None,
    channel: ChannelName = "awgn",
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
        _connection("--timeout", "Seconds that the call may take, repetitions included: 30; of --sweep, no limit."),
    ] = None,
    tls: Annotated[bool, _connection("--tls", "Speak TLS; --ca and --certificate imply it.")] = False,
    ca: Annotated[
        Path | None, _connection("--ca", "Authorities to trust in place of the system's, PEM.", path=True)
    ] = None,
    certificate: Annotated[
        Path | None, _connection("--certificate", "One's own certificate, PEM, for mutual TLS.", path=True)
    ] = None,
    key: Annotated[Path | None, _connection("--key", "Its key, PEM.", path=True)] = None,
    server_name: Annotated[
        str | None, _connection("--server-name", "Name in the server's certificate, where it is not the host.")
    ] = None,
    token_file: Annotated[
        Path | None,
        _connection("--token-file", f"File with the bearer token; where absent, {TOKEN_VARIABLE} is taken.", path=True),
    ] = None,
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
    from hardpath.jobs import load_samples, text_samples, texts_given
    from serve.client import Client
    from serve.client.calls import TIMEOUT_S

    job = _only_one({"--encode": encode, "--decode": decode is not None, "--sweep": sweep is not None})
    check_out(out, arrays=job != "--sweep")
    if mode is not None and job in ("--decode", "--sweep"):
        raise ArgumentError("--mode", f"must be absent beside {job}")
    given = texts_given(text or [], texts, inputs)
    rows = rows or (f"0:{len(given)}" if given else None if job in ("--sweep", "--decode") else "0:8")
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
    with Client(
        address,
        model=model,
        timeout_s=TIMEOUT_S if timeout is None else timeout,
        token=_token(token_file),
        tls=tls,
        ca=ca,
        certificate=certificate,
        key=key,
        server_name=server_name,
    ) as client:
        if decode is not None:
            _decode(client, decode, chosen, out, as_json=as_json)
            return
        manifest = client.model().manifest
        named = "--inputs" if manifest.tokenizer is None else "--text, --texts or --inputs"
        found = text_samples(given, manifest) if given else load_samples(inputs, manifest, named)
        batch = Batch.of(found, manifest, chosen)
        if rows is not None and not batch.rows:
            raise ArgumentError(
                "--rows", f"names none of the {len(next(iter(found.inputs.values())))} rows, got {rows!r}"
            )
        if rows is not None and batch.rows < chosen.stop - chosen.start and not as_json:
            note(f"rows {rows} reach past the end: {batch.rows} are sent")
        if encode:
            _encode(client, batch, snr_db if _has_router(manifest) else None, mode, out, as_json=as_json)
        elif sweep is not None:
            rule = {"draws": draws, "target_errors": target_errors, "rel_width": rel_width, "confidence": confidence}
            _sweep(client, batch, sweep, timeout, options | rule, out, as_json=as_json)
        else:
            _transmit(client, batch, snr_db, options | {"mode": mode}, out, as_json=as_json)


def _transmit(
    client: Client, batch: Batch, snr_db: float, options: Mapping[str, Any], out: Path | None, *, as_json: bool
) -> None:
    with _bar("sending", batch.rows) as update:
        reply = client.transmit(
            batch.inputs,
            snr_db=snr_db,
            sample_offset=batch.first,
            include_llr=out is not None,
            include_symbols=out is not None,
            progress=update,
            **options,
        )
    answers = transmitted_answers(reply, batch)
    save(out, answers, reply)
    asked = {"snr_db": snr_db, "channel": options["channel"], "seed": options["seed"]}
    show(client.address, asked, answers, f"{asked['channel']} at {snr_db:g} dB, seed {asked['seed']}", as_json=as_json)
    if not as_json:
        note_texts(reply.truncated, "have too many tokens for the model: cut")
        note_texts(reply.unknown, "have no token that the model knows")


def _encode(
    client: Client, batch: Batch, snr_db: float | None, mode: int | None, out: Path | None, *, as_json: bool
) -> None:
    with _bar("encoding", batch.rows) as update:
        sent = client.encode(batch.inputs, snr_db=snr_db, mode=mode, progress=update)
    answers = encoded_answers(sent, batch)
    save(out, answers, sent)
    show(client.address, {}, answers, "encoded", as_json=as_json)


def _decode(client: Client, file: Path, rows: slice, out: Path | None, *, as_json: bool) -> None:
    """Decode what a file holds: symbols where their noise is told, else LLRs, else bits."""
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as loaded:
            arrays = {name: loaded[name][rows] for name in loaded.files if loaded[name].ndim}
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, KeyError) as error:
        raise ArgumentError("--decode", f"{file} is no .npz: {error}") from None
    kinds = ({"symbols", "no"}, {"llr_in"}, {"bits"})
    kind = next((kind for kind in kinds if kind <= arrays.keys()), None)
    if kind is None:
        raise ArgumentError(
            "--decode", f"{file} must hold symbols and no, llr_in, or bits; it holds {', '.join(arrays)}"
        )
    taken = kind | ({"mode", "llr_in"} if "symbols" in kind else {"mode"})
    with _bar("decoding", len(arrays[min(kind)])) as update:
        found = client.decode(
            **{name: arrays[name] for name in taken & arrays.keys()}, include_llr=out is not None, progress=update
        )
    answers = decoded_answers(found, rows.start)
    save(out, answers, found)
    show(client.address, {}, answers, f"{file} decoded", as_json=as_json)


def _sweep(
    client: Client,
    batch: Batch,
    grid: str,
    timeout: float | None,
    options: Mapping[str, Any],
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Show the points that came, also where Ctrl-C ends the sweep."""
    from link.grid import parse_grid

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
    save(out, answers, None)
    asked = {"channel": options["channel"], "seed": options["seed"]}
    if as_json:
        show(client.address, asked, answers, "", as_json=True, name="points")
    elif points:
        show_points(
            f"{client.address} over {options['channel']}, seed {options['seed']}", points, options["confidence"]
        )
    if interrupted:
        note(f"hardpath: interrupted after {len(points)} of {len(snr_db)} points")
        sys.exit(INTERRUPTED)


def _only_one(jobs: Mapping[str, bool]) -> str | None:
    asked = [name for name, is_asked in jobs.items() if is_asked]
    if len(asked) > 1:
        raise ArgumentError(asked[1], f"must be absent beside {asked[0]}")
    return asked[0] if asked else None


def _token(file: Path | None) -> str | None:
    """A token is never an option's value: the list of processes shows those."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ArgumentError("--token-file", f"{file} is no text") from None


def _has_router(manifest: Manifest) -> bool:
    from link.interface import SNR_INPUT

    return any(tensor.name == SNR_INPUT for tensor in manifest.transmitter.inputs)


@contextmanager
def _bar(what: str, rows: int) -> Iterator[Callable[[int, int], None]]:
    """Progress by rows, where there are so many that it takes a while."""
    if rows < _BAR_ROWS:
        yield lambda done, total: None
        return
    with progress(what, rows) as update:
        yield lambda done, total: update(done, "rows")
