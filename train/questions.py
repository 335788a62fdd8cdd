"""Several questions of one input: which classes are whose, and what follows from it.

    tokens ─┬─ head of the first question  ─> its classes ─┐
            └─ head of the second question ─> its classes ─┴─> logits, the classes of all questions side by side

A row is asked one question, and its label tells which, since a class is one question's. The loss and the decision of a row
are within the classes of its own question; with one question that is all of them, and nothing is done.

Where a task has several questions its head is a `QuestionHeads`, which all that trains or measures finds here, and the task
has `questions`: each by itself as a task, which is what a receiver of a bundle answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.errors import CheckpointError
from link.truth import UNJUDGED
from train.answers import follows
from train.tasks import Task, questions_of
from train.transceiver import Transceiver


class QuestionHeads(nn.Module):
    """One head a question, side by side: (B, N, D) to (B, C_1 + ... + C_Q).

    Parameters
    ----------
    heads : sequence of nn.Module
        (B, N, D) to (B, C_q) each.
    sizes : sequence of int
        C_q.
    """

    def __init__(self, heads: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.sizes = tuple(sizes)

    def forward(self, embedding: Tensor, *side: Tensor) -> Tensor:
        """Logits of all questions."""
        return torch.cat([head(embedding, *side) for head in self.heads], dim=-1)


def sizes_of(head: nn.Module) -> tuple[int, ...]:
    """Classes of each question that a head answers; none where it answers one."""
    return head.sizes if isinstance(head, QuestionHeads) else ()


def within_question(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Logits (B, C) with those of other questions out of the running.

    The lowest number of the type takes their place: a softmax gives it nothing, and the difference of two of them is 0,
    where that of two infinities would be no number.

    Parameters
    ----------
    labels : (B,) int64
    sizes : sequence of int
        Classes of each question; where there are none, the logits are returned as they are.

    Examples
    --------
    >>> logits, labels = torch.tensor([[0.0, 1.0, 5.0], [0.0, 1.0, 5.0]]), torch.tensor([0, 2])
    >>> within_question(logits, labels, (2, 1)).argmax(dim=-1).tolist(), within_question(logits, labels, ()).argmax().item()
    ([1, 2], 2)
    """
    if not sizes:
        return logits
    question = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return logits.masked_fill(question != question[labels][:, None], torch.finfo(logits.dtype).min)


def asked(head: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, C) of a head within the questions that the labels (B,) are answers to."""
    return within_question(logits, labels, sizes_of(head))


def taught(head: nn.Module, embedding: Tensor, side: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Logits of a head in training, within the questions that the labels answer, and given them where it is to be told."""
    logits = head(embedding, *side, told=labels) if follows(head) else head(embedding, *side)
    return asked(head, logits, labels)


def chance(labels: NDArray[np.int64], sizes: Sequence[int]) -> float:
    """Accuracy, on labels (n,) or (n, T), of the most frequent class of each question.

    Examples
    --------
    >>> chance(np.array([0, 0, 1, 2]), ()), chance(np.array([0, 0, 1, 2]), (2, 1)), chance(np.array([[0, 1], [0, -1]]), ())
    (0.5, 0.75, 0.6666666666666666)
    """
    judged = labels[labels != UNJUDGED]
    counts = np.bincount(judged, minlength=sum(sizes))
    parts = np.split(counts, np.cumsum(sizes)[:-1]) if sizes else [counts]
    return float(sum(part.max() for part in parts) / len(judged))


def ask(model: Transceiver, task: Task, question: str | None) -> tuple[Transceiver, Task]:
    """Model and task as of one question alone: its head in place of all; as they are where `question` is None.

    Raises
    ------
    CheckpointError
        If the task has no such question.
    """
    if question is None:
        return model, task
    questions = questions_of(task)
    if question not in questions or not isinstance(model.head, QuestionHeads):
        known = f"its questions are {', '.join(questions)}" if questions else "it has one question, without a name"
        raise CheckpointError(f"the checkpoint's task {task.name} has no question {question!r}: {known}")
    alone = copy.copy(model)
    alone._modules = dict(model._modules)
    alone.head = model.head.heads[list(questions).index(question)]
    return alone, questions[question]
