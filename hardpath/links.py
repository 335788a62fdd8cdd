"""Sub-commands that serve a link: serve, call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hardpath.options import (
    BlockSymbols,
    Bundle,
    ChannelName,
    Json,
    KFactor,
    ReceiverName,
    Seed,
    SnrError,
    path_of,
    row_range,
)
from hardpath.terminal import in_one_line, note, say, say_json, say_table

if TYPE_CHECKING:
    from link.header import HeaderOutcome

commands = typer.Typer()


@commands.command()
def serve(
    bundle: Bundle,
    receiver: ReceiverName = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reachable from here only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 50051,
) -> None:
    """Serve a bundle over gRPC until SIGINT or SIGTERM, then finish what is in flight."""
    from serve.config_layers import load_config
    from serve.server import serve as serve_bundles

    def ready(address: str) -> None:
        say(f"serving {bundle} on {address}")

    flags = {"bundles": (bundle,), "receiver": receiver, "listen.host": host, "listen.port": port}
    serve_bundles(load_config(None, {}, flags), ready=ready)


@commands.command()
def call(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where a server listens.")],
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
            help="Rows to send, FIRST:LAST, the last excluded; where absent, 0:8, or all of --text and --texts."
        ),
    ] = None,
    snr_db: Annotated[float, typer.Option("--snr-db", help="Es/N0 in dB.")] = 12.0,
    channel: ChannelName = "awgn",
    block_symbols: BlockSymbols = 0,
    k_factor_db: KFactor = 6.0,
    seed: Seed = 0,
    snr_error_db: SnrError = 0.0,
    as_json: Json = False,
) -> None:
    """Send samples over the link of a running server; print what was decided and how many bits were wrong."""
    from hardpath.jobs import load_samples, text_samples, texts_given
    from serve.client import Client

    given = texts_given(text or [], texts, inputs)
    rows = rows or (f"0:{len(given)}" if given else "0:8")
    chosen = row_range(rows)
    with Client(address) as client:
        manifest = client.model().manifest
        options = "--inputs" if manifest.tokenizer is None else "--text, --texts or --inputs"
        samples = text_samples(given, manifest) if given else load_samples(inputs, manifest, options)
        reply = client.transmit(
            {name: value[chosen] for name, value in samples.inputs.items()},
            snr_db=snr_db,
            channel=channel,
            block_symbols=block_symbols,
            k_factor_db=k_factor_db if channel.startswith("rician") else None,
            seed=seed,
            sample_offset=chosen.start,
            snr_error_db=snr_error_db,
        )
    labels = None if samples.labels is None else samples.labels[chosen]
    sent_texts = samples.texts(manifest)[chosen]
    answers = [
        {"row": chosen.start + index}
        | ({"text": sent_texts[index]} if sent_texts else {})
        | {
            "decision": reply.decoded.class_names[index],
            "probability": float(reply.decoded.probabilities[index].max()),
            "bit_errors": int(reply.bit_errors[index]),
            "bits": int(reply.sent.num_bits[index]),
            "symbols": int(reply.sent.num_symbols[index]),
        }
        | ({} if reply.header is None else _header_columns(reply.header, int(reply.sent.mode[index]), index))
        | ({} if reply.truncated is None else {"truncated": bool(reply.truncated[index])})
        | ({} if labels is None else {"correct": bool(reply.decoded.decisions[index] == labels[index])})
        for index in range(len(reply.decoded.class_names))
    ]
    if as_json:
        say_json({"address": address, "snr_db": snr_db, "channel": channel, "seed": seed, "samples": answers})
        return
    if len(answers) < chosen.stop - chosen.start:
        note(f"rows {rows} reach past the end: {len(answers)} were sent")
    if reply.truncated is not None and reply.truncated.any():
        note(f"{reply.truncated.sum()} of {len(answers)} texts have too many tokens for the model: cut")
    columns = [name for name in answers[0]]
    cells = [
        tuple(f"{value:.3f}" if isinstance(value, float) else in_one_line(str(value)) for value in row.values())
        for row in answers
    ]
    say_table(f"{address}, {channel} at {snr_db:g} dB, seed {seed}", columns, cells)


def _header_columns(header: HeaderOutcome, mode: int, index: int) -> dict[str, Any]:
    """Of one sample: its mode, its share of the header, and what became of that."""
    outcome = "lost" if header.lost[index] else f"wrong: {header.mode[index]}" if header.wrong[index] else "right"
    return {"mode": mode, "header_symbols": float(header.symbols[index]), "header": outcome}
