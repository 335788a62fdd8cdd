"""Lines of the table of a diagnosis that are of a bottleneck: what `train.latent_alarms` finds, and what to try."""

from __future__ import annotations

from typing import Final

from train import diagnosis_evidence as evidence
from train.alarms import Symptom
from train.remedy import Change, Remedy
from train.rule import Rule

LATENT_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "latent-collapse",
        "the latent collapses to its prior",
        "what is drawn from the prior says nothing of the sample",
        evidence.of_epoch(Symptom.LATENT_COLLAPSE),
        (
            Remedy("less weight of the KL", (Change("bottleneck.kl_weight", "times", 0.75),)),
            Remedy("let it grow for longer", (Change("bottleneck.kl_warmup", "plus", 5),)),
            Remedy("raise the free bits: what is free is not pressed out"),
        ),
    ),
    Rule(
        "latent-unheld",
        "the bottleneck holds nothing",
        "tokens carry more than codewords can say, and the quantiser throws it away",
        evidence.of_epoch(Symptom.LATENT_UNHELD),
        (
            Remedy("more weight of the KL", (Change("bottleneck.kl_weight", "times", 1.5),)),
            Remedy("lower the free bits: of a mean they are a dimension's, of a sum a token's"),
        ),
    ),
    Rule(
        "latent-free",
        "free bits take most of the KL",
        "by the published figures the KL is then next to no penalty",
        evidence.of_epoch(Symptom.LATENT_FREE),
        (
            Remedy("wait until the weight has grown, and the vision is trained: the KL grows until then"),
            Remedy("lower the free bits", (Change("bottleneck.free_bits", "times", 0.7, start=0.1),)),
        ),
    ),
    Rule(
        "teacher-silent",
        "the teacher says nothing",
        "its term is 0 where it has a weight",
        evidence.of_epoch(Symptom.TEACHER_SILENT),
        (Remedy("see whether the task has rules for these answers"),),
    ),
)
