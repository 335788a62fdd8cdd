"""Sub-commands that simulate a link over SNR: sweep, ber, plot, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hardpath.options import (
    Backend,
    Baselines,
    BlockSymbols,
    Bundle,
    Carrier,
    CsiKind,
    Data,
    DelaySpread,
    Json,
    KFactor,
    MaxTime,
    NoOffset,
    Pilots,
    ReceiverName,
    RelWidth,
    ResourceBlocks,
    ResultsOut,
    Seed,
    SimulatedChannel,
    SimulationDevice,
    SnrError,
    SnrGrid,
    Spacing,
    Speed,
    TargetErrors,
    Workers,
    folder_of,
    path_of,
)
from hardpath.terminal import percent, say, say_json, say_table

if TYPE_CHECKING:
    from link.ber import BerPoint
    from link.grid import ModemSpec
    from link.montecarlo import Proportion
    from link.results import SweepPoint

commands = typer.Typer()


@commands.command()
def sweep(
    bundle: Bundle,
    receiver: ReceiverName = None,
    snr_db: SnrGrid = "-6:18:3",
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
    seed: Seed = 0,
    draws: Annotated[
        int, typer.Option(min=1, help="Times that the data set is sent at each SNR; with a target, at most.")
    ] = 10,
    target_errors: TargetErrors = None,
    rel_width: RelWidth = None,
    max_time: MaxTime = None,
    snr_error_db: SnrError = 0.0,
    data: Data = None,
    baseline: Baselines = None,
    device: SimulationDevice = "cpu",
    workers: Workers = 1,
    backend: Backend = "loky",
    out: ResultsOut = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy and bit errors of a bundle against SNR, with intervals and plots."""
    from hardpath.jobs import run_baselines, run_sweep
    from link.sweep import SweepSpec, parse_grid

    spec = SweepSpec(
        snr_db=parse_grid(snr_db),
        channel=channel,
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
        snr_error_db=snr_error_db,
    )
    result = run_sweep(
        bundle, spec, data, out, receiver, workers=workers, backend=backend, max_time=max_time, device=device
    )
    beside = run_baselines([kind.value for kind in baseline or []], bundle, receiver, data, result, out)
    if out is not None and result.points:
        from link.curves import curves_of
        from link.plot import Curve, waterfall

        rivals = [Curve.of_accuracy(f"decision, {name}", points, "baseline") for name, points in beside.items()]
        title = f"{result.provenance.bundle}{', ' * bool(spec.knowledge)}{spec.knowledge}"
        waterfall([*curves_of(result, channel, "accuracy"), *rivals], out / "accuracy", title=title)
        if any(point.ber is not None for point in result.points):
            waterfall(curves_of(result, channel, "ber"), out / "ber", metric="ber", title=title)
    if as_json:
        said = result.model_dump(mode="json")
        dumped = {name: [point.model_dump(mode="json") for point in points] for name, points in beside.items()}
        say_json(said | ({"baselines": dumped} if beside else {}))
        return
    several = bool(result.points) and len(result.points[0].mode_samples) > 1
    rows = [
        (
            f"{point.snr_db:g}",
            percent(point.accuracy.value),
            f"{percent(point.accuracy.low)} .. {percent(point.accuracy.high)}",
            f"{point.correct}/{point.decisions}",
            "-" if point.ber is None else f"{point.ber.value:.3g}",
            f"{point.bit_errors}/{point.bits}",
            "-" if point.ber_theory is None else f"{point.ber_theory:.3g}",
            *(_header_cells(point) if several else ()),
            *(percent(points[index].accuracy.value) for points in beside.values()),
            *((str(point.stopped_by),) if spec.rule.sequential or max_time else ()),
        )
        for index, point in enumerate(result.points)
    ]
    counted = "headers and pilots counted" if pilots else "headers counted"
    symbols = "" if several or not rows else f"{result.points[0].symbols_per_sample:g} symbols a sample"
    say_table(
        f"{result.provenance.bundle} over "
        f"{', '.join(filter(None, (channel, spec.knowledge, counted if several else symbols)))}, seed {seed}",
        ("Es/N0 dB", "accuracy %", "95 % interval", "correct", "BER", "bit errors", "theory")
        + (("symbols", "modes %", "headers lost", "wrong") if several else ())
        + tuple(f"{name} %" for name in beside)
        + (("stopped by",) if spec.rule.sequential or max_time else ()),
        rows,
    )


def _header_cells(point: SweepPoint) -> tuple[str, ...]:
    """Symbols a sample, shares of the modes, headers lost and wrong."""
    return (
        f"{point.symbols_per_sample:.2f}",
        " ".join(f"{100.0 * share:.0f}" for share in point.mode_shares),
        f"{point.headers_lost}/{point.headers}",
        f"{point.headers_wrong}/{point.headers}",
    )


@commands.command()
def ber(
    order: Annotated[int, typer.Option("--order", help="Of square QAM: 4, 16, 64, 256, 1024 or 4096.")] = 4,
    snr_db: Annotated[
        str | None,
        typer.Option("--snr-db", help="Es/N0 in dB: LOW:HIGH:STEP with both ends, or a list; where absent, 0:12:1."),
    ] = None,
    ebn0_db: Annotated[
        str | None, typer.Option("--ebn0-db", help="The same as Eb/N0 by information bit, in place of --snr-db.")
    ] = None,
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
    demapper: Annotated[str, typer.Option("--demapper", help="max-log, or app: exact LLRs.")] = "max-log",
    ldpc: Annotated[
        str | None,
        typer.Option("--ldpc", metavar="K/N", help="Put 5G's LDPC code of K information and N coded bits in front."),
    ] = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance", help="Estimate error rates too small to count, by importance sampling: uncoded, over awgn."
        ),
    ] = False,
    iterations: Annotated[int, typer.Option("--iterations", help="Of belief propagation, at most.")] = 20,
    frame_symbols: Annotated[
        int, typer.Option("--frame-symbols", help="Symbols sent together, uncoded; 0 stands for 1024.")
    ] = 0,
    seed: Seed = 0,
    target_errors: TargetErrors = None,
    rel_width: RelWidth = None,
    max_time: MaxTime = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            "--blocks",
            min=1,
            help="Blocks a point: at most with a target (default 4096, or 128 with a code), exactly without, which "
            "replays a point. Without either, the target is 200 errors; with --importance, --rel-width 0.2.",
        ),
    ] = None,
    block_frames: Annotated[
        int, typer.Option("--block-frames", help="Frames a block; 0 is some 2^18 symbols, or 128 codewords.")
    ] = 0,
    device: SimulationDevice = "cpu",
    workers: Workers = 1,
    backend: Backend = "loky",
    out: ResultsOut = None,
    as_json: Json = False,
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
        "blocks": blocks or 0,
        "block_frames": block_frames,
    }
    spec = ModemSpec(snr_db=_grid(snr_db, ebn0_db, ModemSpec(snr_db=(0.0,), **settings)), **settings)
    result = run_ber(spec, out, workers=workers, backend=backend, max_time=max_time, device=device)
    if out is not None and result.points:
        from link.curves import curves_of
        from link.plot import waterfall

        for metric in ("ber", "bler") if spec.coded else ("ber",):
            waterfall(curves_of(result, spec.title, metric), out / metric, metric=metric)
    if as_json:
        say(result.model_dump_json(indent=2))
        return
    rows = [_ber_cells(point) for point in result.points]
    shown = [index for index in range(len(_BER_HEAD)) if any(row[index] != "-" for row in rows)]
    say_table(
        f"{spec.title}, seed {seed}",
        [_BER_HEAD[index] for index in shown],
        [[row[index] for index in shown] for row in rows],
    )


@commands.command()
def plot(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Results of sweep or ber, by --out.", parser=folder_of)
    ],
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="accuracy, ber or bler; where absent, accuracy of bundles and ber of modems."),
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
    names = labels_of(results, [folder.name for folder in folders], label or [])
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
    as_json: Json = False,
) -> None:
    """Test whether two sweeps differ, in pairs: both met the same noise, so little of it is left in their difference."""
    from link.compare import compare as compare_sweeps
    from link.compare import read_sweep

    found = compare_sweeps(read_sweep(a), read_sweep(b))
    if as_json:
        say(found.model_dump_json(indent=2))
        return
    rows = [
        (
            "all" if point.snr_db is None else f"{point.snr_db:g}",
            _rate(point.a, found.metric),
            _rate(point.b, found.metric),
            _rate(point.difference, found.metric, signed=True),
            f"{_rate(point.low, found.metric, signed=True)} .. {_rate(point.high, found.metric, signed=True)}",
            f"{point.p_value:.4f}",
            "-" if point.gain is None else f"{point.gain:.1f} x",
        )
        for point in (*found.points, found.overall)
    ]
    unit = " %" if found.metric == "accuracy" else ""
    say_table(
        f"{found.metric}{unit} of {a.name} and {b.name} on the same noise; gain: what unpaired runs would need more",
        ("Es/N0 dB", "A", "B", "A - B", "95 % interval", "p", "gain"),
        rows,
    )


def _rate(value: float, metric: str, *, signed: bool = False) -> str:
    if metric == "accuracy":
        return f"{100.0 * value:+.2f}" if signed else percent(value)
    return f"{value:+.2e}" if signed else f"{value:.3e}"


def _grid(snr_db: str | None, ebn0_db: str | None, modem: ModemSpec) -> tuple[float, ...]:
    """Es/N0 of each point, dB, from either option."""
    from link.errors import ArgumentError
    from link.sweep import parse_grid

    if ebn0_db is None:
        return parse_grid("0:12:1" if snr_db is None else snr_db)
    if snr_db is not None:
        raise ArgumentError("--ebn0-db", "must be absent beside --snr-db")
    return tuple(value + modem.ebn0_offset_db for value in parse_grid(ebn0_db))


def _code(ldpc: str | None) -> dict[str, Any]:
    """Fields of a ModemSpec that --ldpc K/N means."""
    from link.errors import ArgumentError

    if ldpc is None:
        return {}
    k, _, n = ldpc.partition("/")
    if not (k.isdecimal() and n.isdecimal()):
        raise ArgumentError("--ldpc", f"takes K/N, such as 512/1024, got {ldpc!r}")
    return {"code": "ldpc", "code_k": int(k), "code_n": int(n)}


def _ber_cells(point: BerPoint) -> tuple[str, ...]:
    blocks = point.bler
    return (
        f"{point.snr_db:.4g}",
        f"{point.ebn0_db:.4g}",
        _bounded(point.ber),
        f"{point.ber.low:.2e} .. {point.ber.high:.2e}",
        f"{_errors(point)}/{_bits(point):.3g}",
        "-" if point.ber_theory is None else f"{point.ber_theory:.3e}",
        "-" if blocks is None else _bounded(blocks),
        "-" if blocks is None else f"{blocks.low:.2e} .. {blocks.high:.2e}",
        "-" if point.bler_normal is None else f"{point.bler_normal:.2e}",
        str(point.blocks),
        str(point.stopped_by),
    )


_BER_HEAD: Final = (
    "Es/N0 dB", "Eb/N0 dB", "BER", "95 % interval", "bit errors", "theory", "BLER", "95 % interval", "best code", "blocks",
    "stopped by",
)  # fmt: skip


def _errors(point: BerPoint) -> str:
    """Counted, or as many as weigh as much."""
    return f"~{point.effective_errors:.0f}" if point.bit_errors is None else str(point.bit_errors)


def _bits(point: BerPoint) -> float:
    """Sent, or as many as tell as much."""
    return point.bits if point.equivalent_bits is None else point.equivalent_bits


def _bounded(rate: Proportion) -> str:
    """A rate, or what it is known to be below."""
    return f"{rate.value:.3e}" if rate.value > 0.0 else f"< {rate.high:.1e}"
