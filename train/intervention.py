"""What answers rest on: the latent taken away, drowned or exchanged, the receiver's own inputs left as they are.

    zero     all symbols erased: LLRs of 0, the prior's mean for every token
    noise    symbols of noise alone, of the power that reaches the receiver, believed as any others
    swap     the whole reception of another sample, of another input: a derangement

Where the latent is used, answers then know no more than the question. Two figures say how much that is. A receiver that
knows only the question does best with the answer that each question had most often in training: the question-only prior.
What noise and another latent make it say instead is an answer at random, and what is right by chance is the *independent*
accuracy: of these very answers, if given the question they had nothing to do with the labels,

    sum over q, a of   rows of q with label a  x  rows of q answered a  /  rows of q   , over all rows.

An accuracy above it by more than its interval is information that went round the link. Beside them the image-only prior: the
best single answer to all that is asked of an image, by its own labels, as an oracle would choose it. Where the receiver has
no inputs of its own, all samples are asked the same: the first prior is the most frequent answer, and there is no second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from link.errors import ArgumentError
from link.montecarlo import Proportion, clustered_proportion
from link.randomness import Draws, Stream, permutation
from link.snr import millidecibels, no_from_esn0_db
from train.evaluate import chunks, encode, side_tensors, tensors
from train.questions import asked
from train.tasks import Split, Task, receiver_inputs_of, text_of
from train.transceiver import Transceiver

Kind = Literal["none", "zero", "noise", "swap"]
KINDS: tuple[Kind, ...] = ("none", "zero", "noise", "swap")


class Intervened(BaseModel):
    """Accuracy of some rows under one intervention.

    Attributes
    ----------
    kind : str
    group : str
        Rows that it is of: all, or the answers among which those of their questions lie.
    rows : int
    accuracy : Proportion
        Over inputs of the transmitter: rows that ask about one image are no independent ones.
    independent : float
        What these answers would reach by chance, given the question.
    question_prior, image_prior : float
        Accuracies that know one of the two alone; None of an image where nothing else is asked of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    group: str
    rows: int
    accuracy: Proportion
    independent: float
    question_prior: float
    image_prior: float | None


class Groups(NamedTuple):
    """Rows that share something, by number.

    Attributes
    ----------
    question : (n,) int64
        The same for equal inputs of the receiver's own; 0 for all where it has none.
    image : (n,) int64
        The same for equal inputs of the transmitter, less those that the receiver has too.
    """

    question: NDArray[np.int64]
    image: NDArray[np.int64]


def intervene(
    model: Transceiver, task: Task, train: Split, split: Split, kinds: Iterable[Kind], *, snr_db: float, seed: int
) -> list[Intervened]:
    """Accuracies of a split under interventions on what is received, hard path, all rows first and then by kind of answer.

    Parameters
    ----------
    model : Transceiver
        Of one mode.
    train : Split
        Rows that the question-only prior is learned from.
    kinds : iterable of str
        Of KINDS.
    snr_db : float
        Es/N0, dB: of the channel, and of the symbols that are noise alone.
    seed : int
        Of noise and derangement.

    Raises
    ------
    ArgumentError
        As `require_intervention`, or if all rows are of one input.
    """
    require_intervention(model, task)
    groups = groups_of(task, split)
    prior = question_prior(task, train, split, len(task.classes))
    oracle = most_frequent(groups.image, split.labels) if receiver_inputs_of(task) else None
    found = []
    for kind in kinds:
        answers = decide(model, task, split, kind, groups.image, snr_db=snr_db, seed=seed)
        for name, rows in answer_groups(task, split.labels):
            part, labels = answers[rows], split.labels[rows]
            right = (part == labels).astype(np.int64)
            _, image = np.unique(groups.image[rows], return_inverse=True)
            found.append(
                Intervened(
                    kind=kind,
                    group=name,
                    rows=len(labels),
                    accuracy=clustered_proportion(np.bincount(image, right).astype(np.int64), np.bincount(image)),
                    independent=independent_accuracy(groups.question[rows], part, labels),
                    question_prior=float((prior[rows] == labels).mean()),
                    image_prior=None if oracle is None else float((oracle[rows] == labels).mean()),
                )
            )
    return found


def require_intervention(model: Transceiver, task: Task) -> None:
    """Raise ArgumentError where taking the latent away would say nothing of what answers rest on."""
    if text_of(task) is not None:
        raise ArgumentError(
            "--intervene", f"must be absent: {task.name} answers texts, which have no priors to lay beside"
        )
    if model.recipe.modes:
        raise ArgumentError(
            "--intervene", "must be absent for a link of several modes: a mode would tell of the sample"
        )


@torch.no_grad()
def decide(
    model: Transceiver, task: Task, split: Split, kind: Kind, image: NDArray[np.int64], *, snr_db: float, seed: int
) -> NDArray[np.int64]:
    """Answers (n,) of the hard path under an intervention; `image` is of Groups."""
    model.eval()
    received = encode(model, tensors(task, split))
    if kind == "swap":
        received = received[torch.from_numpy(derangement(image, seed)).to(received.device)]
    answers = []
    for rows, part in chunks(split):
        side = [values.to(model.device) for values in side_tensors(task, part)]
        symbols = model.send_hard(received[rows]).symbols
        y, no = _met(symbols, kind, rows, snr_db, seed)
        heard = model.receive(y, no, None, None, side)
        logits = asked(model.head, heard.logits, torch.from_numpy(part.labels).to(model.device))
        answers.append(logits.argmax(dim=-1).cpu().numpy())
    return np.concatenate(answers)


def groups_of(task: Task, split: Split) -> Groups:
    """Which rows ask the same, and which are of one image."""
    side = [spec.name for spec in receiver_inputs_of(task)]
    sent = [spec.name for spec in task.inputs if spec.name not in side]
    return Groups(*(_numbers([split.inputs[name] for name in names], len(split)) for names in (side, sent)))


def question_prior(task: Task, train: Split, split: Split, classes: int) -> NDArray[np.int64]:
    """The answer that each row's question had most often in training, (n,); that of all questions where it had none."""
    both = {
        spec.name: np.concatenate([train.inputs[spec.name], split.inputs[spec.name]])
        for spec in receiver_inputs_of(task)
    }
    question = _numbers(list(both.values()), len(train) + len(split))
    counts = np.zeros((int(question.max()) + 1, classes), dtype=np.int64)
    np.add.at(counts, (question[: len(train)], train.labels), 1)
    best = np.where(counts.any(axis=1), counts.argmax(axis=1), np.bincount(train.labels).argmax())
    return np.asarray(best[question[len(train) :]])


def most_frequent(groups: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most frequent label of each row's group, (n,).

    Examples
    --------
    >>> most_frequent(np.array([0, 0, 0, 1]), np.array([2, 1, 2, 0])).tolist()
    [2, 2, 2, 0]
    """
    counts = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (groups, labels), 1)
    return np.asarray(counts.argmax(axis=1)[groups])


def independent_accuracy(question: NDArray[np.int64], answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Mean accuracy over all exchanges of labels among rows of one question.

    Examples
    --------
    >>> independent_accuracy(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), np.array([0, 1, 1, 1]))
    0.5
    """
    size = int(question.max()) + 1
    classes = int(max(answers.max(), labels.max())) + 1
    said, right = (np.zeros((size, classes)) for _ in range(2))
    np.add.at(said, (question, answers), 1.0)
    np.add.at(right, (question, labels), 1.0)
    rows = np.maximum(said.sum(axis=1), 1.0)
    return float(((said * right).sum(axis=1) / rows).sum() / len(labels))


def derangement(image: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each row a row of another image, (n,): images in one cycle of random order, so that none stays.

    Raises
    ------
    ArgumentError
        If there is one image alone.
    """
    images = int(image.max()) + 1
    if images < 2:
        raise ArgumentError("--intervene", "swap must have samples of two inputs or more to exchange, got one alone")
    order = permutation(seed, images)
    other = np.empty(images, dtype=np.int64)
    other[order] = np.roll(order, 1)
    counts = np.bincount(image)
    first = np.cumsum(counts) - counts
    rows = np.argsort(image, kind="stable")
    place = np.empty(len(image), dtype=np.int64)
    place[rows] = np.arange(len(image)) - first[image[rows]]
    theirs = other[image]
    return np.asarray(rows[first[theirs] + place % counts[theirs]])


def answer_groups(task: Task, labels: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    """All rows, and those of each kind of answers where the task knows kinds: answers that are alternatives."""
    groups = [("all", np.arange(len(labels)))]
    kinds: NDArray[np.int64] | None = getattr(task, "kinds", None)
    if kinds is None:
        return groups
    for kind in np.unique(kinds):
        names = [name for name, own in zip(task.classes, kinds, strict=True) if own == kind]
        rows = np.flatnonzero(kinds[labels] == kind)
        if len(rows):
            groups.append(("/".join(names), rows))
    return groups


def _met(symbols: Tensor, kind: Kind, rows: slice, snr_db: float, seed: int) -> tuple[Tensor, Tensor]:
    """What the receiver is given in place of, or of, the symbols (B, S, 2): y and no."""
    shape, device = symbols.shape, symbols.device
    if kind == "zero":
        return torch.zeros(shape, device=device), torch.full(shape[:-1], torch.inf, device=device)
    draws = Draws(seed, np.arange(rows.start, rows.stop))
    no = no_from_esn0_db(snr_db)
    normals = draws.normals(Stream.NOISE, millidecibels(snr_db), shape[1]).astype(np.float32)
    noise = torch.from_numpy(normals).to(device)
    y = noise * (0.5 * (1.0 + no)) ** 0.5 if kind == "noise" else symbols + noise * (0.5 * no) ** 0.5
    return y, torch.full(shape[:-1], no, device=device)


def _numbers(arrays: list[NDArray[np.generic]], rows: int) -> NDArray[np.int64]:
    """A number for each row, the same for equal rows of all arrays, in order of first appearance."""
    if not arrays:
        return np.zeros(rows, dtype=np.int64)
    flat = [np.ascontiguousarray(array).reshape(rows, -1) for array in arrays]
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(b"".join(part[row].tobytes() for part in flat), len(seen)) for row in range(rows)])
