"""What a receiver answers, as the manifest says it: one of some classes, or a text; and what it has of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TextSpec(_Frozen):
    """A text as an answer: pieces of the bundle's tokenizer, one a position, to the first that is the end.

    Attributes
    ----------
    positions : int
        T: most pieces, the end included.
    pieces : int
        How many there are to choose from.
    end_id : int
        Of the end.
    """

    positions: Annotated[int, Field(ge=1, le=65536)]
    pieces: Annotated[int, Field(ge=2)]
    end_id: Annotated[int, Field(ge=0)]


class SequenceSpec(_Frozen):
    """What follows a receiver of windows: the tables by which a recording's windows are decided together (link.sequence).

    Attributes
    ----------
    parts : tuple of str
        Of `hdp` and `hsmm`.
    """

    file: Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,255}$")] = "sequence.npz"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parts: Annotated[tuple[Literal["hdp", "hsmm"], ...], Field(min_length=1)]


class TaskSpec(_Frozen):
    """What a receiver answers: one of the classes, or a text.

    Attributes
    ----------
    classes : tuple of str
        Empty where it is a text.
    question : str or None
        Which of the task's questions, where one input is asked several.
    text : TextSpec or None
        None where it is a class.
    receiver_inputs : tuple of str
        Side inputs: what the receiver has of its own, beside what it receives. An input of the graph that is neither is
        refused, and a manifest without any does not tell of them.
    sequence : SequenceSpec or None
        None where samples are decided one by one.
    """

    name: str
    classes: tuple[str, ...]
    question: str | None = None
    text: TextSpec | None = Field(default=None, exclude_if=lambda text: text is None)
    receiver_inputs: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    sequence: SequenceSpec | None = Field(default=None, exclude_if=lambda sequence: sequence is None)

    @property
    def positions(self) -> int:
        """Decisions of an answer: the positions of a text, or 0 for one class, which has none."""
        return 0 if self.text is None else self.text.positions

    @property
    def choices(self) -> int:
        """What each decision is one of: classes, or pieces."""
        return len(self.classes) if self.text is None else self.text.pieces

    @model_validator(mode="after")
    def _check_answer(self) -> TaskSpec:
        if self.text is not None and self.sequence is not None:
            raise ValueError("task: texts are not decided as windows of a recording are")
        if self.text is not None and self.classes:
            raise ValueError(f"task: answers a text or one of {len(self.classes)} classes, not both")
        if self.text is not None and self.text.end_id >= self.text.pieces:
            raise ValueError(f"task: end_id must be below {self.text.pieces}, got {self.text.end_id}")
        return self
