"""What becomes of a codebook where training ends and evaluation begins, measured on a checkpoint.

The questions are those that a published system left open, whose codebook had 136 to 183 codewords in use in training and one
in evaluation: does usage collapse at once or gradually, do all samples send the same codewords, do features drift, and where
does the straight-through gradient go. `train.collapse_answers` puts what is measured here into words.
"""

from __future__ import annotations

import copy
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from link.channel.awgn import add_noise
from link.randomness import Draws, permutation
from train.checkpoint import Checkpoint
from train.collapse import TokenDrift, token_drift, token_statistics
from train.evaluate import evaluate, modes_at, noise, side_tensors, tensors
from train.losses import task_loss
from train.questions import taught
from train.tasks import Data, Split, Task
from train.transceiver import Transceiver, straight_through
from train.usage import by_rank, perplexity_of

ROWS_MAX: Final = 2048
"""Rows of the training and of the validation set whose tokens are compared; as many of one as of the other, since the
perplexity of few rows is less than that of many."""


class Course(BaseModel):
    """Perplexity as evaluation goes on, over batches of `rows` rows in the order in which they pass one model.

    The rows are shuffled first: a batch of one class or recording uses few codewords however healthy the codebook is.

    Attributes
    ----------
    reachable : int
        min(K, rows x tokens): what a batch can have at most.
    training : float
        Of a batch of as many training rows, augmented and in training mode; the mean over such batches.
    first, middle, last : float
        Of these batches of the validation set.
    so_far_first, so_far_middle, so_far_last : float
        Of all rows up to and with them.
    """

    model_config = ConfigDict(frozen=True)

    rows: int
    batches: int
    reachable: int
    training: float
    first: float
    middle: float
    last: float
    so_far_first: float
    so_far_middle: float
    so_far_last: float


class Favourites(BaseModel):
    """The two most used codewords.

    Attributes
    ----------
    training, validation : float
        Share of the tokens that they carry, of each set its own two.
    alone : float
        Share of the validation rows that send nothing but these two.
    """

    model_config = ConfigDict(frozen=True)

    training: float
    validation: float
    alone: float


class FeatureDrift(BaseModel):
    """From what the encoder gives in training, augmented and in training mode, to what it gives in evaluation.

    Attributes
    ----------
    features, tokens : TokenDrift
        Before and behind the normalisation.
    by_augmentation : TokenDrift
        Of the tokens: training rows as they are against the same rows augmented, both as evaluated.
    """

    model_config = ConfigDict(frozen=True)

    features: TokenDrift
    tokens: TokenDrift
    by_augmentation: TokenDrift


class GradientFlow(BaseModel):
    """Where the gradient of the task's loss goes.

    Attributes
    ----------
    straight_through, surrogate, without_link : float
        Its norm at the encoder's output, on one training batch in training mode: through argmax and back as the recipe has
        it, through the soft path or past the link; through the soft path both ways; with nothing between encoder and head.
    reached : float
        Share of the rows to which the first of these brings any.
    graph_in_evaluation : bool
        Whether encoder or head, while they evaluate, give what a gradient could be asked of.
    """

    model_config = ConfigDict(frozen=True)

    straight_through: float
    surrogate: float
    without_link: float
    reached: float
    graph_in_evaluation: bool


class FrozenEncoder(BaseModel):
    """What moved between best and last checkpoint, and whether encoder or codebook did it.

    Attributes
    ----------
    first, last : int
        Their epochs.
    drift : TokenDrift
        Of the validation set's tokens.
    changed : float
        Share of its tokens that have another codeword.
    codebook_alone, encoder_alone : float
        The same where the encoder, or the codebook, is that of the earlier epoch. The first is what a frozen encoder leaves;
        the codebook would have gone elsewhere behind one, so it is no forecast.
    """

    model_config = ConfigDict(frozen=True)

    first: int
    last: int
    drift: TokenDrift
    changed: float
    codebook_alone: float
    encoder_alone: float


class CollapseProbe(BaseModel):
    """All of it, of the last checkpoint; `frozen` is None where best and last are of one epoch."""

    model_config = ConfigDict(frozen=True)

    course: Course
    favourites: Favourites
    drift: FeatureDrift
    gradient: GradientFlow
    frozen: FrozenEncoder | None


class Encoded(NamedTuple):
    """What the encoder makes of rows: features as it gives them, and tokens (B, N, D)."""

    features: Tensor
    tokens: Tensor


def probe_collapse(
    last: tuple[Checkpoint, Transceiver], best: tuple[Checkpoint, Transceiver], task: Task, data: Data
) -> CollapseProbe:
    """Measure the last checkpoint, and how far it is from the best; both models stay as they are.

    With several modes, codewords are those of the first codebook.
    """
    found, model = last
    size, seed = found.recipe.optimizer.batch_size, found.recipe.seed
    count = min(len(data.train), len(data.validation), ROWS_MAX)
    order = permutation(seed, count)
    validation = rows_of(data.validation, spread_rows(len(data.validation), count)[order])
    chosen = spread_rows(len(data.train), count)[order]
    plain = rows_of(data.train, chosen)
    augmented = Split(task.augment(plain.inputs, Draws(seed, chosen, found.epoch)), plain.labels)
    trained = encode_as(model, task, augmented, size, seed, training=True)
    evaluated = encode_as(model, task, validation, size, seed)
    indices = [model.quantizer.hard(part.tokens) for part in (trained, evaluated)]
    without, with_augmentation = (encode_as(model, task, split, size, seed).tokens for split in (plain, augmented))
    return CollapseProbe(
        course=_course(indices[0], indices[1], model.quantizer.codewords, min(size, count)),
        favourites=_favourites(indices[0], indices[1], model.quantizer.codewords),
        drift=FeatureDrift(
            features=_drift(trained.features, evaluated.features),
            tokens=_drift(trained.tokens, evaluated.tokens),
            by_augmentation=_drift(with_augmentation, without),
        ),
        gradient=_gradient(model, task, data, found),
        frozen=None if best[0].epoch == found.epoch else _frozen(best, last, task, validation),
    )


@torch.no_grad()
def encode_as(
    model: Transceiver, task: Task, split: Split, batch_size: int, seed: int, *, training: bool = False
) -> Encoded:
    """Features and tokens of a split in either mode of the modules, in batches about as large as training's.

    Some modules use the statistics of a batch. The model stays as it is: in training mode a forward pass moves running
    statistics, so a copy is asked.
    """
    subject = copy.deepcopy(model).train(training)
    parts = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of dropout, in training mode
        for chosen in np.array_split(np.arange(len(split)), -(-len(split) // batch_size)):
            features = subject.encoder(*(rows[:] for rows in tensors(task, rows_of(split, chosen))))
            parts.append(Encoded(features, _tokens(subject, features)))
    return Encoded(*(torch.cat(part) for part in zip(*parts, strict=True)))


def spread_rows(available: int, count: int) -> NDArray[np.int64]:
    """So many rows, spread evenly over those available."""
    return np.arange(count) * available // count


def spread(split: Split, count: int) -> Split:
    """So many rows, spread evenly over a split."""
    return rows_of(split, spread_rows(len(split), count))


def rows_of(split: Split, chosen: NDArray[np.int64]) -> Split:
    """Some rows of a split."""
    return Split({name: value[chosen] for name, value in split.inputs.items()}, split.labels[chosen])


def _tokens(model: Transceiver, features: Tensor) -> Tensor:
    return model.quantizer.tokens(features if model.bottleneck is None else model.bottleneck(features).mean)


def _drift(training: Tensor, evaluation: Tensor) -> TokenDrift:
    return token_drift(token_statistics(training), token_statistics(evaluation))


def _course(trained: Tensor, evaluated: Tensor, codewords: int, rows: int) -> Course:
    def counts(indices: Tensor) -> list[Tensor]:
        whole = indices[: len(indices) - len(indices) % rows]
        return [torch.bincount(batch.flatten(), minlength=codewords) for batch in torch.split(whole, rows)]

    training, evaluation = counts(trained), counts(evaluated)
    so_far = torch.stack(evaluation).cumsum(dim=0)
    middle = len(evaluation) // 2
    return Course(
        rows=rows,
        batches=len(evaluation),
        reachable=min(codewords, rows * evaluated.shape[1]),
        training=float(np.mean([perplexity_of(batch) for batch in training])),
        first=perplexity_of(evaluation[0]),
        middle=perplexity_of(evaluation[middle]),
        last=perplexity_of(evaluation[-1]),
        so_far_first=perplexity_of(so_far[0]),
        so_far_middle=perplexity_of(so_far[middle]),
        so_far_last=perplexity_of(so_far[-1]),
    )


def _favourites(trained: Tensor, evaluated: Tensor, codewords: int) -> Favourites:
    counts = [torch.bincount(indices.flatten(), minlength=codewords) for indices in (trained, evaluated)]
    two = counts[1].topk(2).indices
    return Favourites(
        training=float(by_rank(counts[0].tolist())[:2].sum()),
        validation=float(by_rank(counts[1].tolist())[:2].sum()),
        alone=float(torch.isin(evaluated, two).all(dim=1).double().mean()),
    )


def _gradient(model: Transceiver, task: Task, data: Data, found: Checkpoint) -> GradientFlow:
    """On as many training rows as a batch has, at the middle of the Es/N0 of training."""
    rows = min(found.recipe.optimizer.batch_size, len(data.train))
    part = spread(data.train, rows)
    subject = copy.deepcopy(model).train()
    snr_db = float(np.mean(found.recipe.channel.train_snr_db))
    labels, side = torch.from_numpy(part.labels), side_tensors(task, part)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(found.recipe.seed)
        with torch.no_grad():
            given = subject.encoder(*(values[:] for values in tensors(task, part)))
        features = given.detach().requires_grad_()
        tokens = _tokens(subject, features)
        mode = modes_at(subject, tokens.detach(), snr_db)
        soft = subject.send_soft(tokens, found.vq_temp, found.symbol_temp, mode)
        hard = subject.send_hard(tokens, mode)
        met = noise(found.recipe.seed, slice(0, rows), 0, snr_db, hard.symbols.shape[1])
        no = subject.noise_met(met.no)
        by_surrogate, by_points = (
            subject.receive(add_noise(symbols, no, met.normals), no, None, mode, side, answers=False).embedding
            for symbols in (soft.symbols, straight_through(hard.symbols, soft.symbols))
        )
        if found.recipe.quantizer.gradient == "straight-through":
            by_points = straight_through(by_points, tokens)
        without, surrogate, through = (
            _asked_of(task_loss(taught(subject.head, embedding, side, labels), labels), features)
            for embedding in (tokens, by_surrogate, by_points)
        )
    return GradientFlow(
        straight_through=float(through.norm()),
        surrogate=float(surrogate.norm()),
        without_link=float(without.norm()),
        reached=float((through.flatten(1) != 0.0).any(dim=1).double().mean()),
        graph_in_evaluation=_builds_graph(model, task, spread(data.validation, min(rows, len(data.validation))), found),
    )


def _asked_of(loss: Tensor, features: Tensor) -> Tensor:
    """The gradient of a loss at the features; zeros where nothing leads there."""
    if not loss.requires_grad:
        return torch.zeros_like(features)
    (gradient,) = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    return torch.zeros_like(features) if gradient is None else gradient


def _builds_graph(model: Transceiver, task: Task, split: Split, found: Checkpoint) -> bool:
    """Whether encoder or head take part in a graph while a split is evaluated."""
    subject, seen = copy.deepcopy(model), []
    for module in (subject.encoder, subject.head):
        module.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    channel = found.recipe.channel
    evaluate(
        subject,
        task,
        split,
        channel.model_copy(update={"eval_snr_db": channel.eval_snr_db[-1:], "eval_draws": 1}),
        temperature=found.vq_temp,
        symbol_temperature=found.symbol_temp,
        seed=found.recipe.seed,
        header=found.recipe.header,
    )
    return any(seen)


def _frozen(
    best: tuple[Checkpoint, Transceiver], last: tuple[Checkpoint, Transceiver], task: Task, split: Split
) -> FrozenEncoder:
    size, seed = last[0].recipe.optimizer.batch_size, last[0].recipe.seed
    before, after = (encode_as(model, task, split, size, seed).tokens for _, model in (best, last))
    old, new = best[1].quantizer, last[1].quantizer
    start = old.hard(before)

    def changed(indices: Tensor) -> float:
        return float((indices != start).double().mean())

    return FrozenEncoder(
        first=best[0].epoch,
        last=last[0].epoch,
        drift=_drift(before, after),
        changed=changed(new.hard(after)),
        codebook_alone=changed(new.hard(before)),
        encoder_alone=changed(old.hard(after)),
    )
