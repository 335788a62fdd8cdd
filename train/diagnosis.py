"""What is wrong with a run, in words, and what to try: `hardpath diagnose`.

A run is read from its metrics and its checkpoints, and held against the table of `train.diagnosis_rules`. What the schedule
has yet to bring is not wrong but awaited: a temperature that still falls, an alignment to come, a weight that still grows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from link.errors import ArgumentError, ResultsError
from train import checkpoint as checkpoints
from train.collapse_answers import Answer, answers
from train.diagnosis_rules import RULES
from train.diagnosis_run import Evidence, Run
from train.measure import TEMPERATURES, mean_accuracy
from train.probe import CheckpointProbe, Probe
from train.record import METRICS_NAME, read_metrics
from train.rule import Rule

_COLUMN: Final = 14


class Step(BaseModel):
    """One thing to try, and the `--set` options that do it, where a recipe's key does."""

    model_config = ConfigDict(frozen=True)

    order: Literal["first", "then", "last resort"]
    text: str
    settings: tuple[str, ...]


class Finding(BaseModel):
    """One thing found.

    Attributes
    ----------
    name : str
        Of the rule.
    kind : str
        `wrong`; `wait` where the schedule has not come so far; `remark` where nothing needs mending.
    symptom, evidence, why : str
        In one line each; the evidence with its numbers and epochs.
    wait_until : int or None
        Epoch before which it says little.
    steps : tuple of Step
        In the order in which to try them, one at a time.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["wrong", "wait", "remark"]
    symptom: str
    evidence: str
    why: str
    wait_until: int | None
    steps: tuple[Step, ...]


class Diagnosis(BaseModel):
    """A run and all that was found.

    Attributes
    ----------
    epoch, epochs : int
        The last one recorded, and as many as the recipe has.
    best_epoch : int or None
    best_hard, last_hard : float or None
        Hard accuracy, mean over the grid; None before the link is there. Measured where there is a probe, recorded else.
    answers : tuple of Answer
        To the questions about the last checkpoint's codebook in evaluation; empty where there is no probe.
    """

    model_config = ConfigDict(frozen=True)

    run: str
    recipe: str
    seed: int
    epoch: int
    epochs: int
    best_epoch: int | None
    best_hard: float | None
    last_hard: float | None
    findings: tuple[Finding, ...]
    probe: Probe | None
    answers: tuple[Answer, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; what is awaited, and remarks, are not."""
        return all(finding.kind != "wrong" for finding in self.findings)

    def text(self) -> str:
        """The diagnosis for the screen."""
        lines = [f"{self.run}: {self.recipe}, seed {self.seed}, epoch {self.epoch} of {self.epochs}", *self._summary()]
        if self.probe is not None:
            lines += [line for found in (self.probe.best, self.probe.last) if found for line in _measured(found)]
        if self.answers:
            lines += ["", f"The codebook in evaluation, last (epoch {self.epoch}):"]
            lines += [line for answer in self.answers for line in _answered(answer)]
        for number, finding in enumerate(self.findings, start=1):
            lines += ["", *_lines(number, finding)]
        if any(step.settings for finding in self.findings if finding.kind == "wrong" for step in finding.steps):
            lines += [
                "",
                "Change one thing at a time, the first first, into another folder: "
                "hardpath train RECIPE --out FOLDER --set KEY=VALUE",
            ]
        return "\n".join(lines)

    def _summary(self) -> list[str]:
        wrong = sum(finding.kind == "wrong" for finding in self.findings)
        verdict = (
            "healthy: nothing is wrong"
            if self.healthy
            else f"{wrong} {'things are' if wrong > 1 else 'thing is'} wrong"
        )
        if self.best_hard is None or self.last_hard is None:
            return [f"{verdict}; the link has not begun"]
        gap = 100.0 * (self.best_hard - self.last_hard)
        accuracy = (
            f"best (epoch {self.best_epoch}) hard {self.best_hard:.4f}, last (epoch {self.epoch}) {self.last_hard:.4f}"
        )
        if self.healthy:
            return [f"{verdict}, no collapse: {accuracy}, within {abs(gap):.2f} points"]
        return [f"{verdict}: {accuracy}, {gap:.2f} points apart"]


def read_run(folder: Path) -> Run:
    """A run's metrics and what its checkpoints say of themselves.

    Raises
    ------
    ResultsError
        If the folder or its metrics are missing or cannot be read.
    CheckpointError
        If there is no last checkpoint, or it cannot be read.
    ArgumentError
        If a head alone was trained: the rules are about codebooks, schedules and links, and these are of another run.
    """
    if not folder.is_dir():
        raise ResultsError(f"{folder} is no folder; name a run, as hardpath train --out left it")
    if not (folder / METRICS_NAME).is_file():
        raise ResultsError(f"{folder} holds no {METRICS_NAME}; name a run, as hardpath train --out left it")
    records = tuple(read_metrics(folder))
    if not records:
        raise ResultsError(f"{folder / METRICS_NAME} holds no finished epoch: it is empty or cut short")
    last = checkpoints.read(folder / "last")
    if last.transmitter is not None:
        raise ArgumentError(
            "run", f"{folder} is a head alone behind {last.transmitter.path}: diagnose the run of its transmitter"
        )
    best = checkpoints.read(folder / "best") if any(record.hard_mean is not None for record in records) else None
    return Run(last.recipe, records, best, last)


def diagnose(folder: Path, run: Run) -> Diagnosis:
    """Hold a run against the table.

    Parameters
    ----------
    folder : Path
        Named in the answer.
    run : Run
        As `read_run` gives it, with a probe where its checkpoints were measured.
    """
    findings = [_finding(rule, evidence, run) for rule in RULES for evidence in [rule.detect(run)] if evidence]
    best = run.best_now
    return Diagnosis(
        run=str(folder),
        recipe=run.recipe.name,
        seed=run.recipe.seed,
        epoch=run.now.epoch,
        epochs=run.recipe.schedule.epochs,
        best_epoch=None if best is None else best.epoch,
        best_hard=None if best is None else best.hard,
        last_hard=run.now.hard_mean,
        findings=tuple(sorted(findings, key=lambda finding: ("wrong", "wait", "remark").index(finding.kind))),
        probe=run.probe,
        answers=answers(run.probe, run.recipe.alarms),
    )


def _finding(rule: Rule, evidence: Evidence, run: Run) -> Finding:
    wait_until = max(filter(None, (evidence.wait_until, run.grown(rule.awaits))), default=None)
    tried = [(remedy.text, remedy.settings(run.recipe)) for remedy in (*evidence.remedies, *rule.remedies)]
    kept = [(text, settings) for text, settings in tried if settings is not None]
    steps = [
        Step(
            order="first" if index == 0 else "last resort" if index == len(kept) - 1 else "then",
            text=text,
            settings=settings,
        )
        for index, (text, settings) in enumerate(kept)
    ]
    return Finding(
        name=rule.name,
        kind="remark" if rule.remark else "wait" if wait_until is not None else "wrong",
        symptom=rule.symptom,
        evidence=evidence.text,
        why=rule.why,
        wait_until=wait_until,
        steps=tuple(steps),
    )


def _lines(number: int, finding: Finding) -> list[str]:
    head = "" if finding.kind == "wrong" else f" ({finding.kind})"
    lines = [f"{number}. {finding.name}{head}: {finding.symptom}", _row("seen", finding.evidence)]
    if finding.why:
        lines.append(_row("why", finding.why))
    if finding.wait_until is not None:
        lines.append(_row("wait", f"until epoch {finding.wait_until}; what follows is for when it is still so then"))
    for step in finding.steps:
        lines.append(_row(step.order, step.text))
        if step.settings:
            lines.append(_row("", " ".join(f"--set {setting}" for setting in step.settings)))
    return lines


def _measured(found: CheckpointProbe) -> list[str]:
    soft = ", ".join(f"{mean_accuracy(found.points, 'soft', T):.4f} at T={T:g}" for T in TEMPERATURES)
    modes = found.modes
    seen = [
        f"{name} {trained.perplexity:.1f} as trained, {evaluated.perplexity:.1f} as evaluated "
        f"({evaluated.codes_used:.0%} used)"
        for name, trained, evaluated in (
            ("training", modes.training_as_trained, modes.training_as_evaluated),
            ("validation", modes.validation_as_trained, modes.validation_as_evaluated),
        )
    ]
    return [
        "",
        f"Measured, {found.name} (epoch {found.epoch}):",
        _row("accuracy", f"hard {mean_accuracy(found.points, 'hard'):.4f}; soft {soft}"),
        _row(
            "assignment",
            f"{found.collapse.h_assign:.3f} nat at T={found.vq_temp:g}; mean |LLR| {found.collapse.llr_ratio:.2f} of theory",
        ),
        _row("perplexity", f"{'; '.join(seen)}; {modes.rows} rows each"),
        _row(
            "tokens",
            f"validation {found.set_drift.frechet:.3f} training deviations from training, "
            f"as trained {found.mode_drift.frechet:.3f} from as evaluated; "
            f"{modes.validation_as_evaluated.same_codes:.0%} of the positions the same for all",
        ),
        _row("state", f"evaluation changes {', '.join(found.changed) if found.changed else 'no weight and no buffer'}"),
    ]


def _answered(answer: Answer) -> list[str]:
    return [f"   {answer.question}", f"      {answer.answer}: {answer.evidence}"]


def _row(label: str, text: str) -> str:
    return f"   {label:<{_COLUMN}}{text}"
