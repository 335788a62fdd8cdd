"""Other simulators at the best of their settings: Sionna's physical layer, and scikit-commpy's soft demapper."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import torch

from benchmarks.timing import Stopwatch, Subject
from link.constellation import bits_per_symbol, max_log_llr
from link.snr import no_from_esn0_db

COMMPY: Final = "scikit-commpy==0.8.0"


class Sionna:
    """Bits, Mapper, AWGN, Demapper("maxlog"): one constellation at one SNR, in complex64 on one thread.

    Parameters
    ----------
    order : int
        Of the constellation.
    snr_db : float
        Es/N0, dB.
    device : str
        As torch names it.
    """

    def __init__(self, order: int, snr_db: float, device: str = "cpu") -> None:
        mapping, channel = _import_sionna()
        self.width = bits_per_symbol(order)
        self.order = order
        self.source = mapping.BinarySource(precision="single", device=device)
        self.mapper = mapping.Mapper("qam", self.width, precision="single", device=device)
        self.channel = channel.AWGN(precision="single", device=device)
        self.demapper = mapping.Demapper("maxlog", "qam", self.width, precision="single", device=device)
        self.no = torch.tensor(no_from_esn0_db(snr_db), dtype=torch.float32, device=device)

    def llrs(self, bits: torch.Tensor) -> torch.Tensor:
        """LLRs of bits that were sent."""
        found: torch.Tensor = self.demapper(self.channel(self.mapper(bits), self.no), self.no)
        return found

    def errors(self, bits: torch.Tensor) -> torch.Tensor:
        """How many bits are decided wrongly."""
        return ((self.llrs(bits) > 0.0) != (bits > 0.0)).sum()

    def subject(self, name: str, batch: int, work: Callable[[torch.Tensor], object], settings: str) -> Subject:
        """New bits, and what is to be done with them, for so many symbols at once."""

        def run() -> object:
            with torch.no_grad():
                return work(self.source([1, batch * self.width]))

        return Subject(name, f"batch {batch}, {settings}", run, batch)

    def best(self, watch: Stopwatch, batches: Sequence[int], compile_too: bool) -> tuple[list[Subject], str]:
        """LLRs, and counts of errors, at the fastest settings of torch.compile and of none; and what the compiler said.

        The compiler is asked for code for any batch, then for code for the fastest batch alone.
        """
        case = f"search {self.order}-QAM"
        eager = watch.fastest(case, [self.subject("sionna eager", batch, self.llrs, "eager") for batch in batches])
        plain = [eager, self.subject("sionna eager counting", eager.units, self.errors, "eager")]
        if not compile_too:
            return [same._replace(name=same.name.replace(" eager", "")) for same in plain] + plain, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the compiler says of complex numbers
                return self._compiled(watch, case, batches) + plain, ""
        except Exception as error:  # a compiler that is absent or fails has errors of many kinds
            trouble = f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}"
            return self.best(watch, batches, compile_too=False)[0], trouble

    def _compiled(self, watch: Stopwatch, case: str, batches: Sequence[int]) -> list[Subject]:
        torch.compiler.reset()  # it compiles a function eight times and no more
        name, note = "sionna", "compiled for any batch"
        anywhere = torch.compile(self.llrs, dynamic=True)
        found = watch.fastest(case, [self.subject(name, batch, anywhere, note) for batch in batches])
        there = self.subject(name, found.units, torch.compile(self.llrs, dynamic=False), "compiled for this batch")
        best = watch.fastest(case, [found, there])
        counting = torch.compile(self.errors, dynamic=best is found)
        return [best, self.subject("sionna counting", best.units, counting, best.settings.partition(", ")[2])]

    def same_llrs(self, symbols: int = 64) -> float:
        """Greatest difference between Sionna's LLRs and hardpath's of the same reception, relative to the greatest LLR."""
        with torch.no_grad():
            bits = self.source([1, symbols * self.width])
            y = self.channel(self.mapper(bits), self.no)
            theirs = self.demapper(y, self.no).numpy().reshape(symbols, self.width)
        pairs = torch.view_as_real(y[0]).numpy()
        ours = max_log_llr(pairs, np.full(symbols, self.no.item(), np.float32), self.order)
        return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def _import_sionna() -> tuple[Any, Any]:
    """sionna.phy.mapping and .channel, imported without the new seed that they give torch's global generator."""
    state = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sionna.phy import channel, mapping
    torch.random.set_rng_state(state)
    return mapping, channel


_COMMPY_SERVER: Final = """
import json, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
from commpy.modulation import QAMModem
from importlib.metadata import version
order, symbols, no = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
modem = QAMModem(order)
random = np.random.default_rng(0)
energy = modem.Es
width = order.bit_length() - 1
print(json.dumps({"version": version("scikit-commpy"), "numpy": np.__version__}), flush=True)
for _ in sys.stdin:
    bits = random.integers(0, 2, symbols * width)
    x = modem.modulate(bits)
    noise = random.standard_normal((2, symbols)) * np.sqrt(0.5 * no * energy)
    modem.demodulate(x + noise[0] + 1j * noise[1], "soft", no * energy)
    print("done", flush=True)
"""


class CommPy:
    """scikit-commpy in an interpreter of its own, which does the same work whenever it is told to; a context manager."""

    def __init__(self, python: Path, order: int, snr_db: float, symbols: int) -> None:
        self._command = [str(python), "-c", _COMMPY_SERVER, str(order), str(symbols), str(no_from_esn0_db(snr_db))]
        self._symbols = symbols
        self._open = ExitStack()

    def __enter__(self) -> Subject:
        pipe = subprocess.PIPE
        process = self._open.enter_context(subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True))
        source, sink = process.stdin, process.stdout
        assert source is not None
        assert sink is not None
        versions = json.loads(sink.readline())

        def run() -> str:
            source.write("go\n")
            source.flush()
            return sink.readline()

        settings = f"batch {self._symbols}, scikit-commpy {versions['version']}, numpy {versions['numpy']}"
        return Subject("scikit-commpy", settings, run, self._symbols)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def commpy_python(folder: Path) -> Path | None:
    """The interpreter of an environment with scikit-commpy, made where it is absent; None where it cannot be."""
    python = folder / "commpy" / "bin" / "python"
    check = [str(python), "-c", "import commpy"]
    if python.exists() and subprocess.run(check, capture_output=True).returncode == 0:
        return python
    install = [str(python), "-m", "pip", "install", "--quiet", COMMPY]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder / "commpy")], install, check):
        if subprocess.run(command, capture_output=True).returncode:
            return None
    return python
