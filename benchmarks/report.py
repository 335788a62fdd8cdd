"""The results as JSON, and as a page with tables and what they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.generators import Cost
from benchmarks.gpu import TARGETS, GpuTimes
from benchmarks.growth import Growth
from benchmarks.memory import MIB
from benchmarks.memory import Growth as MemoryGrowth
from benchmarks.physical import ARRAYS_TARGETS, COMMPY_ORDER, KERNEL_TARGETS, Chain
from benchmarks.semantic import TARGET, SweepTimes
from benchmarks.timing import Ratio
from benchmarks.workers import TARGET as WORKERS_TARGET
from benchmarks.workers import Scaling

MEMORY_TARGET: Final = 16 * MIB


@dataclass(frozen=True)
class Findings:
    """All that one run measured."""

    machine: dict[str, Any]
    rounds: int
    seconds: float
    chains: list[Chain]
    workers: list[Scaling]
    memory: list[MemoryGrowth]
    sweeps: list[SweepTimes]
    gpu: list[GpuTimes]
    generators: list[Cost]
    growth: list[Growth]

    def json(self) -> str:
        """As a JSON object, named tuples as objects."""
        return json.dumps({name: _plain(value) for name, value in vars(self).items()}, indent=2) + "\n"


def write(folder: Path, found: Findings) -> str:
    """link.json and link.md; the text of the latter."""
    (folder / "link.json").write_text(found.json(), encoding="utf-8")
    text = page(found)
    (folder / "link.md").write_text(text, encoding="utf-8")
    return text


def page(found: Findings) -> str:
    """The page."""
    machine = found.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    environment = ", ".join(f"{name}={value}" for name, value in machine["environment"].items()) or "none set"
    parts = [
        "# How fast the link is",
        "`make bench` measures what this page says and writes it anew; `link.json` has every figure, `timings.csv` every "
        "timing that one was made from.",
        "Figures are ratios. In each round all subjects of a case run once, one after another, and a ratio is of two times "
        f"of one round: the median of {found.rounds} rounds, quartiles in brackets. Times themselves drift with "
        "the machine's clock and its neighbours. Each peer runs at the fastest of its settings, found by a search of its "
        "own. A target that is missed says so.",
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['vector_instructions'])}), "
        f"{machine['system']}, Python {machine['python']}; {versions}; {machine['compiler'] or 'no C++ compiler'}; "
        f"environment: {environment}; commit {machine['commit'] or 'unknown'}; load {machine['load_at_start']} at the "
        f"start; {found.seconds:.0f} s.",
        *_chain(found),
        *_workers(found.workers),
        *_memory(found.memory),
        *_sweeps(found.sweeps),
        *_gpu(found.gpu),
        *_generators(found.generators),
        "## Growth",
        "![time against symbols, order, points and workers](growth.svg)",
        "Dotted lines are proportional growth from the largest size. Below some thousand symbols a call's own cost is "
        "seen. The kernel's time does not depend on the order, since a decision looks at the neighbouring amplitudes alone; "
        "that of the array path grows with log2 of it.",
    ]
    return "\n\n".join(parts) + "\n"


def _chain(found: Findings) -> list[str]:
    rows = []
    for chain in found.chains:
        rows.append(
            [
                str(chain.order),
                f"{chain.eager_ns:,.0f}",
                f"{chain.sionna_ns:,.0f}",
                f"{chain.arrays_ns:.1f}",
                f"{chain.kernel_ns:.1f}",
                f"{chain.numbers_ns:.1f}",
                *(_judged(ratio, ARRAYS_TARGETS.get(chain.order)) for ratio in (chain.arrays_eager, chain.arrays)),
                *(_judged(ratio, KERNEL_TARGETS.get(chain.order)) for ratio in (chain.kernel_eager, chain.kernel)),
                f"{chain.at_most.median:.3g}",
            ]
        )
    head = [
        "QAM",
        "Sionna eager",
        "Sionna best",
        "arrays",
        "kernel",
        "numbers alone",
        "arrays: eager",
        "arrays: best",
        "kernel: eager",
        "kernel: best",
        "at most",
    ]
    settings = [
        f"{chain.order}-QAM at {chain.snr_db:g} dB: Sionna {chain.eager_settings}; best {chain.sionna_settings}; arrays "
        f"{chain.arrays_settings} (all NumPy: {chain.numpy_ns:.0f} ns); LLRs of one reception differ by "
        f"{chain.llr_gap:.0e} of the largest{f'; {chain.trouble}' if chain.trouble else ''}."
        for chain in found.chains
    ]
    commpy = [chain for chain in found.chains if chain.order == COMMPY_ORDER and chain.commpy_ns]
    other = [
        f"scikit-commpy, one thread, {chain.order}-QAM with soft output: {chain.commpy_ns or 0:,.0f} ns a symbol, "
        f"{(chain.commpy_ns or 0) / chain.arrays_ns:,.0f} times the array path's."
        for chain in commpy
    ]
    return [
        "## Bits over AWGN to LLRs and to counts",
        "One thread, single precision, new bits in each call. *Eager* is Sionna's mapper, AWGN and max-log demapper as its "
        "manual runs them, *best* the fastest of that and of torch.compile. *Arrays* is `link.modem.llrs`, to LLRs; "
        "*kernel* is `link.kernel`, to counts of bit, symbol and frame errors, beside Sionna with a count behind. Times are "
        "nanoseconds a symbol; the columns behind them are Sionna's time over hardpath's.",
        _table(head, rows),
        "*Numbers alone* is what the kernel's two normals and bits take by themselves, and *at most* how many times as fast "
        "as Sionna at its best a chain could be that does nothing else. The kernel takes "
        f"{found.chains[0].over_numbers} times as long as they do at {found.chains[0].order}-QAM and "
        f"{found.chains[-1].over_numbers} times at {found.chains[-1].order}-QAM.",
        "torch.compile fuses the distances to all points with the maxima over them, which pays where there are many. It "
        "needs a C++ compiler, and seconds for each shape.",
        "![ratios against the order](ratios.svg)",
        "\n".join(f"- {line}" for line in settings),
        *other,
        "Where the array path's time goes, each stage alone, nanoseconds a symbol; the channel's holds the normals'.",
        _table(
            ["QAM", *(stage.name for stage in found.chains[0].stages)],
            [[str(chain.order), *(f"{stage.ns:.1f}" for stage in chain.stages)] for chain in found.chains],
        ),
    ]


def _workers(found: Sequence[Scaling]) -> list[str]:
    target = {2: WORKERS_TARGET}
    rows = [[str(s.workers), f"{s.ns:.2f}", _judged(s.speedup, target.get(s.workers))] for s in found]
    order = found[0].order
    return [
        "## Workers",
        f"The kernel at {order}-QAM in worker processes, {found[0].symbols:,} symbols shared out among them.",
        _table(["workers", "ns a symbol", "times one worker's speed"], rows),
    ]


def _memory(found: Sequence[MemoryGrowth]) -> list[str]:
    rows = []
    for growth in found:
        missed = growth.subject == "hardpath" and growth.bytes > MEMORY_TARGET
        note = f" (**target {MEMORY_TARGET // MIB} MiB missed**)" if missed else ""
        rows.append([growth.subject, f"{growth.bytes / MIB:,.1f} MiB{note}"])
    return [
        "## Memory",
        f"Peak of the resident memory while {found[0].symbols:,} symbols of {found[0].order}-QAM are demapped, less what "
        "was resident before; the LLRs are part of it. A process each.",
        _table(["demapper", "growth"], rows),
    ]


def _sweeps(found: Sequence[SweepTimes]) -> list[str]:
    one = found[0]
    rows = [
        [
            str(times.threads),
            f"{times.torch_us:.2f}",
            f"{times.sweep_us:.2f}",
            f"{times.channel_us:.2f}",
            f"{times.receiver_us:.2f}",
            f"{times.head_us:.2f}",
            _judged(times.ratio, TARGET),
            f"{times.accuracy_gap:.2%}",
        ]
        for times in found
    ]
    return [
        "## Semantic sweep",
        f"The digits bundle, {found[0].rows:,} rows at {found[0].points} SNRs: `link.sweep` against the checkpoint's torch "
        "modules, run whole at each point with 256 rows at a time. The sweep encodes once, and counts bits and codewords "
        "beside decisions. On several threads, each a worker process, it sends each row "
        f"{found[-1].draws} times, so that starting processes counts for less. Times are microseconds a reception. The "
        "last column is the greatest difference of the accuracies that the two found at a point, over different noise.",
        _table(["threads", "torch", "sweep", "channel", "receiver", "head", "torch over sweep", "accuracy"], rows),
        "*Channel*, *receiver* (receiver.onnx) and *head* (a part of the receiver, by torch) are alone on one thread; what "
        "else is in the sweep is the transmitter and counting. On one thread no sweep that runs this receiver is more than "
        f"{one.torch_us / one.receiver_us:.0f} times as fast as torch.",
    ]


def _gpu(found: Sequence[GpuTimes]) -> list[str]:
    head = "## On a GPU"
    if not found:
        return [head, "There was none: nothing of it was measured."]
    rows = [
        [
            str(times.order),
            times.settings,
            f"{times.sionna_ns:.2f}",
            f"{times.hardpath_ns:.2f}",
            _judged(times.ratio, TARGETS.get(times.order)),
        ]
        for times in found
    ]
    return [
        head,
        f"{found[0].device}: bits over AWGN to counts of errors, until the host knows them; Sionna eager at its best batch, "
        "`link.modem` through torch. Nanoseconds a symbol.",
        _table(["QAM", "Sionna's settings", "Sionna", "hardpath", "Sionna over hardpath"], rows),
    ]


def _generators(found: Sequence[Cost]) -> list[str]:
    rows = [
        [
            cost.generator,
            f"{cost.normal_ns:.2f}",
            "" if cost.normal32_ns is None else f"{cost.normal32_ns:.2f}",
            f"{cost.bit_ns:.3f}",
            "yes" if cost.addressed else "no",
        ]
        for cost in found
    ]
    return [
        "## Random numbers alone",
        "Nanoseconds a number on one thread. Addressed: each number can be drawn by itself, so results do not depend on "
        "batches, order or workers. Bits are bytes of 0 or 1, but for numba's, which stay packed.",
        _table(["generator", "normal, float64", "normal, float32", "bit", "addressed"], rows),
    ]


def _judged(ratio: Ratio, target: float | None) -> str:
    """A ratio, and its target where it is missed."""
    if target is None or ratio.median >= target:
        return str(ratio)
    return f"{ratio} **below {target:g}**"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: Any) -> Any:
    """Named tuples as objects, whatever they hold."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
