"""What a probe says of a codebook in evaluation, in words: the four questions of a published system, and its two probes."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from train.collapse_probe import CollapseProbe, Course
from train.probe import CheckpointProbe, Probe
from train.recipe import AlarmRecipe
from train.usage import ALMOST_ALL


class Answer(BaseModel):
    """One question about evaluation, the answer in a word or two, and what was measured.

    Attributes
    ----------
    topic : str
        A name for programs.
    well : bool
        Whether it is as in a healthy run.
    """

    model_config = ConfigDict(frozen=True)

    topic: Literal["course", "same-codes", "drift", "gradient", "training-mode", "frozen-encoder"]
    question: str
    answer: str
    evidence: str
    well: bool


def answers(probe: Probe | None, limits: AlarmRecipe) -> tuple[Answer, ...]:
    """Every question with its answer, of the last checkpoint; none where nothing was measured."""
    if probe is None or probe.collapse is None:
        return ()
    found = probe.collapse
    return (
        _of_course(found.course, limits),
        _of_favourites(found),
        _of_drift(probe.last, found, limits),
        _of_gradient(found),
        _of_training_mode(probe.last, limits),
        _of_frozen_encoder(found),
    )


def _of_course(course: Course, limits: AlarmRecipe) -> Answer:
    least = limits.perplexity_ratio * course.training
    if course.training > 1.0 and course.first < least:
        answer = "at once"
    elif course.training > 1.0 and course.last < least:
        answer = "gradually"
    elif math.log(course.training) < limits.usage_entropy * math.log(course.reachable):
        answer = "no, but few codewords are used in training already"
    else:
        answer = "no collapse"
    return Answer(
        topic="course",
        question="Does usage collapse at once when evaluation starts, or gradually over its batches?",
        answer=answer,
        evidence=f"perplexity {course.first:.1f} in the first of {course.batches} batches of {course.rows} rows, "
        f"{course.middle:.1f} in the middle one, {course.last:.1f} in the last; {course.so_far_first:.1f}, "
        f"{course.so_far_middle:.1f}, {course.so_far_last:.1f} over all rows up to there; a batch of training has "
        f"{course.training:.1f}, and can have {course.reachable}",
        well=answer == "no collapse",
    )


def _of_favourites(found: CollapseProbe) -> Answer:
    two, reachable = found.favourites, found.course.reachable
    same = two.validation >= ALMOST_ALL and reachable > 2
    return Answer(
        topic="same-codes",
        question="Are the same one or two codewords used for all samples?",
        answer="yes" if same else "no",
        evidence=f"the two most used carry {two.validation:.0%} of the tokens ({two.training:.0%} in training); "
        f"{two.alone:.0%} of the samples send nothing else",
        well=not same,
    )


def _of_drift(last: CheckpointProbe, found: CollapseProbe, limits: AlarmRecipe) -> Answer:
    drift = found.drift
    parts = {
        "data": last.set_drift.frechet,
        "mode": last.mode_drift.frechet,
        "augmentation": drift.by_augmentation.frechet,
    }
    moved = drift.tokens.frechet > limits.token_drift
    by = f", most by the {max(parts, key=lambda name: parts[name])}" if moved else ""
    listed = ", ".join(f"{value:.3f} by the {name}" for name, value in parts.items())
    return Answer(
        topic="drift",
        question="Do the encoder's features change their distribution between training and evaluation?",
        answer=f"yes{by}" if moved else "no",
        evidence=f"tokens {drift.tokens.frechet:.3f} training deviations apart (features before they are normalised "
        f"{drift.features.frechet:.3f}): {listed}",
        well=not moved,
    )


def _of_gradient(found: CollapseProbe) -> Answer:
    flow = found.gradient
    detached = "no: evaluation builds a graph" if flow.graph_in_evaluation else "yes"
    reaches = flow.straight_through > 0.0
    if reaches:
        said = "it reaches it"
    elif flow.without_link > 0.0:
        said = "it does not reach it: the link holds it up"
    else:
        said = "it does not reach it, nor would it without a link: the head passes none"
    return Answer(
        topic="gradient",
        question="Is the straight-through gradient detached in evaluation, and does it reach the encoder in training?",
        answer=f"{detached}; {said}",
        evidence=f"norm at the encoder's output {flow.straight_through:.3g} straight through, {flow.surrogate:.3g} through "
        f"the soft path, {flow.without_link:.3g} without a link; {flow.reached:.0%} of a batch's rows have one",
        well=reaches and not flow.graph_in_evaluation,
    )


def _of_training_mode(last: CheckpointProbe, limits: AlarmRecipe) -> Answer:
    trained = last.modes.validation_as_trained.perplexity
    evaluated = last.modes.validation_as_evaluated.perplexity
    differs = last.mode_drift.frechet > limits.token_drift or evaluated < limits.perplexity_ratio * trained
    return Answer(
        topic="training-mode",
        question="Does it go away with the modules in training mode?",
        answer="another codec in training mode" if differs else "no difference to speak of",
        evidence=f"on the same {last.modes.rows} rows perplexity {trained:.1f} in training mode, {evaluated:.1f} in "
        f"evaluation, tokens {last.mode_drift.frechet:.3f} deviations apart",
        well=not differs,
    )


def _of_frozen_encoder(found: CollapseProbe) -> Answer:
    frozen = found.frozen
    question = "What would a frozen encoder change?"
    if frozen is None:
        return Answer(
            topic="frozen-encoder",
            question=question,
            answer="not measured",
            evidence="best and last checkpoint are of one epoch, so nothing moved between them",
            well=True,
        )
    saved = frozen.changed - frozen.codebook_alone
    return Answer(
        topic="frozen-encoder",
        question=question,
        answer=f"{saved:.0%} fewer tokens that change their codeword" if saved >= 0.005 else "nothing",
        evidence=f"from epoch {frozen.first} to {frozen.last} {frozen.changed:.0%} of the tokens change their codeword, "
        f"{frozen.codebook_alone:.0%} with the codebook moving alone, {frozen.encoder_alone:.0%} with the encoder alone; "
        f"tokens move {frozen.drift.frechet:.3f} deviations; --set freeze_encoder_epochs=N keeps it for N epochs",
        well=True,
    )
