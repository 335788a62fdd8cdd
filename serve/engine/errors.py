"""What the data plane refuses for reasons of its own; `serve.messages.status` maps them.

HardpathError
└── Refused
    ├── ModelNotFound    no model of that name
    ├── Overloaded       more to do than can be done in time; says when to try again
    ├── NoRadio          a radio is asked for, and there is none
    ├── Expired          the deadline has passed, or would before the reply
    └── ShuttingDown     the server takes no more work
"""

from __future__ import annotations

from collections.abc import Iterable

from link.errors import HardpathError


class Refused(HardpathError):
    """A request that was refused before anything was computed for it."""


class ModelNotFound(Refused):
    """A name that the server has no model for.

    Examples
    --------
    >>> raise ModelNotFound("cats", ["digits", "sst2"])
    Traceback (most recent call last):
    ...
    serve.engine.errors.ModelNotFound: model must be one of digits, sst2, got 'cats'
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"model must be one of {', '.join(known)}, got {name!r}")
        self.name = name


class Overloaded(Refused):
    """More work than the server can do in time.

    Attributes
    ----------
    retry_after_s : float
        When it is likely to have room again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoRadio(Refused):
    """A radio is asked for, and the server has none."""

    def __init__(self) -> None:
        super().__init__("channel must be a simulated one: this server has no radio (radio.file of its configuration)")


class Expired(Refused):
    """The caller's deadline has passed, or would before the reply."""


class ShuttingDown(Refused):
    """The server takes no more work."""
