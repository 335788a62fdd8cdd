"""A server under test: a process of its own, with what it started, on this machine."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import grpc
import psutil  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.serving.load import Call
from benchmarks.serving.subjects import Command

MIB: Final = 2**20
_END_S: Final = 20.0
_POLL_S: Final = 0.01
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class Process:
    """A running server; as a context manager it is ended, and all that it started, at the end of the block.

    Parameters
    ----------
    command : Command
    probe : Call, optional
        It is ready once this is answered; where absent, once its health says SERVING.
    ready_s : float
        Longest wait until calls are answered.

    Attributes
    ----------
    address : str
        host:port
    ready_after_s : float
        From the start of the process until calls were answered.

    Raises
    ------
    RuntimeError
        If it ends, or does not answer in time: with the last of what it wrote to standard error.
    """

    def __init__(self, command: Command, probe: Call | None = None, ready_s: float = 60.0) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self._seen: dict[int, psutil.Process] = {}
        environment = {**os.environ, **command.environment}
        started = time.perf_counter()
        self._popen = subprocess.Popen(
            command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if command.address is None else self._errors,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        try:
            self.address = command.address or self._printed()
            self._wait(probe, started + ready_s)
        except BaseException:
            self.stop()
            raise
        self.ready_after_s = time.perf_counter() - started

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def cpu_s(self) -> float:
        """CPU seconds so far, of the process and all that it started."""
        total = 0.0
        for process in self._family():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def resident_mib(self) -> float:
        """Resident memory of the process and all that it started, MiB; what they share is counted for each."""
        total = 0
        for process in self._family():
            with suppress(psutil.Error):
                total += process.memory_info().rss
        return total / MIB

    def peak_mib(self) -> float:
        """Most resident memory that the process itself ever had, MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL for whatever is left; twice is once."""
        if self._errors.closed:
            return
        family = self._family()
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_END_S)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        self._popen.wait()
        psutil.wait_procs(family, _END_S)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        self._errors.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _family(self) -> list[psutil.Process]:
        """The process and all that it ever started, as far as it was seen; those of a dead parent too."""
        with suppress(psutil.Error):
            parent = psutil.Process(self.pid)
            self._seen |= {one.pid: one for one in (parent, *parent.children(recursive=True))}
        return list(self._seen.values())

    def _printed(self) -> str:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            text = line.decode(errors="replace")
            if " on " in text:
                return text.rsplit(" on ", 1)[1].split()[0]
        raise RuntimeError(f"it ended before it listened: {self._last_words()}")

    def _wait(self, probe: Call | None, until: float) -> None:
        """Until it answers."""
        while time.perf_counter() < until:
            if self._popen.poll() is not None:
                raise RuntimeError(f"it ended before it answered: {self._last_words()}")
            with suppress(grpc.RpcError):
                if _serving(self.address) if probe is None else ask(self.address, probe):
                    return
            time.sleep(_POLL_S)
        raise RuntimeError(f"it did not answer in time: {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def ask(address: str, call: Call, timeout_s: float = 10.0) -> bytes:
    """The reply to a call, serialized.

    Raises
    ------
    grpc.RpcError
        If there is none.
    """
    # A channel of its own: one that has failed waits longer and longer before it tries again.
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        reply: bytes = channel.unary_unary(call.method, None, None)(call.body, timeout=timeout_s)
        return reply


def _serving(address: str) -> bool:
    """Whether its health says so."""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
