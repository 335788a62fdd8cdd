"""Bearer tokens: a file of their hashes, read again when it changes, and the search that tells nobody how near it was.

    # tokens.toml: one line a token, as new_token writes it
    camera = { sha256 = "2bb8...", permissions = ["infer"] }
    operator = { sha256 = "9f86...", permissions = ["infer", "admin"] }

A token is 256 random bits, which no search can find from its hash: so the hash needs no salt, and the file may be read. It
must not be written by others, who could let themselves in.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import stat
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from link.errors import ArgumentError, ServerError
from serve.security.watched import Unusable, read_file, state_of

logger = logging.getLogger(__name__)

Permission = Literal["infer", "admin"]
PREFIX: Final = "hardpath_"
"""Of every token, so that scanners for secrets find one that was left in public."""

_TOKEN_BYTES: Final = 32


class NewToken(NamedTuple):
    """A token, to be given to its owner and kept nowhere else, and its line of the file."""

    token: str
    line: str


class Token(BaseModel):
    """A token as the file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    permissions: tuple[Permission, ...]


class Caller(NamedTuple):
    """Whose token it is, and what it permits."""

    name: str
    permissions: frozenset[str]


_NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
Name = Annotated[str, Field(pattern=_NAME.pattern)]
_FILE: Final = TypeAdapter(dict[Name, Token])


def new_token(name: str, permissions: Sequence[Permission] = ("infer",)) -> NewToken:
    """Draw a token and write its line for the file.

    Parameters
    ----------
    name : str
        Of its owner, for the file and the log: letters, digits, - and _.
    permissions : sequence of str
        Of "infer" and "admin".

    Raises
    ------
    ArgumentError
        If the file could not hold the name.

    Examples
    --------
    >>> token, line = new_token("camera")
    >>> token.startswith("hardpath_"), token in line
    (True, False)
    """
    if not _NAME.fullmatch(name):
        raise ArgumentError("name", f"must be 1 to 64 letters, digits, - and _, the first no - or _, got {name!r}")
    token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    granted = ", ".join(f'"{permission}"' for permission in permissions)
    return NewToken(token, f'{name} = {{ sha256 = "{_digest(token).hex()}", permissions = [{granted}] }}')


class Tokens:
    """The tokens of a file.

    Parameters
    ----------
    file : Path
    interval_s : float
        Seconds from one look at the file to the next.

    Raises
    ------
    ServerError
        If the file cannot be read, others may write it, or an entry is wrong.
    """

    def __init__(self, file: Path, interval_s: float) -> None:
        self._file = file
        self._interval_s = interval_s
        self._state = state_of(file)
        self._look_at = time.monotonic() + interval_s
        try:
            self._entries = _load(file)
        except Unusable as error:
            raise ServerError(f"cannot serve with tokens: {error}") from None

    def find(self, token: str) -> Caller | None:
        """Whose token it is; None where nobody's. Takes as long whichever it is, or none."""
        self._look()
        digest = _digest(token)
        found = None
        for expected, caller in self._entries:
            if hmac.compare_digest(expected, digest):
                found = caller
        return found

    def refresh(self) -> None:
        """Read the file again; what cannot be used is told in the log, and the old tokens go on."""
        self._state = state_of(self._file)
        try:
            self._entries = _load(self._file)
        except Unusable as error:
            logger.error("the new tokens are refused, the old ones go on: %s", error)
        else:
            logger.info("tokens read again from %s: %d", self._file, len(self._entries))

    def _look(self) -> None:
        """Read the file again where it is time to look at it, and it has changed."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._interval_s
        if state_of(self._file) != self._state:
            self.refresh()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _load(file: Path) -> tuple[tuple[bytes, Caller], ...]:
    content = read_file(file)
    if state_of(file).mode & stat.S_IWOTH:
        raise Unusable(f"{file} can be written by every user of this machine: chmod o-w {file}")
    try:
        entries = _FILE.validate_python(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        raise Unusable(f"{file}: {_reason(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"{file} is no TOML: {error}") from None
    if not entries:
        raise Unusable(f"{file} holds no token, so that nobody could call; add a line")
    hashes = [token.sha256 for token in entries.values()]
    if len(set(hashes)) != len(hashes):
        raise Unusable(f"{file}: two names have one token; give each its own")
    return tuple(
        (bytes.fromhex(token.sha256), Caller(name, frozenset(token.permissions))) for name, token in entries.items()
    )


def _reason(error: ValidationError) -> str:
    """The first mistake, without its value: it might be a token."""
    first = error.errors(include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    return f"{where}: {first['msg']}"
