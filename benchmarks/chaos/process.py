"""A server in a process of its own, to be watched, signalled and killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import psutil  # type: ignore[import-untyped]

START_S: Final = 60.0
"""Longest that a server may take to answer, or to end; a hang is then told from a slow machine."""
_TRACEBACK: Final = "Traceback (most recent call last)"


class ServerProcess:
    """`hardpath serve`, ready to answer; killed at the end of the block where it still runs.

    Parameters
    ----------
    bundle : path
    port : int
        0 takes a free one.
    options : sequence of str
        More options of the command.
    ready : bool
        Whether to wait until it answers.

    Attributes
    ----------
    address : str
        Where it listens; empty until it is ready.

    Raises
    ------
    RuntimeError
        If it ends, or does not answer within a minute.
    """

    def __init__(self, bundle: Path | str, port: int = 0, *options: str, ready: bool = True) -> None:
        command = [sys.executable, "-m", "hardpath", "serve", str(bundle), "--port", str(port), *options]
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self.address = ""
        self.pid = self._process.pid
        if ready:
            try:
                self.wait_until_ready()
            except RuntimeError:
                self.__exit__(None, None, None)
                raise

    @property
    def port(self) -> int:
        """TCP port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def wait_until_ready(self) -> None:
        """Until it has said where it answers."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if readable else ""
        if " on " not in line:
            raise RuntimeError(f"the server did not start; it said: {line}{self.log()}")
        self.address = line.rpartition(" on ")[2].strip()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Exit code, once it has ended; negative where a signal ended it.

        Raises
        ------
        RuntimeError
            If it goes on for a minute.
        """
        try:
            return self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the server did not end within {START_S:g} s") from None

    def terminate(self) -> int:
        """SIGTERM; the exit code once it has ended."""
        self.signal(signal.SIGTERM)
        return self.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def rss_mb(self) -> float:
        """Resident memory, megabytes."""
        return float(psutil.Process(self.pid).memory_info().rss) / 1e6

    @property
    def cpu_s(self) -> float:
        """Processor time so far, user and system, seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def open_files(self) -> int:
        """Descriptors in use, sockets included."""
        return int(psutil.Process(self.pid).num_fds())

    @property
    def peers(self) -> set[int]:
        """Ports of those who are connected to it."""
        connections = psutil.Process(self.pid).net_connections("tcp")
        return {c.raddr.port for c in connections if c.status == psutil.CONN_ESTABLISHED and c.raddr}

    def log(self) -> str:
        """What it has written to standard error."""
        self._errors.flush()
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def tracebacks(self) -> int:
        """Defects that its log tells of."""
        return self.log().count(_TRACEBACK)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
