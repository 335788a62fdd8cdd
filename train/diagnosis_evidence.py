"""What each rule of a diagnosis looks for in a run: its numbers and epochs, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from train.alarms import Symptom, annealing, can_be_told_apart
from train.collapse import weight_key
from train.diagnosis_run import Evidence, Run
from train.measure import TEMPERATURES, mean_accuracy
from train.record import EpochRecord
from train.remedy import Change, Remedy

PATIENCE: Final = 5
"""Epochs of alignment that it takes to tell whether it works."""
STUCK: Final = 10
"""Epochs in which a task that can be learned shows it."""
LEARNED: Final = 0.1
"""Share of the way from chance to 1 that accuracy must have gone for the task to count as begun."""
REPRODUCED: Final = 0.005
"""Largest difference of recorded and measured accuracy that other libraries' rounding explains."""


def of_epoch(symptom: Symptom) -> Callable[[Run], Evidence | None]:
    """A rule that looks for what the last epoch shows."""

    def detect(run: Run) -> Evidence | None:
        text = run.seen(symptom)
        return None if text is None else Evidence(text)

    return detect


def not_learning(run: Run) -> Evidence | None:
    """Accuracy no better than that of an answer that knows nothing."""
    now = run.now
    phase = [record for record in run.records if record.phase is now.phase]
    if len(phase) < 3 or now.chance is None or _carried(run) is not None:
        return None
    validation = now.validation_no_link if now.hard_mean is None else now.hard_mean
    if validation is None or max(_way(validation, now), _way(now.train_accuracy, now)) >= LEARNED:
        return None
    text = (
        f"accuracy {now.train_accuracy:.4f} in training and {validation:.4f} in validation where knowing nothing gives "
        f"{now.chance:.4f}; task loss {phase[0].losses['task']:.4f} in epoch {phase[0].epoch}, "
        f"{now.losses['task']:.4f} in epoch {now.epoch}"
    )
    return Evidence(text, run.awaited(phase[0].epoch + STUCK))


def lost_at_the_link(run: Run) -> Evidence | None:
    """Better than that without a link, and not over it."""
    without, now = _carried(run), run.now
    if without is None or now.hard_mean is None or len(run.linked) < 2 or _way(now.hard_mean, now) >= LEARNED:
        return None
    return Evidence(
        f"without a link {without:.4f}, over it {now.hard_mean:.4f} in epoch {now.epoch}; "
        f"knowing nothing gives {now.chance:.4f}",
        run.awaited(run.linked[0].epoch + STUCK),
    )


def _carried(run: Run) -> float | None:
    """Accuracy at the end of warm-up, where the task was learned by then; None where not, or where chance is not known."""
    without = [record for record in run.records if record.validation_no_link is not None]
    if not without or without[-1].chance is None or without[-1].validation_no_link is None:
        return None
    found = without[-1].validation_no_link
    return found if _way(found, without[-1]) >= LEARNED else None


def _way(accuracy: float, record: EpochRecord) -> float:
    """How far an accuracy is from chance to 1."""
    chance = record.chance or 0.0
    return (accuracy - chance) / max(1.0 - chance, 1e-9)


def accuracy_collapse(run: Run) -> Evidence | None:
    """The last epoch's hard accuracy against the best's."""
    best, now = run.best_now, run.now
    if best is None or now.hard_mean is None or now.soft_mean is None:
        return None
    if not _fell(best.hard, now.hard_mean, run):
        return None
    stayed = best.soft - now.soft_mean < 0.5 * (best.hard - now.hard_mean)
    recorded = next((record for record in run.linked if record.epoch == best.epoch), now)
    return Evidence(
        f"hard {best.hard:.4f} in epoch {best.epoch} (T={recorded.vq_temp:.3g}), {now.hard_mean:.4f} in epoch {now.epoch} "
        f"(T={now.vq_temp:.3g}): {100 * (best.hard - now.hard_mean):.1f} points lost; soft went from {best.soft:.4f} to "
        f"{now.soft_mean:.4f}"
        + (": the surrogate stopped matching the deployed path" if stayed else ": both paths fell together")
    )


def phase_2_drop(run: Run) -> Evidence | None:
    """Hard accuracy in alignment against the end of learning."""
    if not run.aligned or not run.learning:
        return None
    before, after = _mean_hard(run.learning[-3:]), _mean_hard(run.aligned[-3:])
    if not _fell(before, after, run):
        return None
    return Evidence(
        f"hard {before:.4f} at the end of learning (epoch {run.learning[-1].epoch}), {after:.4f} in alignment "
        f"(epoch {run.aligned[-1].epoch})",
        run.awaited(run.aligned[0].epoch + 3),
    )


def _fell(before: float, after: float, run: Run) -> bool:
    limit = run.recipe.alarms.best_last_gap
    return 100.0 * (before - after) > limit and can_be_told_apart(before, after, run.now.validation_samples)


def _mean_hard(records: Sequence[EpochRecord]) -> float:
    return float(np.mean([record.hard_mean for record in records if record.hard_mean is not None]))


def soft_above_hard(run: Run) -> Evidence | None:
    """Soft above hard; before alignment has had its epochs, to be waited for."""
    text = run.seen(Symptom.SOFT_ABOVE_HARD)
    if text is None:
        return None
    start = run.alignment_start
    return Evidence(text, None if start is None else run.awaited(start + PATIENCE))


def consistency(run: Run) -> Evidence | None:
    """Consistency that has not fallen since alignment began."""
    limit = run.recipe.alarms.consistency
    found = [record.validation_collapse.consistency for record in run.aligned if record.validation_collapse is not None]
    if len(found) < 2:
        return None
    first, last = found[0], float(np.mean(found[-2:]))
    start = run.aligned[0].epoch
    short = len(found) < PATIENCE
    if last <= limit or last < 0.9 * first or (short and not run.unfinished):
        return None
    return Evidence(
        f"{first:.4f} in epoch {start}, {last:.4f} in epoch {run.aligned[-1].epoch}, above {limit:g} a dimension, "
        "where a token's variance is 1",
        run.awaited(start + PATIENCE),
    )


def too_soft(run: Run) -> Evidence | None:
    """Assignment entropy; while the temperature falls, to be waited for."""
    now, high = run.now, run.recipe.alarms.h_assign_high
    text = run.seen(Symptom.TOO_SOFT)
    if text is not None or now.validation_collapse is None:
        return None if text is None else Evidence(text)
    found = now.validation_collapse.h_assign
    if found <= high or not annealing(now, run.recipe):
        return None
    return Evidence(
        f"assignment entropy {found:.2f} nat in epoch {now.epoch} at T={now.vq_temp:.3g}, above {high:g}",
        run.awaited(run.settles),
    )


def hard_already(run: Run) -> Evidence | None:
    """Assignment entropy so low that soft is hard."""
    now, low = run.now, run.recipe.alarms.h_assign_low
    if now.validation_collapse is None or now.validation_collapse.h_assign >= low:
        return None
    return Evidence(
        f"assignment entropy {now.validation_collapse.h_assign:.3f} nat in epoch {now.epoch} at T={now.vq_temp:.3g}, "
        f"under {low:g}"
    )


def overfitting(run: Run) -> Evidence | None:
    """Task loss in validation against training's."""
    text = run.seen(Symptom.OVERFITTING)
    if text is None:
        return None
    losses = [(record.validation_task_hard, record.epoch) for record in run.linked]
    known = [(loss, epoch) for loss, epoch in losses if loss is not None]
    least, epoch = min(known)
    return Evidence(f"{text}; validation's least was {least:.3f} in epoch {epoch}")


def dominating_term(run: Run) -> Evidence | None:
    """One term's share of the loss."""
    text = run.seen(Symptom.DOMINATING_TERM)
    if text is None:
        return None
    shares = {name: share for name, share in (run.now.loss_shares or {}).items() if name != "task"}
    key = weight_key(max(shares, key=lambda name: shares[name]))
    return Evidence(text, remedies=(Remedy("halve its weight", (Change(key, "times", 0.5),)),))


def changes_state(run: Run) -> Evidence | None:
    """Weights and buffers that evaluating changed."""
    changed = () if run.probe is None else run.probe.last.changed
    return Evidence(f"evaluating changed {', '.join(changed)}") if changed else None


def modes_differ(run: Run) -> Evidence | None:
    """The same rows in both modes of the modules."""
    if run.probe is None:
        return None
    drift, modes = run.probe.last.mode_drift.frechet, run.probe.last.modes
    trained, evaluated = modes.validation_as_trained.perplexity, modes.validation_as_evaluated.perplexity
    if drift <= run.recipe.alarms.token_drift and evaluated >= run.recipe.alarms.perplexity_ratio * trained:
        return None
    return Evidence(
        f"the same {modes.rows} rows give tokens {drift:.2f} deviations apart, and perplexity {trained:.1f} as trained, "
        f"{evaluated:.1f} as evaluated"
    )


def surrogate_is_another(run: Run) -> Evidence | None:
    """As T falls to where the assignment is hard, soft must become hard."""
    if run.probe is None:
        return None
    points, coldest = run.probe.last.points, min(TEMPERATURES)
    entropy = max(point.h_assign for point in points if point.temperature == coldest)
    hard, soft = mean_accuracy(points, "hard"), mean_accuracy(points, "soft", coldest)
    limits, samples = run.recipe.alarms, run.now.validation_samples
    if entropy >= limits.h_assign_low or 100.0 * abs(soft - hard) <= limits.soft_hard_gap:
        return None
    if not can_be_told_apart(soft, hard, samples):
        return None
    return Evidence(
        f"at T={coldest:g}, where the assignment is hard ({entropy:.3f} nat), soft is {soft:.4f} and hard {hard:.4f}"
    )


def gradient(run: Run) -> Evidence | None:
    """Where the gradient of the task's loss goes."""
    if run.probe is None or run.probe.collapse is None:
        return None
    flow, told = run.probe.collapse.gradient, []
    if flow.straight_through == 0.0:
        told.append(f"none comes back over the link to the encoder; without a link its norm is {flow.without_link:.3g}")
    if flow.graph_in_evaluation:
        told.append("evaluation builds a graph")
    return Evidence("; ".join(told)) if told else None


def not_reproduced(run: Run) -> Evidence | None:
    """Recorded against measured accuracy."""
    probes = () if run.probe is None else (run.probe.best, run.probe.last)
    told = [
        f"{found.name} (epoch {found.epoch}) recorded hard {found.recorded_hard:.4f} and measures {found.hard_mean:.4f}"
        for found in probes
        if found is not None and abs(found.recorded_hard - found.hard_mean) > REPRODUCED
    ]
    return Evidence("; ".join(told)) if told else None


def no_alignment(run: Run) -> Evidence | None:
    """A schedule without alignment."""
    if run.alignment_start is not None or not run.linked:
        return None
    return Evidence(f"all {run.recipe.schedule.epochs} epochs send mean symbols; T ends at {run.now.vq_temp:.3g}")


def unfinished(run: Run) -> Evidence | None:
    """Epochs that are still to come."""
    if not run.unfinished:
        return None
    return Evidence(f"epoch {run.now.epoch} of {run.recipe.schedule.epochs}, {run.now.phase.value.lower()}")
