"""What follows the receiver of single windows, as a section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from train.section import Positive, Section, Weight


class SequenceRecipe(Section):
    """What follows the receiver of single windows.

    Attributes
    ----------
    parts : tuple of str
        Of `hdp` and `hsmm`; none where windows are decided by themselves.
    behaviours : int
        Truncation of the HDP.
    gamma, alpha, eta : float
        Its concentrations: of the corpus, of a recording, of the codes (train.hdp).
    longest : int
        Windows that a table of durations tells apart.
    durations : str
        Their law.
    begins : str
        Whether recordings begin at a `boundary` of a behaviour or in the `middle` of one.
    stage_epochs, batch_recordings : int
    stage_learning_rate : float
        Of the stage alone; the codec has learned.
    lambda_hdp : float
        Of the ELBO, a window.
    """

    parts: tuple[Literal["hdp", "hsmm"], ...] = ()
    behaviours: Annotated[int, Field(ge=2, le=256)] = 24
    gamma: Positive = 2.0
    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0
    eta: Positive = 0.1
    longest: Annotated[int, Field(ge=1, le=1000)] = 30
    durations: Literal["negative-binomial", "categorical"] = "negative-binomial"
    begins: Literal["boundary", "middle"] = "boundary"
    stage_epochs: Annotated[int, Field(ge=0)] = 6
    batch_recordings: Annotated[int, Field(ge=1)] = 64
    stage_learning_rate: Positive = 1e-2
    lambda_hdp: Weight = 0.02

    @model_validator(mode="after")
    def _check(self) -> SequenceRecipe:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts name one twice: {', '.join(self.parts)}")
        return self
