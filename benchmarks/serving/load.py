"""Load on a gRPC server by h2load: one unary call, again and again, so many in flight on so many connections.

h2load reads HTTP statuses and not grpc-status, so a refusal looks like an answer to it. What it counts are bytes, and a
refusal carries none: the replies that were answered are those bytes over the size of one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

FRAME_BYTES: Final = 5
"""In front of each gRPC message: a flag, and its length."""


class Call(NamedTuple):
    """A unary call as it goes over the wire.

    Attributes
    ----------
    method : str
        Path: /package.Service/Method
    body : bytes
        The request, serialized.
    samples : int
        What one call carries.
    """

    method: str
    body: bytes
    samples: int = 1


class Load(NamedTuple):
    """How many calls are in flight at a time, shared out among connections."""

    in_flight: int
    connections: int = 1


class Answered(NamedTuple):
    """What came of a load.

    Attributes
    ----------
    calls : int
        HTTP exchanges that ended.
    seconds : float
    data_bytes : int
        Of replies, frames of gRPC included, headers excluded.
    failed : int
        HTTP exchanges that failed.
    p50_ms, p99_ms : float
        From request to the end of the reply.
    """

    calls: int
    seconds: float
    data_bytes: int
    failed: int
    p50_ms: float
    p99_ms: float

    def answered(self, reply_bytes: int) -> float:
        """Share of the calls whose reply had a message, where one takes `reply_bytes`."""
        return self.data_bytes / (self.calls * (reply_bytes + FRAME_BYTES))


def h2load(address: str, call: Call, load: Load, seconds: float, folder: Path) -> Answered:
    """Load a server for so many seconds.

    Parameters
    ----------
    address : str
        host:port
    folder : path
        For the request and h2load's log.

    Raises
    ------
    RuntimeError
        If h2load is absent or fails.
    """
    program = shutil.which("h2load")
    if program is None:
        raise RuntimeError("h2load is absent: install Debian's nghttp2-client")
    body, log = folder / "body", folder / "log"
    body.write_bytes(b"\0" + len(call.body).to_bytes(4, "big") + call.body)
    log.unlink(missing_ok=True)
    command = [
        program,
        *("--duration", f"{1e3 * seconds:.0f}ms"),
        *("--clients", str(load.connections)),
        *("--max-concurrent-streams", str(load.in_flight // load.connections)),
        *("--data", str(body)),
        *("--log-file", str(log)),
        *("--header", "content-type: application/grpc"),
        *("--header", "te: trailers"),
        f"http://{address}{call.method}",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"h2load: {ended.stderr.strip() or ended.stdout.strip()}")
    return read_report(ended.stdout, log.read_text(encoding="ascii").splitlines())


def read_report(report: str, log: Sequence[str]) -> Answered:
    """What h2load printed, and the lines of its log: start in us, HTTP status, duration in us.

    Raises
    ------
    RuntimeError
        If it is not h2load's, or nothing was answered.
    """
    finished = re.search(r"finished in ([\d.]+)(us|ms|s|m)\b", report)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", report)
    traffic = re.search(r"\((\d+)\) data", report)
    durations = [int(duration) for _, status, duration in (line.split("\t") for line in log) if status == "200"]
    if finished is None or counts is None or traffic is None or not durations:
        raise RuntimeError(f"h2load had no answer: {report.strip()}")
    seconds = float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[finished[2]]
    p50, p99 = np.percentile(durations, [50.0, 99.0]) / 1e3
    return Answered(int(counts[2]), seconds, int(traffic[1]), int(counts[3]), float(p50), float(p99))
