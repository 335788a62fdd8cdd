"""GNU Radio between two ends of ours: a flowgraph in a process of its own, under the system's Python.

    front end ──> ZMQ ──> GNU Radio: stage, stage, ... ──> ZMQ ──> front end

GNU Radio needs another NumPy than this project and is never imported here. The flowgraph ends with the block that started
it, and with this process where that is killed.

    with Flowgraph([channel_model(noise_voltage=0.1)]) as graph, frontend_spec("zmq", graph.options).build() as radio:
        ...

Without impairments `channel_model` gives back what was sent, from sample `AHEAD` on: its resampler swallows those before.
The last samples stay inside, since a stream that only pauses has no end: it takes `PAD` more to get all of them out. One
seed gives the same bytes however the stream is cut; behind a frequency offset all but the last bit of a few samples.
"""

from __future__ import annotations

import json
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NamedTuple

SYSTEM_PYTHON: Final = "/usr/bin/python3"
START_S: Final = 60.0
"""Longest that it may take to run; GNU Radio's first import on a cold machine takes ten seconds."""
END_S: Final = 5.0
AHEAD: Final = 3
"""Samples that `channel_model` swallows at the start, measured (3.10.5): sample n comes out as number n - 3."""
PAD: Final = 8
"""Samples sent that do not come out of it until more are sent, those at the start included; measured."""
_SCRIPT: Final = Path(__file__).with_name("gnuradio_flowgraph.py")


class Stage(NamedTuple):
    """A block of the flowgraph.

    Attributes
    ----------
    name : str
        Of `gnuradio_flowgraph.STAGES`.
    options : dict
        As that block names them; complex numbers as pairs.
    """

    name: str
    options: dict[str, Any]


def channel_model(
    noise_voltage: float = 0.0,
    frequency_offset: float = 0.0,
    epsilon: float = 1.0,
    taps: Sequence[complex] = (1.0,),
    seed: int = 1,
) -> Stage:
    """GNU Radio's `channels.channel_model`.

    Parameters
    ----------
    noise_voltage : float
        Root of N0, the variance of the noise on a complex sample.
    frequency_offset : float
        Cycles a sample.
    epsilon : float
        Ratio of the sampling clocks: 1.0001 is 100 ppm.
    taps : sequence of complex
        Impulse response, at the sampling rate.
    seed : int
        Of the noise, which has 16,384 values in all: GNU Radio draws from a pool.
    """
    return Stage(
        "channel_model",
        {
            "noise_voltage": noise_voltage,
            "frequency_offset": frequency_offset,
            "epsilon": epsilon,
            "taps": [(complex(tap).real, complex(tap).imag) for tap in taps],
            "seed": seed,
        },
    )


UNLIKE: Final = (
    Stage("iq_imbalance", {"gain_db": 0.3, "phase_deg": 2.0}),
    Stage("cubic", {"beta": 0.01}),
    Stage(
        "selective_fading",
        {
            "sinusoids": 8,
            "doppler": 1e-7,
            "line_of_sight": True,
            "k": 8.0,
            "seed": 5,
            "delays": [0.0, 1.3, 3.7],
            "magnitudes": [1.0, 0.3, 0.1],
            "taps": 12,
        },
    ),
    Stage("frequency_drift", {"rate_hz": 1.0, "step_hz": 1e-9, "most_hz": 1e-4, "seed": 6}),
    Stage("phase_noise", {"magnitude": 0.05, "alpha": 0.01}),
    Stage("clock_drift", {"rate_hz": 1.0, "step_hz": 1e-10, "most_hz": 2e-5, "seed": 7}),
    Stage("noise", {"distribution": "uniform", "amplitude": 0.02, "seed": 8}),
    Stage("offset", {"value": (0.01, -0.02)}),
    Stage("quantizer", {"bits": 8, "full_scale": 4.0}),
)
"""A link that is very unlike `channel_model`: a radio's impairments at both ends, and fading that moves."""


class Flowgraph:
    """A running flowgraph; a context manager, which ends it.

    Parameters
    ----------
    stages : sequence of Stage
        What samples go through; as they came where there is none.
    pattern : str
        push-pull or request-reply.
    source : str, optional
        Endpoint that it connects to, for samples; one of its own where absent.
    sink : str
        Endpoint that it binds, for what comes out.
    dies_after : int, optional
        Samples after which the process ends without a word.

    Attributes
    ----------
    source, sink : str
        Endpoints in use.

    Raises
    ------
    RuntimeError
        If it does not run in time: with what it wrote.
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        pattern: str = "push-pull",
        source: str | None = None,
        sink: str = "tcp://127.0.0.1:*",
        dies_after: int | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hardpath-") if source is None else None
        self._stages, self._dies_after = list(stages), dies_after
        self.pattern, self.sink = pattern, sink
        self.source = f"ipc://{self._folder.name}/source" if self._folder is not None else str(source)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def options(self) -> dict[str, str]:
        """Of the ZMQ front end at its other side."""
        return {"send": self.source, "recv": self.sink, "pattern": self.pattern}

    @property
    def pid(self) -> int | None:
        """Its process, where it has one."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Run it; once more, at the endpoints that it had, after `kill` or `stop`."""
        options = {
            "pattern": self.pattern,
            "source": self.source,
            "sink": self.sink,
            "stages": self._stages,
            "dies_after": self._dies_after,
        }
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, "-I", str(_SCRIPT), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.sink = self._announced()

    def _announced(self) -> str:
        """Endpoint that it says it is bound to; GNU Radio may write lines of its own before."""
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + START_S
        written = b""
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._process.stdout], [], [], left)[0]:
                break
            if not (line := self._process.stdout.readline()):
                break
            if line.startswith(b"{"):
                return str(json.loads(line)["sink"])
            written += line
        raise RuntimeError(f"the flowgraph does not run: {(written + self._log()).decode(errors='replace')}")

    def _log(self) -> bytes:
        self._errors.seek(0)
        return self._errors.read()

    def kill(self) -> None:
        """End it as a crash would: nothing is handed on, nobody is told."""
        if self._process is not None:
            self._process.kill()
            self._let_go()

    def stop(self) -> None:
        """End it as it would end itself, and kill it where it does not."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._let_go()

    def _let_go(self) -> None:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def __enter__(self) -> Flowgraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._errors.close()
        if self._folder is not None:
            self._folder.cleanup()
