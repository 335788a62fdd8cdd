"""What a malformed request is answered with, and whether that tells its sender what is wrong."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

_SAYS_WHAT_IS_ALLOWED: Final = re.compile(r"\b(must|should|is missing|are missing|is unknown|does not|is set twice)\b")


class Answer(NamedTuple):
    """A status: name, message, and field and text of the violation where there is one."""

    code: str
    message: str
    field: str
    allowed: str

    def complaint(self, *, names_a_field: bool = True) -> str:
        """What is wrong with it; empty where nothing is.

        Parameters
        ----------
        names_a_field : bool
            Whether it ought to: the request could be read.
        """
        if self.code in ("OK", "NOT_FOUND"):
            return ""
        if self.code != "INVALID_ARGUMENT":
            return f"{self.code}: {self.message}"
        if names_a_field and not self.field:
            return f"INVALID_ARGUMENT without a field: {self.message}"
        if not _SAYS_WHAT_IS_ALLOWED.search(self.allowed):
            return f"INVALID_ARGUMENT without what is allowed: {self.field} {self.allowed or self.message}"
        return ""


OK: Final = Answer("OK", "", "", "")


def answer_of(error: Any) -> Answer:
    """The answer that a call ended with."""
    code, message = error.code().name, error.details() or ""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad) and bad.field_violations:
            return Answer(code, message, bad.field_violations[0].field, bad.field_violations[0].description)
    return Answer(code, message, "", "")
