"""The server's log: one line a record, as text or as JSON, that no request can forge or fill, nor leave its payload in.

- A line is a record and a record is a line: whatever moves the cursor is escaped, and a traceback's lines are marked.
- Of a kind of record (logger, template, status code) that comes too often most are left out, and the next one says how many.
- What an exception says may quote a request (`could not convert string to float: '...'`). So of one that is not known to say
  nothing of the kind, the log has the type and where it was raised, and not the message.

Calls that end well are logged at DEBUG, those that fail at INFO, and what is the server's own fault at ERROR.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TextIO
from uuid import uuid4

from link.errors import ArgumentError, HardpathError

FIELDS: Final = ("request_id", "model", "method", "code", "duration_ms", "peer", "left_out")
"""What a record may say beside its message, given as `extra`."""
REQUEST_ID: Final = "x-request-id"
"""Metadata in which a caller may name its request."""
BURST: Final = 10
"""Records of one kind that are logged whatever the rate."""
PER_SECOND: Final = 1.0
"""Records of one kind that are logged after these, on average."""

_OWN: Final = frozenset({"hardpath", "link", "serve"})
_KINDS: Final = 1024
_FRAMES: Final = 40
_CAUSES: Final = 8
_TEXT_LENGTH: Final = 2000
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PLAIN: Final = re.compile(r"[\w.:/\[\]%+-]+")
_FAULTS: Final = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})
_WITHHELD: Final = "(message withheld: it may quote a request)"

Kind = tuple[Any, ...]


class Peer(NamedTuple):
    """Who called, as the transport has it, and what the request is called."""

    address: str
    request_id: str


class Allowance:
    """How often each kind of record may be logged: a burst, then a rate. Any thread may ask."""

    def __init__(
        self, burst: int = BURST, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[Kind, tuple[float, float, int]] = {}  # tokens, when, left out since

    def take(self, kind: Kind) -> int | None:
        """How many of the kind were left out before this one; None where this one is to be left out too."""
        now = self._clock()
        with self._lock:
            if kind not in self._left and len(self._left) >= _KINDS:
                kind = ()
            tokens, when, left_out = self._left.get(kind, (float(self._burst), now, 0))
            tokens = min(float(self._burst), tokens + self._per_second * (now - when))
            if tokens < 1.0:
                self._left[kind] = (tokens, now, left_out + 1)
                return None
            self._left[kind] = (tokens - 1.0, now, 0)
            return left_out

    def owed(self) -> Iterator[tuple[Kind, int]]:
        """Each kind of which some were left out and nothing was said, with how many; said now."""
        with self._lock:
            owed = [(kind, left_out) for kind, (_, _, left_out) in self._left.items() if left_out]
            for kind, _ in owed:
                tokens, when, _ = self._left[kind]
                self._left[kind] = (tokens, when, 0)
        yield from owed


class FloodFilter(logging.Filter):
    """Leaves out what comes too often, below DEBUG nothing; for a handler."""

    def __init__(self, allowance: Allowance | None = None) -> None:
        super().__init__()
        self.allowance = allowance or Allowance()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG or hasattr(record, "left_out"):  # counted already
            return True
        left_out = self.allowance.take((record.name, record.msg, getattr(record, "code", "")))
        if left_out:
            record.left_out = left_out
        return left_out is not None


class OwnDebug(logging.Filter):
    """Leaves out what other packages log at DEBUG; for a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG or record.name.partition(".")[0] in _OWN


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII: time (RFC 3339, UTC), level, logger, message, what FIELDS names, exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = "\n".join(_trace(record.exc_info[1]))
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, logger, message and `name=value` on one line; a traceback on lines that begin with `    | `."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        lines = [f"{_time(record)} {record.levelname} {record.name}: {_cut(record.getMessage())}{fields}"]
        if record.exc_info and record.exc_info[1] is not None:
            lines += (f"    | {line}" for line in _trace(record.exc_info[1]))
        return "\n".join(map(_printable, lines))


class AccessLog:
    """A line for each call that failed, and at DEBUG for each that did not.

    Parameters
    ----------
    logger : logging.Logger
    allowance : Allowance, optional
        Of lines with one status code. It is asked before a record is made, since of a flood of refusals each must be cheap.
    """

    def __init__(self, logger: logging.Logger | None = None, allowance: Allowance | None = None) -> None:
        self._logger = logger or logging.getLogger("serve.access")
        self.allowance = allowance or Allowance()

    def ended(
        self,
        method: str,
        code: str,
        duration_ns: int,
        *,
        model: str = "",
        peer: Callable[[], Peer] | None = None,
    ) -> None:
        """A call has ended.

        Parameters
        ----------
        method : str
            As the server names it, not as a caller wrote it.
        code : str
            Name of its gRPC status: OK, INVALID_ARGUMENT, ...
        duration_ns : int
        model : str
            Its operation, where there is one.
        peer : callable, optional
            Tells who called; asked only where there is a line to write.
        """
        level = logging.DEBUG if code == "OK" else logging.ERROR if code in _FAULTS else logging.INFO
        if not self._logger.isEnabledFor(level):
            return
        left_out = 0 if level == logging.DEBUG else self.allowance.take((code,))
        if left_out is None:
            return
        who = peer() if peer is not None else Peer("", "")
        extra = {
            "method": method,
            "code": code,
            "duration_ms": round(1e-6 * duration_ns, 3),
            "model": model,
            "request_id": who.request_id,
            "peer": who.address,
            "left_out": left_out,
        }
        self._logger.log(level, "call ended", extra=extra)

    def report(self) -> None:
        """Say how many lines were left out that nothing was said of: now and then, and at the end."""
        for (*code,), left_out in self.allowance.owed():
            self._logger.info("calls left out", extra={"code": " ".join(code), "left_out": left_out})


def configure(
    style: Literal["text", "json"] = "text", level: str = "info", stream: TextIO | None = None
) -> logging.Handler:
    """Log to a stream from now on, in place of whatever was configured; for the command, and for nothing else to call.

    Parameters
    ----------
    style : str
        "text" or "json".
    level : str
        Least severity: "debug", of hardpath's own packages alone, "info", "warning" or "error".
    stream : file, optional
        Standard error where absent.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(OwnDebug())
    handler.addFilter(FloodFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    return handler


def request_id_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """What the caller calls its request, where that is 1 to 64 letters, digits, `.`, `_` and `-`; else one drawn here."""
    for name, value in metadata or ():
        if name == REQUEST_ID and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return uuid4().hex


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, str | int | float]:
    given = {name: getattr(record, name, None) for name in FIELDS}
    return {
        name: value if isinstance(value, int | float) else _cut(str(value)) for name, value in given.items() if value
    }


def _trace(error: BaseException, depth: int = 0) -> Iterator[str]:
    """A traceback's lines, first what caused it; of messages only those that quote no request."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < _CAUSES:
        yield from _trace(cause, depth + 1)
        yield "which led to"
    for frame in traceback.extract_tb(error.__traceback__, limit=-_FRAMES):
        yield f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
    if isinstance(error, BaseExceptionGroup) and depth < _CAUSES:
        for part in error.exceptions[:_CAUSES]:
            yield from _trace(part, depth + 1)
    yield f"{type(error).__module__}.{type(error).__qualname__}: {_cut(_message(error))}"


def _message(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or _WITHHELD
    ours = isinstance(error, HardpathError) and not isinstance(error, ArgumentError)  # which names what it got
    runtimes = type(error).__module__.startswith("onnxruntime")  # nodes and shapes
    return str(error) if ours or runtimes else _WITHHELD


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else f"{text[: _TEXT_LENGTH - 3]}..."


def _quoted(value: str | int | float) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
