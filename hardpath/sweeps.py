"""Sub-commands that simulate a link over SNR: sweep, ber, plot, compare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hardpath.options import (
    STOP_PANEL,
    Backend,
    Baselines,
    BlockSymbols,
    Bundle,
    Carrier,
    Confidence,
    CsiKind,
    Data,
    DelaySpread,
    KFactor,
    MaxTime,
    NoOffset,
    Pilots,
    Radio,
    ReceiverName,
    RelWidth,
    ResourceBlocks,
    ResultsJson,
    ResultsOut,
    Seed,
    SimulatedChannel,
    SimulationDevice,
    SkipBad,
    SnrError,
    SnrGrid,
    Spacing,
    Speed,
    TargetErrors,
    Workers,
    folder_of,
    path_of,
)
from hardpath.sweep_tables import show_ber, show_comparison, show_sweep, shown_where_interrupted
from hardpath.terminal import say

if TYPE_CHECKING:
    from link.modem_spec import ModemSpec

commands = typer.Typer()

_CODE_PANEL: Final = "Channel code"


@commands.command()
def sweep(
    bundle: Bundle,
    receiver: ReceiverName = None,
    snr_db: SnrGrid = "-6:18:3",
    channel: SimulatedChannel = "awgn",
    radio: Radio = None,
    block_symbols: BlockSymbols = 0,
    k_factor_db: KFactor = 6.0,
    csi: CsiKind = "perfect",
    pilots: Pilots = 0,
    no_offset_db: NoOffset = 0.0,
    delay_spread_ns: DelaySpread = 100.0,
    speed_kmh: Speed = 30.0,
    carrier_ghz: Carrier = 3.5,
    spacing_khz: Spacing = 30,
    resource_blocks: ResourceBlocks = 51,
    seed: Seed = 0,
    draws: Annotated[
        int,
        typer.Option(
            min=1,
            help="Times that the data set is sent at each SNR; where a target is set, at most.",
            rich_help_panel=STOP_PANEL,
        ),
    ] = 10,
    target_errors: TargetErrors = None,
    rel_width: RelWidth = None,
    confidence: Confidence = 0.95,
    max_time: MaxTime = None,
    snr_error_db: SnrError = 0.0,
    data: Data = None,
    skip_bad: SkipBad = False,
    baseline: Baselines = None,
    device: SimulationDevice = "cpu",
    workers: Workers = 1,
    backend: Backend = "loky",
    out: ResultsOut = None,
    as_json: ResultsJson = False,
) -> None:
    """Measure accuracy and bit errors of a bundle against SNR, with intervals and plots."""
    from hardpath.jobs import check_baselines, run_baselines, run_sweep
    from link.radio.spec import load_radio
    from link.sweep import SweepSpec, parse_grid

    spec = SweepSpec(
        snr_db=parse_grid(snr_db),
        channel=channel,
        radio=None if radio is None else load_radio(radio),
        block_symbols=block_symbols,
        k_factor_db=k_factor_db,
        csi=csi,
        pilots=pilots,
        no_offset_db=no_offset_db,
        delay_spread_ns=delay_spread_ns,
        speed_kmh=speed_kmh,
        carrier_ghz=carrier_ghz,
        spacing_khz=spacing_khz,
        resource_blocks=resource_blocks,
        seed=seed,
        draws=draws,
        target_errors=target_errors,
        rel_width=rel_width,
        confidence=confidence,
        snr_error_db=snr_error_db,
    )
    kinds = [kind.value for kind in baseline or []]
    check_baselines(kinds, bundle, receiver)
    with shown_where_interrupted(lambda found: show_sweep(found, {}, out, as_json=as_json), out):
        result = run_sweep(
            bundle,
            spec,
            data,
            out,
            receiver,
            skip_bad=skip_bad,
            workers=workers,
            backend=backend,
            max_time=max_time,
            device=device,
        )
    beside = run_baselines(kinds, bundle, receiver, data, result, out, skip_bad=skip_bad)
    show_sweep(result, beside, out, as_json=as_json)


@commands.command()
def ber(
    order: Annotated[int, typer.Option("--order", help="Order of the square QAM: 4, 16, 64, 256, 1024 or 4096.")] = 4,
    demapper: Annotated[
        str, typer.Option("--demapper", metavar="NAME", help="LLRs: max-log, by the nearest points, or app, exact.")
    ] = "max-log",
    frame_symbols: Annotated[
        int, typer.Option("--frame-symbols", help="Symbols that are sent together, without a code; 0 stands for 1024.")
    ] = 0,
    snr_db: Annotated[
        str | None,
        typer.Option(
            "--snr-db",
            metavar="GRID",
            help="Es/N0 in dB: LOW:HIGH:STEP with both ends, or a list such as 0,6,12.",
            show_default="0:12:1",
        ),
    ] = None,
    ebn0_db: Annotated[
        str | None,
        typer.Option(
            "--ebn0-db",
            metavar="GRID",
            help="Eb/N0 by information bit in dB, in the same form and in place of --snr-db.",
        ),
    ] = None,
    seed: Seed = 0,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="Estimate error rates too small to count, by importance sampling: without a code, over awgn.",
        ),
    ] = False,
    ldpc: Annotated[
        str | None,
        typer.Option(
            "--ldpc",
            metavar="K/N",
            help="Put 5G's LDPC code of K information and N coded bits in front; needs hardpath\\[sim].",
            rich_help_panel=_CODE_PANEL,
        ),
    ] = None,
    iterations: Annotated[
        int,
        typer.Option("--iterations", help="Iterations of belief propagation at most.", rich_help_panel=_CODE_PANEL),
    ] = 20,
    channel: SimulatedChannel = "awgn",
    block_symbols: BlockSymbols = 0,
    k_factor_db: KFactor = 6.0,
    csi: CsiKind = "perfect",
    pilots: Pilots = 0,
    no_offset_db: NoOffset = 0.0,
    delay_spread_ns: DelaySpread = 100.0,
    speed_kmh: Speed = 30.0,
    carrier_ghz: Carrier = 3.5,
    spacing_khz: Spacing = 30,
    resource_blocks: ResourceBlocks = 51,
    target_errors: TargetErrors = None,
    rel_width: RelWidth = None,
    confidence: Confidence = 0.95,
    max_time: MaxTime = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            "--blocks",
            min=1,
            help="Blocks of a point. Where a target is set, it ends with them at the latest; where this is absent, with "
            "4096, or 128 with a code. Where none is set, it ends with them and not before, which replays a point. Where "
            "all are absent, the target is 200 errors, or with --importance a --rel-width of 0.2.",
            rich_help_panel=STOP_PANEL,
        ),
    ] = None,
    block_frames: Annotated[
        int,
        typer.Option(
            "--block-frames",
            help="Frames of a block; 0 stands for some 2^18 symbols, or 128 codewords.",
            rich_help_panel=STOP_PANEL,
        ),
    ] = 0,
    device: SimulationDevice = "cpu",
    workers: Workers = 1,
    backend: Backend = "loky",
    out: ResultsOut = None,
    as_json: ResultsJson = False,
) -> None:
    """Measure bit and block error rates of square QAM against SNR, uncoded or with 5G's LDPC code, theory beside them."""
    from hardpath.jobs import run_ber
    from link.ber import ModemSpec

    code = _code(ldpc)
    if target_errors is None and rel_width is None and blocks is None:
        target_errors, rel_width = (None, 0.2) if importance else (200, None)
    settings = {
        "order": order,
        "channel": channel,
        "block_symbols": block_symbols,
        "k_factor_db": k_factor_db,
        "csi": csi,
        "pilots": pilots,
        "no_offset_db": no_offset_db,
        "delay_spread_ns": delay_spread_ns,
        "speed_kmh": speed_kmh,
        "carrier_ghz": carrier_ghz,
        "spacing_khz": spacing_khz,
        "resource_blocks": resource_blocks,
        "demapper": demapper,
        **code,
        "sampling": "importance" if importance else "plain",
        "iterations": iterations,
        "frame_symbols": frame_symbols,
        "seed": seed,
        "target_errors": target_errors,
        "rel_width": rel_width,
        "confidence": confidence,
        "blocks": blocks or 0,
        "block_frames": block_frames,
    }
    spec = ModemSpec(snr_db=_grid(snr_db, ebn0_db, ModemSpec(snr_db=(0.0,), **settings)), **settings)
    show = partial(show_ber, out=out, as_json=as_json, over_ebn0=ebn0_db is not None)
    with shown_where_interrupted(show, out):
        result = run_ber(spec, out, workers=workers, backend=backend, max_time=max_time, device=device)
    show(result)


@commands.command()
def plot(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Results of sweep or ber, by --out.", parser=folder_of)
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="accuracy, ber, bler, or bleu and bleu-1 to bleu-4; where absent, accuracy of bundles and ber of modems.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Name of a curve, once for each folder; where absent, what differs between them."),
    ] = None,
    over_ebn0: Annotated[bool, typer.Option("--ebn0", help="Against Eb/N0 in place of Es/N0.")] = False,
    out: Annotated[Path, typer.Option("--out", help="File to write, as .png and .svg.", parser=path_of)] = Path(
        "waterfall"
    ),
    title: Annotated[str, typer.Option("--title", help="Above the axes.")] = "",
) -> None:
    """Lay the curves of finished sweeps side by side, with intervals and theory."""
    from link.compare import read_result
    from link.curves import curves_of, default_metric, labels_of
    from link.plot import waterfall

    results = [read_result(folder) for folder in folders]
    chosen = default_metric(results) if metric is None else metric
    names = labels_of(results, _names(folders), label or [])
    curves = [
        curve
        for name, result in zip(names, results, strict=True)
        for curve in curves_of(result, name, chosen, over_ebn0)
    ]
    for file in waterfall(curves, out, metric=chosen, over_ebn0=over_ebn0, title=title):
        say(str(file))


@commands.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Results of sweep or ber, by --out.", parser=folder_of)],
    b: Annotated[
        Path,
        typer.Argument(metavar="B", help="Others, of the same seed, data and channel.", parser=folder_of),
    ],
    as_json: ResultsJson = False,
) -> None:
    """Test whether two sweeps differ, in pairs: both met the same noise, so little of it is left in their difference.

    The gain is how many times as much a test of independent sweeps would have to simulate.
    """
    from link.compare import compare as compare_sweeps
    from link.compare import read_sweep

    show_comparison(compare_sweeps(read_sweep(a), read_sweep(b)), *_names([a, b]), as_json=as_json)


def _names(folders: Sequence[Path]) -> list[str]:
    """What to call folders: the last parts of their paths, or all of them where those are alike."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _grid(snr_db: str | None, ebn0_db: str | None, modem: ModemSpec) -> tuple[float, ...]:
    """Es/N0 of each point, dB, from either option."""
    from link.errors import ArgumentError
    from link.sweep import parse_grid

    if ebn0_db is None:
        return parse_grid("0:12:1" if snr_db is None else snr_db)
    if snr_db is not None:
        raise ArgumentError("--ebn0-db", "must be absent beside --snr-db")
    return tuple(value + modem.ebn0_offset_db for value in parse_grid(ebn0_db, "ebn0_db"))


def _code(ldpc: str | None) -> dict[str, Any]:
    """Fields of a ModemSpec that --ldpc K/N means."""
    from link.errors import ArgumentError

    if ldpc is None:
        return {}
    k, _, n = ldpc.partition("/")
    if not (k.isdecimal() and n.isdecimal()):
        raise ArgumentError("--ldpc", f"takes K/N, such as 512/1024, got {ldpc!r}")
    return {"code": "ldpc", "code_k": int(k), "code_n": int(n)}
