"""The table of a diagnosis: what to look for, what it means, and what to try, in the order in which to try it.

The order of the remedies is that of the notes that started this project (two-phase training: troubleshooting; the tuning
hierarchy: the most volatile knob first, the strong ones last; codebook collapse), with one correction: a clean chain does
not collapse by a low temperature alone. What brought the published accuracy down was soft symbols rescaled by the statistics
of a batch, which no recipe here does; the scale of the distances, the codebook's start and its restarts decide the rest.
"""

from __future__ import annotations

from typing import Final

from train import diagnosis_evidence as evidence
from train.alarms import Symptom
from train.latent_rules import LATENT_RULES
from train.remedy import Change, Remedy
from train.rule import Rule

_LOWER_RATE = Change("optimizer.learning_rate", "times", 0.5)
_HIGHER_FLOOR = Change("schedule.temp_freeze_floor", "plus", 0.1, most=0.8)
_MORE_USAGE = Change("loss.lambda_entropy", "times", 2.0, start=0.05)
_MORE_CONSISTENCY = Change("loss.lambda_consistency", "times", 2.0, start=0.5, most=1.0)
_FASTER_CODEBOOK = Change("quantizer.ema_decay", "at-most", 0.95)
_MORE_STEPS = Change("optimizer.batch_size", "times", 0.5, least=16)
_RESTARTS = Change("quantizer.restart_threshold", "times", 2.0, start=0.05, most=0.5)
_LATER = Change("schedule.alignment_start_epoch", "plus", 5)
_LONGER = Change("schedule.epochs", "plus", 10)
# Alignment and end move along: a longer warm-up alone would eat the epochs of learning.
_LONGER_WARMUP = tuple(
    Change(f"schedule.{key}", "plus", 5) for key in ("warmup_epochs", "alignment_start_epoch", "epochs")
)
_CHECK_CHAIN = Remedy(
    "the hard path may be approximated too crudely: check bit grouping and LLR scaling with hardpath verify, and that no "
    "statistic of a batch rescales a symbol"
)
_USE_BEST = Remedy("export best/ in place of last/: it was chosen by hard accuracy")

RULES: Final = (
    Rule(
        "not-finite",
        "the loss is no number any more",
        "a step was too long; every figure after it means nothing",
        evidence.of_epoch(Symptom.NOT_FINITE),
        (
            Remedy("halve the learning rate", (_LOWER_RATE,)),
            Remedy("look for values out of range in the data: one NaN is enough"),
        ),
    ),
    Rule(
        "not-learning",
        "training learns nothing at all",
        "there is nothing yet that a link could lose",
        evidence.not_learning,
        (
            Remedy("look at the data: are the labels those of their rows, and is a class more than its number?"),
            Remedy("another learning rate", (Change("optimizer.learning_rate", "times", 0.25),)),
            Remedy(
                "less regularization beside the task",
                (Change("loss.lambda_vq", "times", 0.5), Change("loss.lambda_entropy", "times", 0.5)),
            ),
            Remedy("longer without a link", _LONGER_WARMUP),
        ),
    ),
    Rule(
        "lost-at-the-link",
        "the task is learned, and lost at the link",
        "what arrives says nothing of what was sent: the codebook, its labels or the LLRs are wrong",
        evidence.lost_at_the_link,
        (
            Remedy("look at the codebook first: the findings on usage and on LLRs, here and with --deep"),
            Remedy(
                "longer without a link, so that the codebook starts from tokens that mean something",
                _LONGER_WARMUP,
            ),
            Remedy("halve the learning rate", (_LOWER_RATE,)),
        ),
    ),
    Rule(
        "accuracy-collapse",
        "the last epoch is far below the best",
        "the published 90.71 % that became 52.06 % is of this kind; a clean chain does not do it by a low temperature alone",
        evidence.accuracy_collapse,
        (
            Remedy("stop annealing where soft still teaches", (Change("schedule.temp_freeze_floor", "at-least", 0.7),)),
            Remedy("hold soft and hard together", (_MORE_CONSISTENCY,)),
            Remedy("smaller steps", (_LOWER_RATE,)),
            _CHECK_CHAIN,
            _USE_BEST,
        ),
    ),
    Rule(
        "evaluation-changes-state",
        "evaluating changes the model",
        "every evaluation then trains: usage statistics of the validation set leak into the codebook",
        evidence.changes_state,
        (Remedy("keep updates of statistics out of the forward pass, or under `if self.training`"),),
    ),
    Rule(
        "modes-differ",
        "the encoder does another thing in evaluation than in training",
        "batch statistics or dropout act in training alone; the codebook was fitted to tokens that are not sent",
        evidence.modes_differ,
        (
            Remedy("replace BatchNorm by LayerNorm or GroupNorm, which know no batch"),
            Remedy("less dropout before the tokens"),
            Remedy(
                "a longer warm-up, so that running statistics have settled",
                _LONGER_WARMUP,
            ),
        ),
    ),
    Rule(
        "evaluation-collapse",
        "the codebook is used in training and not in evaluation",
        "a codebook collapsed to 1 or 2 codewords in evaluation sends nothing",
        evidence.of_epoch(Symptom.EVALUATION_COLLAPSE),
        (
            Remedy("see whether evaluation changes a buffer, and whether training and evaluation mode differ: --deep"),
            Remedy("let the codebook follow the encoder sooner", (_FASTER_CODEBOOK,)),
            Remedy("more and smaller steps", (_MORE_STEPS, _LOWER_RATE)),
            Remedy(
                "a longer warm-up, so that the encoder stands still when the codebook starts",
                _LONGER_WARMUP,
            ),
        ),
    ),
    Rule(
        "same-codes",
        "token positions send the same codeword whatever the sample",
        "a position that never changes is sent, counted, and says nothing",
        evidence.of_epoch(Symptom.SAME_CODES),
        (
            Remedy("raise the entropy of usage, which is taken position by position", (_MORE_USAGE,)),
            Remedy("fewer tokens, if the task needs no more", (Change("link.tokens", "times", 0.5, least=1),)),
            Remedy("a longer warm-up", _LONGER_WARMUP),
        ),
        awaits="lambda_entropy",
    ),
    Rule(
        "one-mode",
        "the router sends nearly all samples in one mode",
        "a header is paid for, and nothing is chosen",
        evidence.of_epoch(Symptom.ONE_MODE),
        (
            Remedy("give the balance more weight", (Change("loss.lambda_lb", "times", 2.0, start=0.01),)),
            Remedy("let symbols cost less", (Change("loss.lambda_sym", "times", 0.5),)),
        ),
    ),
    *LATENT_RULES,
    Rule(
        "token-drift",
        "the encoder's tokens drift between training and evaluation",
        "the codebook was fitted to other tokens than it meets",
        evidence.of_epoch(Symptom.TOKEN_DRIFT),
        (
            Remedy("see with --deep whether the mode does it (batch statistics, dropout) or the data"),
            Remedy("let the codebook follow the encoder sooner", (_FASTER_CODEBOOK,)),
            Remedy("halve the learning rate", (_LOWER_RATE,)),
            Remedy("draw the validation set as the training set was drawn, and augment less"),
        ),
    ),
    Rule(
        "code-entropy",
        "few codewords carry all",
        "the codebook is larger than what is sent through it",
        evidence.of_epoch(Symptom.CODE_ENTROPY),
        (
            Remedy("raise the entropy of usage", (_MORE_USAGE,)),
            Remedy("a higher temperature floor", (_HIGHER_FLOOR,)),
            Remedy(
                "let that weight grow over the first epochs", (Change("loss.warmup.lambda_entropy", "at-least", 10),)
            ),
            Remedy("restart codewords sooner, and let the codebook follow sooner", (_RESTARTS, _FASTER_CODEBOOK)),
            Remedy("a smaller codebook", (Change("link.codewords", "times", 0.5, least=2),)),
        ),
        awaits="lambda_entropy",
    ),
    Rule(
        "codes-unused",
        "most codewords are never sent",
        "their bits are spent and their restarts have not found tokens",
        evidence.of_epoch(Symptom.CODES_UNUSED),
        (
            Remedy("restart dead codewords sooner", (_RESTARTS,)),
            Remedy("raise the entropy of usage", (_MORE_USAGE,)),
            Remedy("let the codebook follow the encoder sooner", (_FASTER_CODEBOOK,)),
            Remedy("more and smaller steps", (_MORE_STEPS, _LOWER_RATE)),
            Remedy("a smaller codebook", (Change("link.codewords", "times", 0.5, least=2),)),
        ),
        awaits="lambda_entropy",
    ),
    Rule(
        "codes-wander",
        "each batch uses few codewords, and another one others",
        "the codebook has collapsed and wanders: the epoch's figures hide it, and evaluation, which moves nothing, shows it",
        evidence.of_epoch(Symptom.CODES_WANDER),
        (
            Remedy("let the codebook move more slowly", (Change("quantizer.ema_decay", "at-least", 0.99),)),
            Remedy("raise the entropy of usage", (_MORE_USAGE,)),
        ),
    ),
    Rule(
        "symbol-entropy",
        "few points of the constellation carry all",
        "codewords in use have labels that share their bits",
        evidence.of_epoch(Symptom.SYMBOL_ENTROPY),
        (
            Remedy("raise the entropy of usage", (_MORE_USAGE,)),
            Remedy("a higher temperature floor", (_HIGHER_FLOOR,)),
            Remedy("restart dead codewords sooner", (_RESTARTS,)),
        ),
        awaits="lambda_entropy",
    ),
    Rule(
        "soft-above-hard",
        "soft is right where hard is wrong",
        "what was trained is not what is deployed",
        evidence.soft_above_hard,
        (
            Remedy("hold soft and hard together", (_MORE_CONSISTENCY,)),
            Remedy("extend alignment", (_LONGER,)),
            Remedy(
                "a surrogate nearer to hard from the start",
                (Change("quantizer.target_assignment_entropy", "at-most", 0.5),),
            ),
            _CHECK_CHAIN,
        ),
        awaits="lambda_consistency",
    ),
    Rule(
        "surrogate-is-another",
        "soft does not become hard as the temperature falls",
        "soft and hard differ in more than the assignment: power, mapper, noise or receiver",
        evidence.surrogate_is_another,
        (_CHECK_CHAIN,),
    ),
    Rule(
        "gradient",
        "the task's gradient does not go where it should",
        "behind a detached or dead link the encoder learns of the other terms alone; a graph in evaluation costs memory",
        evidence.gradient,
        (
            Remedy("where there is none without a link either, the head is dead", (_LOWER_RATE,)),
            Remedy(
                "else look for a detach between argmax and mapper: hard values forward, the soft path's gradient back"
            ),
        ),
    ),
    Rule(
        "phase-2-drop",
        "accuracy drops when alignment begins",
        "alignment asks for more than the surrogate can follow at once",
        evidence.phase_2_drop,
        (
            Remedy("a higher temperature floor, less discrete", (_HIGHER_FLOOR,)),
            Remedy("a softer constraint", (Change("loss.lambda_consistency", "at-most", 0.3),)),
            Remedy("start alignment later", (_LATER, Change("schedule.epochs", "plus", 5))),
        ),
    ),
    Rule(
        "consistency",
        "consistency does not fall in alignment",
        "the surrogate does not come nearer to the digital path",
        evidence.consistency,
        (
            _CHECK_CHAIN,
            Remedy("hold soft and hard together", (_MORE_CONSISTENCY,)),
            Remedy("extend alignment", (_LONGER,)),
        ),
        awaits="lambda_consistency",
    ),
    Rule(
        "too-soft",
        "the assignment is too soft",
        "the distance scale decides: mean symbols that lose 4 dB and more do not speak for points",
        evidence.too_soft,
        (
            Remedy("set the scale for less entropy", (Change("quantizer.target_assignment_entropy", "at-most", 0.5),)),
            Remedy(
                "lower the entropy of each assignment", (Change("loss.lambda_assignment", "times", 2.0, start=0.01),)
            ),
            Remedy("a lower temperature floor", (Change("schedule.temp_freeze_floor", "plus", -0.1, least=0.5),)),
        ),
        awaits="lambda_assignment",
    ),
    Rule(
        "hard-above-soft",
        "hard is right where soft is wrong",
        "the deployed path loses nothing, but its gradient comes from a surrogate that sends less energy than it does",
        evidence.of_epoch(Symptom.HARD_ABOVE_SOFT),
        (
            Remedy(
                "set the scale for less entropy",
                (Change("quantizer.target_assignment_entropy", "times", 0.5, least=0.2),),
            ),
            Remedy(
                "lower the entropy of each assignment", (Change("loss.lambda_assignment", "times", 2.0, start=0.01),)
            ),
            Remedy("extend alignment", (_LONGER,)),
        ),
        awaits="lambda_consistency",
    ),
    Rule(
        "overfitting",
        "the training set is learned by heart",
        "judge by the task loss alone: the other terms' weights change over a run",
        evidence.overfitting,
        (
            _USE_BEST,
            Remedy("more weight decay", (Change("optimizer.weight_decay", "times", 3.0, start=0.01),)),
            Remedy(
                "less pull of the other terms",
                (Change("loss.lambda_consistency", "times", 0.5), Change("loss.lambda_vq", "times", 0.75)),
            ),
            Remedy("halve the learning rate: only if neither helps", (_LOWER_RATE,)),
        ),
    ),
    Rule(
        "dominating-term",
        "one term of the loss drowns the task",
        "about a third of the loss is where a regularizer prevents collapse without ruling",
        evidence.dominating_term,
        (Remedy("let weights grow over the first epochs", (Change("loss.warmup.lambda_vq", "at-least", 10),)),),
    ),
    Rule(
        "energy",
        "the codec prefers outer points",
        "Es/N0 does not count the power that it sends",
        evidence.of_epoch(Symptom.ENERGY),
        (
            Remedy("hold the energy", (Change("loss.lambda_energy", "times", 2.0, start=1.0),)),
            Remedy("raise the entropy of usage: even usage has the constellation's mean", (_MORE_USAGE,)),
        ),
        awaits="lambda_energy",
    ),
    Rule(
        "llr",
        "LLRs are off their theory",
        "noise told 4 times too small costs 12 points at 0 dB, told too large costs nothing: over-confidence is what hurts",
        evidence.of_epoch(Symptom.LLR),
        (
            Remedy("check the noise variance told to the receiver: N0 of a complex sample, no / 2 a dimension"),
            Remedy("check the sign and the scale of the demapper against hardpath verify"),
            Remedy("check that labels are used evenly: theory assumes equally likely bits", (_MORE_USAGE,)),
        ),
    ),
    Rule(
        "not-reproduced",
        "the checkpoint does not give the accuracy that it recorded",
        "the evaluation's noise is fixed: other data or other code was at work",
        evidence.not_reproduced,
        (
            Remedy("name the data of the training run with --data"),
            Remedy("measure with the version of hardpath that trained it: hardpath train says which in best/"),
        ),
    ),
    Rule(
        "hard-already",
        "the surrogate is hard already",
        "soft and hard are then one path, and their agreement proves nothing",
        evidence.hard_already,
        (
            Remedy("a higher temperature floor", (_HIGHER_FLOOR,)),
            Remedy("set the scale for more entropy", (Change("quantizer.target_assignment_entropy", "at-least", 0.5),)),
            Remedy("let each assignment be", (Change("loss.lambda_assignment", "to", 0.0),)),
        ),
        remark=True,
    ),
    Rule(
        "no-alignment",
        "the schedule never aligns",
        "hard accuracy is then what the soft path leaves to it",
        evidence.no_alignment,
        (),
        remark=True,
    ),
    Rule(
        "unfinished",
        "the run has more epochs to go",
        "run the same hardpath train again and it goes on where it stopped",
        evidence.unfinished,
        (),
        remark=True,
    ),
)
