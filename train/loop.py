"""The training loop: warm-up without a link, learning soft, alignment hard.

An epoch is a function of the recipe, its number and the state after the one before: every random number has an address
(seed, epoch, sample), so a run that was interrupted goes on bit for bit as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from link.bits import group
from link.channel.awgn import add_noise
from link.constellation import bits_per_symbol, symbol_energy
from link.errors import CheckpointError
from link.lock import locked
from link.provenance import code_version
from link.randomness import Draws, Stream, permutation
from link.theory import bit_error_rates
from train import checkpoint as checkpoints
from train import losses
from train.checkpoint import Checkpoint
from train.collapse import CollapseMonitor, alarms
from train.evaluate import Evaluation, evaluate, tensors
from train.recipe import LossRecipe, Recipe
from train.record import EpochRecord, Recorder
from train.schedule import EpochPlan, Phase, learning_rate_factor, plan
from train.tasks import Data, Split, Task, load_task
from train.transceiver import Transceiver, straight_through


class Summary(NamedTuple):
    """How a run ended: its best and its last checkpoint."""

    best: Checkpoint
    last: Checkpoint

    def text(self, folder: Path) -> str:
        """Best against last, for the screen."""
        rule = "=" * 70
        lines = [rule, "Training finished!"]
        for name, kept in self._asdict().items():
            by_snr = " ".join(f"{snr}dB={value:.4f}" for snr, value in kept.hard_accuracy.items())
            lines += [
                f"  {name.capitalize()}: epoch {kept.epoch}, {kept.phase.value}, vq_T={kept.vq_temp:.3f}, "
                f"hard {kept.mean_hard_accuracy:.4f} ({by_snr})",
                f"        {folder / name}",
            ]
        gap = self.best.mean_hard_accuracy - self.last.mean_hard_accuracy
        return "\n".join([*lines, f"  Best - last: {100 * gap:.2f} points, hard, mean over the grid", rule])


def train(
    recipe: Recipe,
    folder: Path,
    *,
    data_folder: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> Summary:
    """Train a recipe into a folder, going on where an interrupted run of the same recipe stopped.

    Parameters
    ----------
    recipe : Recipe
    folder : Path
        Gets best/, last/, metrics.jsonl and tensorboard/.
    data_folder : Path, optional
        Files of the task's data set, where it needs any.
    on_epoch : callable, optional
        Called with each finished epoch.

    Raises
    ------
    CheckpointError
        If the folder holds a run of another recipe.
    """
    with locked(folder):
        return _train(recipe, folder, data_folder, on_epoch)


def _train(
    recipe: Recipe, folder: Path, data_folder: Path | None, on_epoch: Callable[[EpochRecord], None] | None
) -> Summary:
    task = load_task(recipe.task)
    trainer = Trainer(recipe, task, task.load(data_folder))
    start = trainer.restore(folder)
    recorder = Recorder(folder, after=start)
    try:
        for epoch in range(start + 1, recipe.schedule.epochs + 1):
            record = trainer.run_epoch(epoch, folder)
            recorder.write(record)
            checkpoints.save(folder / "last", trainer.checkpoint(record), trainer.model, trainer.optimizer)
            if on_epoch is not None:
                on_epoch(record)
    finally:
        recorder.close()
    return Summary(checkpoints.read(folder / "best"), checkpoints.read(folder / "last"))


class _Batch(NamedTuple):
    """Rows of one step and the noise that each of them meets."""

    inputs: list[Tensor]
    labels: Tensor
    normals: Tensor
    snr_db: np.ndarray

    @property
    def no(self) -> Tensor:
        """Noise variance of each symbol, (B, S)."""
        variance = torch.from_numpy((10.0 ** (-self.snr_db / 10.0)).astype(np.float32))
        return variance[:, None].expand(self.normals.shape[:-1])


class _Terms(NamedTuple):
    """The unweighted terms of one step's loss."""

    task: Tensor
    commitment: Tensor
    assignment: Tensor
    usage: Tensor
    consistency: Tensor
    energy: Tensor

    def total(self, weights: LossRecipe) -> Tensor:
        return (
            self.task
            + weights.lambda_vq * self.commitment
            + weights.lambda_assignment * self.assignment
            - weights.lambda_entropy * self.usage
            + weights.lambda_consistency * self.consistency
            + weights.lambda_energy * self.energy
        )


class Trainer:
    """Model, optimiser and best result of one run."""

    def __init__(self, recipe: Recipe, task: Task, data: Data) -> None:
        self.recipe = recipe
        self.task = task
        self.data = data
        self.model: Transceiver = checkpoints.build_transceiver(recipe)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.optimizer.learning_rate, weight_decay=recipe.optimizer.weight_decay
        )
        self.best_epoch = 0
        self.best_accuracy = -1.0
        self._steps_per_epoch = -(-len(data.train) // recipe.optimizer.batch_size)

    def restore(self, folder: Path) -> int:
        """Go back to the last finished epoch in `folder`; its number, or 0."""
        file = folder / "last" / checkpoints.FILE_NAME
        if not file.is_file():
            return 0
        found = checkpoints.read(file)
        differences = checkpoints.recipe_differences(found.recipe, self.recipe)
        if differences:
            raise CheckpointError(
                f"{folder} holds a run of another recipe ({'; '.join(differences[:3])}); name another folder with --out"
            )
        checkpoints.resume(file, self.model, self.optimizer)
        self.best_epoch, self.best_accuracy = found.best_epoch, found.best_accuracy
        return found.epoch

    def run_epoch(self, epoch: int, folder: Path) -> EpochRecord:
        """Train one epoch, evaluate it, and keep it in `folder`/best if it is the best so far."""
        settings = plan(self.recipe.schedule, epoch)
        if epoch == self.recipe.schedule.warmup_epochs + 1:
            self._start_codebook()
        if epoch == self.recipe.schedule.alignment_start_epoch:
            self.model.quantizer.align_labels(self._label_error_rates())
        record = self._warm_up(settings) if settings.phase is Phase.WARMUP else self._train_link(settings)
        # Later epochs win ties: they had more alignment.
        if record.hard_mean is not None and record.hard_mean >= self.best_accuracy:
            self.best_epoch, self.best_accuracy = epoch, record.hard_mean
            record = record.model_copy(update={"is_best": True})
            checkpoints.save(folder / "best", self.checkpoint(record), self.model)
        return record

    def run_without_link(self, on_epoch: Callable[[int], None] | None = None) -> Transceiver:
        """Train encoder and head alone for as many epochs as the recipe has: the classifier without a link."""
        for epoch in range(1, self.recipe.schedule.epochs + 1):
            self._warm_up(EpochPlan(epoch, Phase.WARMUP, 1.0, hard_forward=False, restarts=False))
            if on_epoch is not None:
                on_epoch(epoch)
        return self.model.eval()

    def checkpoint(self, record: EpochRecord) -> Checkpoint:
        """What a checkpoint of this epoch says of itself."""
        return Checkpoint(
            recipe=self.recipe,
            epoch=record.epoch,
            phase=record.phase,
            vq_temp=record.vq_temp,
            symbol_temp=record.symbol_temp,
            hard_accuracy=record.hard_accuracy,
            soft_accuracy=record.soft_accuracy,
            best_epoch=self.best_epoch,
            best_accuracy=self.best_accuracy,
            code_version=code_version(),
            labels_sha256=self.model.quantizer.labels_sha256,
        )

    def _warm_up(self, settings: EpochPlan) -> EpochRecord:
        """One epoch of encoder and head alone."""
        self.model.train()
        total, correct = 0.0, 0
        for step, batch in self._batches(settings.epoch):
            logits = self.model.head(self.model.encode(*batch.inputs))
            loss = losses.task_loss(logits, batch.labels)
            self._step(loss, step)
            total += float(loss.detach()) * len(batch.labels)
            correct += int((logits.argmax(dim=-1) == batch.labels).sum())
        rows = len(self.data.train)
        return self._record(
            settings,
            {"loss": total / rows, "task": total / rows},
            correct / rows,
            no_link=self._accuracy_without_link(),
        )

    def _train_link(self, settings: EpochPlan) -> EpochRecord:
        """One epoch over the link, soft or hard forward."""
        self.model.train()
        monitor = CollapseMonitor(self.recipe.link)
        sums: dict[str, float] = {}
        correct = 0
        tokens = torch.empty(0)
        for step, batch in self._batches(settings.epoch):
            tokens = self.model.encode(*batch.inputs)
            terms, hits = self._forward(tokens, batch, settings, monitor)
            loss = terms.total(self.recipe.loss)
            self._step(loss, step)
            flat = tokens.detach().reshape(-1, self.recipe.link.dim)
            self.model.quantizer.update(flat, self.model.quantizer.hard(flat))
            for name, value in {"loss": loss, **terms._asdict()}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(batch.labels)
            correct += hits
        restarted = self._restart(tokens.detach().reshape(-1, self.recipe.link.dim), settings)
        self.model.quantizer.refresh_prior()
        evaluation = evaluate(
            self.model,
            self.task,
            self.data.validation,
            self.recipe.channel,
            temperature=settings.vq_temp,
            seed=self.recipe.seed,
        )
        rows = len(self.data.train)
        return self._record(
            settings,
            {name: value / rows for name, value in sums.items()},
            correct / rows,
            monitor=monitor,
            evaluation=evaluation,
            restarted=restarted,
        )

    def _forward(
        self, tokens: Tensor, batch: _Batch, settings: EpochPlan, monitor: CollapseMonitor
    ) -> tuple[_Terms, int]:
        """The loss terms of one step and its correct answers, by the path that the phase sends."""
        model, no = self.model, batch.no
        soft, hard = model.send_soft(tokens, settings.vq_temp), model.send_hard(tokens)
        # Hard forward, soft backward: the constellation point is sent, the gradient is the mean symbol's.
        symbols = straight_through(hard.symbols, soft.symbols)
        bits = straight_through(hard.bits, soft.bits)
        soft_heard = model.receive(add_noise(soft.symbols, no, batch.normals), no)
        with torch.set_grad_enabled(settings.hard_forward):
            hard_heard = model.receive(add_noise(symbols, no, batch.normals), no)
        answer = hard_heard if settings.hard_forward else soft_heard
        consistency = losses.consistency_loss(soft_heard.embedding, hard_heard.embedding)
        monitor.add(soft, hard, soft_heard, hard_heard, batch.snr_db)
        terms = _Terms(
            task=losses.task_loss(answer.logits, batch.labels),
            commitment=losses.commitment_loss(tokens, model.quantizer.codewords_of(hard.indices)),
            assignment=losses.assignment_entropy(soft.probabilities),
            usage=losses.usage_entropy(soft.probabilities),
            consistency=consistency if settings.hard_forward else torch.zeros(()),
            energy=losses.excess_energy(symbol_energy(group(bits, bits_per_symbol(self.recipe.link.order)))),
        )
        return terms, int((answer.logits.argmax(dim=-1) == batch.labels).sum())

    def _batches(self, epoch: int) -> Iterator[tuple[int, _Batch]]:
        """The epoch's steps, counted over the whole run, and their batches."""
        seed, rows, split = self.recipe.seed, len(self.data.train), self.data.train
        draws = Draws(seed, np.arange(rows), epoch)
        inputs = tensors(self.task, Split(self.task.augment(split.inputs, draws), split.labels))
        labels = torch.from_numpy(split.labels)
        noise = draws.normals(Stream.TRAINING_NOISE, 0, self.recipe.link.num_symbols).astype(np.float32)
        low, high = self.recipe.channel.train_snr_db
        snr_db = low + (high - low) * draws.uniforms(Stream.TRAINING_SNR, 0, 1)[:, 0]
        order = permutation(seed, rows, epoch)
        size = self.recipe.optimizer.batch_size
        for index in range(self._steps_per_epoch):
            chosen = order[index * size : (index + 1) * size]
            yield (
                (epoch - 1) * self._steps_per_epoch + index,
                _Batch(
                    [tensor[chosen] for tensor in inputs],
                    labels[chosen],
                    torch.from_numpy(noise[chosen]),
                    snr_db[chosen],
                ),
            )

    def _step(self, loss: Tensor, step: int) -> None:
        steps = self._steps_per_epoch * self.recipe.schedule.epochs
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.recipe.optimizer.learning_rate * learning_rate_factor(step, steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def _start_codebook(self) -> None:
        """Codebook, labels and scale from what the warmed-up encoder makes of the training set."""
        self.model.eval()
        tokens = self.model.encode(*tensors(self.task, self.data.train)).reshape(-1, self.recipe.link.dim)
        self.model.quantizer.start(
            tokens,
            temperature=self.recipe.schedule.temp_freeze_floor,
            target_entropy=self.recipe.quantizer.target_assignment_entropy,
            bit_error_rates=self._label_error_rates(),
            seed=self.recipe.seed,
        )

    def _label_error_rates(self) -> np.ndarray:
        """Error rate of each bit of a label, (k,), at the Es/N0 that labels are searched for."""
        link = self.recipe.link
        by_position = bit_error_rates(link.order, self.recipe.quantizer.label_snr_db)
        # Bit i of a token stands at another place of the symbol in each token: its rate is the mean over tokens.
        payload = np.resize(by_position, link.num_bits).reshape(link.tokens, link.index_bits)
        rates: np.ndarray = payload.mean(axis=0)
        return rates

    def _restart(self, tokens: Tensor, settings: EpochPlan) -> int:
        recipe = self.recipe.quantizer
        if not recipe.restarts_in(settings.epoch, learning=settings.restarts):
            return 0
        threshold = recipe.fair_threshold(self.recipe.link.codewords)
        return self.model.quantizer.restart(tokens, threshold, seed=self.recipe.seed, draw=settings.epoch)

    @torch.no_grad()
    def _accuracy_without_link(self) -> float:
        self.model.eval()
        split = self.data.validation
        logits = self.model.head(self.model.encode(*tensors(self.task, split)))
        return float((logits.argmax(dim=-1).numpy() == split.labels).mean())

    def _record(
        self,
        settings: EpochPlan,
        loss_values: dict[str, float],
        train_accuracy: float,
        *,
        no_link: float | None = None,
        monitor: CollapseMonitor | None = None,
        evaluation: Evaluation | None = None,
        restarted: int = 0,
    ) -> EpochRecord:
        metrics = None if monitor is None else monitor.result()
        found = evaluation.collapse if evaluation is not None else None
        return EpochRecord(
            epoch=settings.epoch,
            phase=settings.phase,
            vq_temp=settings.vq_temp,
            symbol_temp=1.0,
            hard_forward=settings.hard_forward,
            losses=loss_values,
            train_accuracy=train_accuracy,
            validation_no_link=no_link,
            hard_accuracy={} if evaluation is None else {f"{snr:g}": value for snr, value in evaluation.hard.items()},
            soft_accuracy={} if evaluation is None else {f"{snr:g}": value for snr, value in evaluation.soft.items()},
            hard_mean=None if evaluation is None else evaluation.mean_hard,
            soft_mean=None if evaluation is None else evaluation.mean_soft,
            train_collapse=metrics,
            validation_collapse=found,
            bits=self.recipe.link.num_bits,
            symbols=self.recipe.link.num_symbols,
            restarted=restarted,
            alarms=[]
            if found is None
            else alarms(
                found,
                self.recipe.link,
                self.recipe.alarms,
                annealing=settings.vq_temp > self.recipe.schedule.temp_freeze_floor,
            ),
            is_best=False,
        )
