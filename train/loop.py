"""The training loop: warm-up without a link, learning soft, alignment hard.

An epoch is a function of the recipe, its number and the state after the one before: every random number has an address
(seed, epoch, sample), so a run that was interrupted goes on bit for bit as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from link.errors import CheckpointError
from link.lock import locked
from link.provenance import code_version
from link.randomness import Draws, Stream, permutation
from link.theory import bit_error_rates
from train import checkpoint as checkpoints
from train import losses
from train.alarms import alarms
from train.checkpoint import Checkpoint
from train.collapse import CollapseMonitor, loss_shares, token_drift
from train.ending import ending
from train.evaluate import Evaluation, decide_without_link, encode, evaluate, tensors
from train.features import Progress
from train.objective import send, terms_of
from train.recipe import Recipe
from train.record import EpochRecord, Recorder, read_metrics
from train.routing import ModeChoice, Routing, RoutingNoise
from train.schedule import EpochPlan, Phase, learning_rate_factor, plan
from train.stage import Stage
from train.tasks import Data, Split, Task, load_task, task_facts
from train.transceiver import Transceiver

START_TOKENS: Final = 2**16
"""Most tokens that the codebook is started from."""


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
        if self.last.ended is not None:
            lines.append(
                f"  Ended after epoch {self.last.epoch} of {self.last.recipe.schedule.epochs}: {self.last.ended}"
            )
        gap = self.best.mean_hard_accuracy - self.last.mean_hard_accuracy
        return "\n".join([*lines, f"  Best - last: {100 * gap:.2f} points, hard, mean over the grid", rule])


def train(
    recipe: Recipe,
    folder: Path,
    *,
    data_folder: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_encoding: Progress | None = None,
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
    on_encoding : callable, optional
        Told how far a frozen backbone is with the data; see train.features.

    Raises
    ------
    CheckpointError
        If the folder holds a run of another recipe.
    """
    with locked(folder):
        return _train(recipe, folder, data_folder, on_epoch, on_encoding)


def _train(
    recipe: Recipe,
    folder: Path,
    data_folder: Path | None,
    on_epoch: Callable[[EpochRecord], None] | None,
    on_encoding: Progress | None,
) -> Summary:
    facts = checkpoints.facts_of_run(folder)
    if facts is None:
        facts = task_facts(recipe, data_folder)
    task = load_task(recipe.task, recipe.task_options, facts)
    trainer = Trainer(recipe, task, task.load(data_folder), facts=facts, on_encoding=on_encoding)
    start = trainer.restore(folder)
    recorder = Recorder(folder, after=start)
    records = read_metrics(folder)
    ended = checkpoints.read(folder / "last").ended if start else None
    try:
        for epoch in range(start + 1, recipe.schedule.epochs + 1):
            if ended is not None:
                break
            record = trainer.run_epoch(epoch, folder)
            recorder.write(record)
            records.append(record)
            ended = ending(recipe.schedule, records) if epoch < recipe.schedule.epochs else None
            reached = trainer.checkpoint(record).model_copy(update={"ended": ended})
            checkpoints.save(folder / "last", reached, trainer.model, trainer.optimizer)
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
    routing: RoutingNoise | None

    @property
    def no(self) -> Tensor:
        """Noise variance of each symbol, (B, S)."""
        variance = torch.from_numpy((10.0 ** (-self.snr_db / 10.0)).astype(np.float32))
        return variance[:, None].expand(self.normals.shape[:-1])


class Trainer:
    """Model, optimiser and best result of one run."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        data: Data,
        *,
        facts: Mapping[str, Any] | None = None,
        on_encoding: Progress | None = None,
    ) -> None:
        self.recipe = recipe
        self.facts = dict(facts or {})
        self.stage = Stage(recipe, task, data, on_encoding)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.optimizer.learning_rate, weight_decay=recipe.optimizer.weight_decay
        )
        self.best_epoch = 0
        self.best_accuracy = -1.0
        self._mode_choice = ModeChoice(recipe) if recipe.link.modes else None
        self._steps_per_epoch = -(-len(self.data.train) // recipe.optimizer.batch_size)

    @property
    def model(self) -> Transceiver:
        """What is trained now: without its backbone while that is frozen."""
        return self.stage.model

    @property
    def task(self) -> Task:
        """The task as the model sees it."""
        return self.stage.task

    @property
    def data(self) -> Data:
        """The data as the model sees them."""
        return self.stage.data

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
        self._unfreeze_by(found.epoch)
        if found.backbone_sha256 != self.stage.backbone_sha256:
            raise CheckpointError(
                f"{folder} was trained behind an encoder whose weights have changed since; name another folder with --out"
            )
        checkpoints.resume(file, self.model, self.optimizer)
        self.best_epoch, self.best_accuracy = found.best_epoch, found.best_accuracy
        return found.epoch

    def run_epoch(self, epoch: int, folder: Path) -> EpochRecord:
        """Train one epoch, evaluate it, and keep it in `folder`/best if it is the best so far."""
        settings = plan(self.recipe.schedule, epoch)
        self._unfreeze_by(epoch)
        self.stage.keep_backbone(folder)
        if epoch == self.recipe.schedule.warmup_epochs + 1:
            self._start_codebook()
        if epoch == self.recipe.schedule.alignment_start_epoch:
            for number, codebook in enumerate(self.model.codebooks):
                codebook.align_labels(self._label_error_rates(number))
        record = self._warm_up(settings) if settings.phase is Phase.WARMUP else self._train_link(settings)
        if (
            self.model.router is not None
            and epoch == 1 + self.recipe.router.explore_epochs + self.recipe.schedule.warmup_epochs
        ):
            self.best_accuracy = -1.0  # what came before was sent without a choice
        accuracy = record.soft_mean if self.model.selected_by == "soft" else record.hard_mean
        # Later epochs win ties: they had more alignment.
        if accuracy is not None and accuracy >= self.best_accuracy:
            self.best_epoch, self.best_accuracy = epoch, accuracy
            record = record.model_copy(update={"is_best": True})
            checkpoints.save(folder / "best", self.checkpoint(record), self.model)
        return record

    def run_without_link(self, on_epoch: Callable[[int], None] | None = None) -> Transceiver:
        """Train encoder and head alone for as many epochs as the recipe has: the classifier without a link."""
        for epoch in range(1, self.recipe.schedule.epochs + 1):
            self._unfreeze_by(epoch)
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
            facts=self.facts,
            backbone_sha256=self.stage.backbone_sha256,
            labels_sha256=self.model.labels_sha256,
        )

    def _unfreeze_by(self, epoch: int) -> None:
        """Train the backbone too, where the recipe says so from this epoch on or an earlier one."""
        optimizer = self.recipe.optimizer
        if self.stage.frozen and optimizer.encoder_learning_rate and epoch >= optimizer.unfreeze_epoch:
            backbone = self.stage.unfreeze()
            self.optimizer.add_param_group(
                {"params": list(backbone.parameters()), "lr": optimizer.encoder_learning_rate}
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
        link_epoch = settings.epoch - self.recipe.schedule.warmup_epochs
        weights = self.recipe.loss.at(link_epoch)
        for step, batch in self._batches(settings.epoch):
            tokens = self.model.encode(*batch.inputs)
            monitor.add_tokens(tokens)
            routing = self._route(tokens, batch, link_epoch)
            sent = send(
                self.model,
                tokens,
                batch.labels,
                batch.no,
                batch.normals,
                settings,
                teach_hard=weights.lambda_kl > 0.0,
                routing=routing,
            )
            of_modes = () if routing is None else (routing.mode, routing.right)
            monitor.add(sent.soft, sent.hard, sent.soft_heard, sent.hard_heard, batch.snr_db, *of_modes)
            terms = terms_of(self.model, sent, settings, weights, self.recipe.header)
            loss = terms.total(weights)
            self._step(loss, step)
            for number, codebook in enumerate(self.model.codebooks):
                flat = self._tokens_of(number, tokens)
                codebook.update(flat, codebook.hard(flat))
            for name, value in {"loss": loss, **terms.values}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(batch.labels)
            correct += sent.correct
        restarted = self._restart(tokens, settings)
        for codebook in self.model.codebooks:
            codebook.refresh_prior()
        evaluation = evaluate(
            self.model,
            self.task,
            self.data.validation,
            self.recipe.channel,
            temperature=settings.vq_temp,
            symbol_temperature=settings.symbol_temp,
            seed=self.recipe.seed,
            header=self.recipe.header,
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

    def _batches(self, epoch: int) -> Iterator[tuple[int, _Batch]]:
        """The epoch's steps, counted over the whole run, and their batches."""
        seed, rows, split = self.recipe.seed, len(self.data.train), self.data.train
        draws = Draws(seed, np.arange(rows), epoch)
        inputs = tensors(self.task, Split(self.task.augment(split.inputs, draws), split.labels))
        labels = torch.from_numpy(split.labels)
        noise = draws.normals(Stream.TRAINING_NOISE, 0, self.recipe.link.num_symbols).astype(np.float32)
        low, high = self.recipe.channel.train_snr_db
        snr_db = low + (high - low) * draws.uniforms(Stream.TRAINING_SNR, 0, 1)[:, 0]
        routing = None if self._mode_choice is None else self._mode_choice.noise(draws)
        order = permutation(seed, rows, epoch)
        size = self.recipe.optimizer.batch_size
        for index in range(self._steps_per_epoch):
            chosen = order[index * size : (index + 1) * size]
            yield (
                (epoch - 1) * self._steps_per_epoch + index,
                _Batch(
                    self.stage.rows(inputs, chosen),
                    labels[chosen],
                    torch.from_numpy(noise[chosen]),
                    snr_db[chosen],
                    None if routing is None else routing.rows(chosen),
                ),
            )

    def _step(self, loss: Tensor, step: int) -> None:
        steps = self._steps_per_epoch * self.recipe.schedule.epochs
        recipe = self.recipe.optimizer
        for parameters, rate in zip(
            self.optimizer.param_groups, (recipe.learning_rate, recipe.encoder_learning_rate), strict=False
        ):
            parameters["lr"] = rate * learning_rate_factor(step, steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def _start_codebook(self) -> None:
        """Codebook, labels and scale from what the warmed-up encoder makes of the training set."""
        self.model.eval()
        link, split = self.recipe.link, self.data.train
        chosen = np.arange(len(split))
        if len(split) * link.tokens > START_TOKENS:
            chosen = np.sort(permutation(self.recipe.seed, len(split))[: START_TOKENS // link.tokens])
        tokens = encode(self.model, [tensor[chosen] for tensor in tensors(self.task, split)])
        for number, codebook in enumerate(self.model.codebooks):
            codebook.start(
                self._tokens_of(number, tokens),
                temperature=self.recipe.schedule.temp_reference,
                target_entropy=self.recipe.quantizer.target_assignment_entropy,
                bit_error_rates=self._label_error_rates(number),
                seed=self.recipe.seed,
            )

    def _tokens_of(self, number: int, tokens: Tensor) -> Tensor:
        """Those of (B, N, D) tokens that some mode sends with a codebook, in one row."""
        link = self.recipe.link
        return tokens.detach()[:, : link.codebook_link(number).tokens].reshape(-1, link.dim)

    def _route(self, tokens: Tensor, batch: _Batch, link_epoch: int) -> Routing | None:
        """The modes of a batch; None where there is one."""
        if self._mode_choice is None or batch.routing is None:
            return None
        return self._mode_choice.choose(self.model, tokens, batch.snr_db, batch.routing, link_epoch)

    def _label_error_rates(self, number: int = 0) -> np.ndarray:
        """Error rate of each bit of a codebook's labels, (k,), at the Es/N0 that they are searched for; mean over modes."""
        link, snr_db = self.recipe.link, self.recipe.quantizer.label_snr_db
        rates = []
        for mode in link.rates:
            if mode.codewords == link.codebook_sizes[number]:
                by_position = bit_error_rates(mode.order, snr_db)
                # Bit i of a token stands at another place of the symbol in each token: its rate is the mean over tokens.
                rates.append(np.resize(by_position, mode.num_bits).reshape(mode.tokens, mode.index_bits).mean(axis=0))
        return rates[0] if len(rates) == 1 else np.asarray(np.mean(rates, axis=0))

    def _restart(self, tokens: Tensor, settings: EpochPlan) -> int:
        recipe, seed = self.recipe.quantizer, self.recipe.seed
        if not recipe.restarts_in(settings.epoch, learning=settings.restarts):
            return 0
        return sum(
            codebook.restart(
                self._tokens_of(number, tokens),
                recipe.fair_threshold(codebook.codewords),
                seed=seed,
                draw=settings.epoch,
            )
            for number, codebook in enumerate(self.model.codebooks)
        )

    def _accuracy_without_link(self) -> float:
        split = self.data.validation
        return float((decide_without_link(self.model, self.task, split) == split.labels).mean())

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
        labels = self.data.validation.labels
        weights = (
            self.recipe.loss.at(max(settings.epoch - self.recipe.schedule.warmup_epochs, 0))
            if metrics
            else self.recipe.loss
        )
        record = EpochRecord(
            epoch=settings.epoch,
            phase=settings.phase,
            vq_temp=settings.vq_temp,
            symbol_temp=settings.symbol_temp,
            hard_forward=settings.hard_forward,
            losses=loss_values,
            train_accuracy=train_accuracy,
            validation_no_link=no_link,
            hard_accuracy={} if evaluation is None else {f"{snr:g}": value for snr, value in evaluation.hard.items()},
            soft_accuracy={} if evaluation is None else {f"{snr:g}": value for snr, value in evaluation.soft.items()},
            hard_mean=None if evaluation is None else evaluation.mean_hard,
            soft_mean=None if evaluation is None else evaluation.mean_soft,
            train_collapse=metrics,
            validation_collapse=None if evaluation is None else evaluation.collapse,
            bits=self.recipe.link.num_bits if evaluation is None else evaluation.bits,
            symbols=self.recipe.link.num_symbols if evaluation is None else evaluation.symbols,
            restarted=restarted,
            alarms=[],
            is_best=False,
            loss_shares=loss_shares(loss_values, weights, self.recipe.link),
            validation_samples=len(labels),
            chance=float(np.bincount(labels).max() / len(labels)),
        )
        if monitor is not None and evaluation is not None:
            validation = evaluation.hard_loss if settings.hard_forward else evaluation.soft_loss
            record = record.model_copy(
                update={
                    "validation_task_soft": evaluation.soft_loss,
                    "validation_task_hard": evaluation.hard_loss,
                    "overfitting": validation / max(loss_values["task"], 1e-12),
                    "soft_hard_gap": 100.0 * (evaluation.mean_soft - evaluation.mean_hard),
                    "mode_shares": evaluation.mode_shares,
                    "codebook_usage": {str(size): usage for size, usage in evaluation.usage.items()},
                    "headers_lost": evaluation.headers_lost,
                    "headers_wrong": evaluation.headers_wrong,
                    "token_drift": token_drift(monitor.token_statistics(), evaluation.tokens),
                }
            )
        return record.model_copy(update={"alarms": alarms(record, self.recipe)})
