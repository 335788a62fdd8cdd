"""The training loop: warm-up without a link, learning soft, alignment hard.

An epoch is a function of the recipe, its number and the state after the one before: every random number has an address
(seed, epoch, sample), so a run that was interrupted goes on bit for bit as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from link.errors import CheckpointError
from link.provenance import code_version
from train import checkpoint as checkpoints
from train import losses
from train.alarms import alarms
from train.batches import Batch, Batches
from train.bottleneck import Latent
from train.checkpoint import Checkpoint, Origin
from train.collapse import CollapseMonitor, loss_shares, token_drift
from train.evaluate import Evaluation, decide_without_link, evaluate
from train.features import Progress
from train.latent import VariationalTraining, drawn_on
from train.objective import send, terms_of
from train.processes import Processes
from train.questions import chance, sizes_of, taught
from train.recipe import LossRecipe, Recipe
from train.record import EpochRecord
from train.routing import ModeChoice, Routing
from train.schedule import EpochPlan, Phase, learning_rate_factor, plan
from train.stage import Stage
from train.tasks import Data, Task
from train.transceiver import Transceiver
from train.transmitter import Transmitter
from train.upkeep import Unmoved, Upkeep
from train.usage import side_by_side


class Trainer:
    """Model, optimiser and best result of one run; the same in every process, and the first one keeps files."""

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        data: Data,
        *,
        facts: Mapping[str, Any] | None = None,
        on_encoding: Progress | None = None,
        processes: Processes | None = None,
        transmitter: Transmitter | None = None,
    ) -> None:
        self.recipe = recipe
        self.facts = dict(facts or {})
        self.data_sha256 = data.sha256
        self.transmitter = transmitter
        self.processes = processes or Processes()
        self.stage = Stage(recipe, task, data, on_encoding, self.processes.device, transmitter)
        rate = recipe.optimizer.learning_rate
        self.optimizer = torch.optim.AdamW(
            self.stage.parameter_groups(), lr=rate, weight_decay=recipe.optimizer.weight_decay
        )
        self.best_epoch = 0
        self.best_accuracy = -1.0
        self._mode_choice = ModeChoice(recipe) if recipe.link.modes else None
        self.batches = Batches(recipe, self.stage, self._mode_choice, self.processes)
        upkeep = Upkeep if transmitter is None else Unmoved
        self.upkeep = upkeep(recipe, self.stage, self.processes)
        self.latent: VariationalTraining | None = None
        if recipe.bottleneck.enabled and transmitter is None:
            self.latent = VariationalTraining(recipe.bottleneck, task, recipe.link.dim, self.batches.per_epoch)

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
        checkpoints.require_recipe(found, self.recipe, folder)
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
        kept = self.transmitter
        settings = plan(self.recipe.schedule, epoch) if kept is None else kept.plan(epoch)
        self._unfreeze_by(epoch)
        self.stage.freeze_vision(epoch)
        self.stage.freeze_encoder(epoch)
        if self.processes.is_first:
            self.stage.keep_backbone(folder)
        if epoch == self.recipe.schedule.warmup_epochs + 1:
            self.upkeep.start()
        if epoch == self.recipe.schedule.alignment_start_epoch:
            self.upkeep.align_labels()
        self.processes.align(self.model)
        record = self._warm_up(settings) if settings.phase is Phase.WARMUP else self._train_link(settings)
        record = self.processes.agree(record)
        if kept is None and epoch in self.recipe.chosen_anew:
            self.best_accuracy = -1.0
        accuracy = record.soft_mean if self.model.selected_by == "soft" else record.hard_mean
        # Later epochs win ties: they had more alignment.
        if accuracy is not None and accuracy >= self.best_accuracy:
            self.best_epoch, self.best_accuracy = epoch, accuracy
            record = record.model_copy(update={"is_best": True})
            if self.processes.is_first:
                checkpoints.save(folder / "best", self.checkpoint(record), self.model)
        return record

    def run_without_link(self, on_epoch: Callable[[int], None] | None = None) -> Transceiver:
        """Train encoder and head alone for as many epochs as the recipe has: the classifier without a link."""
        for epoch in range(1, self.recipe.schedule.epochs + 1):
            self._unfreeze_by(epoch)
            self.stage.freeze_vision(epoch)
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
            data_sha256=self.data_sha256,
            transmitter=self._origin,
        )

    @property
    def _origin(self) -> Origin | None:
        """Of what is kept, where a head alone is trained."""
        return None if self.transmitter is None else self.transmitter.origin

    def _weights(self, epoch: int) -> LossRecipe:
        """Of the terms of the loss in an epoch."""
        if self.transmitter is not None:
            return self.transmitter.weights_of(self.recipe.loss)
        return self.recipe.loss.at(max(epoch - self.recipe.schedule.warmup_epochs, 0))

    def _unfreeze_by(self, epoch: int) -> None:
        """Train the layers of the backbone too that the recipe adds in this epoch or an earlier one."""
        for rate, parameters in () if self.transmitter else self.stage.thaw(epoch):
            self.optimizer.add_param_group({"params": parameters, "rate": rate})

    def _warm_up(self, settings: EpochPlan) -> EpochRecord:
        """One epoch of encoder and head alone."""
        self.stage.train()
        total, answered, correct = 0.0, 0.0, 0
        for step, batch in self.batches.of(settings.epoch):
            tokens, latent = self._latent(batch)
            if latent is not None:  # before there is a codebook, its mean is that of normalised tokens
                tokens = tokens.masked_fill(latent.lost[:, None, None], 0.0)
            logits = taught(self.model.head, tokens, batch.side, batch.labels)
            task = losses.task_loss(logits, batch.labels)
            loss = task + self._latent_loss(latent, logits, batch, step)
            self._step(loss, step)
            total += float(loss.detach()) * batch.decisions
            answered += float(task.detach()) * batch.decisions
            correct += int((logits.argmax(dim=-1) == batch.labels).sum())
        decisions = self.data.train.decisions
        return self._record(
            settings,
            {"loss": total / decisions, "task": answered / decisions},
            correct / decisions,
            no_link=self._accuracy_without_link(),
        )

    def _train_link(self, settings: EpochPlan) -> EpochRecord:
        """One epoch over the link, soft or hard forward."""
        self.stage.train()
        batch_rows = self.batches.rows_compared
        monitor = CollapseMonitor(self.recipe.link, batch_rows)
        sums: dict[str, float] = {}
        correct = 0
        schedule, weights = self.recipe.schedule, self._weights(settings.epoch)
        # A router that is kept has learned.
        link_epoch = settings.epoch - schedule.warmup_epochs if self.transmitter is None else schedule.epochs
        for step, batch in self.batches.of(settings.epoch):
            tokens, latent = self._latent(batch)
            monitor.add_tokens(tokens if latent is None else self.model.quantizer.tokens(latent.posterior.mean))
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
                side=batch.side,
                lost=None if latent is None else latent.lost,
                past_link=self.recipe.quantizer.gradient == "straight-through",
            )
            monitor.add_batch(sent.hard.indices)
            of_modes = () if routing is None else (routing.mode, routing.right)
            monitor.add(sent.soft, sent.hard, sent.soft_heard, sent.hard_heard, batch.snr_db, *of_modes)
            terms = terms_of(self.model, sent, settings, weights, self.recipe.header)
            loss = terms.total(weights) + self._latent_loss(latent, sent.answer.logits, batch, step)
            self._step(loss, step)
            self.upkeep.update(tokens)
            for name, value in {"loss": loss, **terms.values}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * len(batch.labels)
            correct += sent.correct
        restarted = self.upkeep.end_epoch(settings)
        evaluation = evaluate(
            self.model,
            self.task,
            self.data.validation,
            self.recipe.channel,
            temperature=settings.vq_temp,
            symbol_temperature=settings.symbol_temp,
            seed=self.recipe.seed,
            header=self.recipe.header,
            batch_rows=batch_rows,
            processes=self.processes,
        )
        rows = len(self.data.train)
        return self._record(
            settings,
            {name: value / rows for name, value in sums.items()},
            correct / self.data.train.decisions,
            monitor=monitor,
            evaluation=evaluation,
            restarted=restarted,
        )

    def _latent(self, batch: Batch) -> tuple[Tensor, Latent | None]:
        """Tokens (B, N, D) of the whole batch; where there is a bottleneck, as drawn, and what they are drawn from."""
        if self.latent is None or self.model.bottleneck is None or batch.latent is None:
            return self.processes.gather(self.model.encode(*batch.inputs), len(batch.labels)), None
        features = self.processes.gather(self.model.encoder(*batch.inputs), len(batch.labels))
        latent = self.latent.draw(self.model.bottleneck(features), batch.latent)
        return self.model.quantizer.tokens(latent.drawn), latent

    def _latent_loss(self, latent: Latent | None, logits: Tensor, batch: Batch, step: int) -> Tensor:
        """What the bottleneck adds to the loss of a step; 0 where there is none."""
        if self.latent is None or latent is None:
            return torch.zeros((), device=logits.device)
        return self.latent.add(self.latent.terms(latent, logits, batch.labels, step), step, len(batch.labels))

    def _step(self, loss: Tensor, step: int) -> None:
        steps = self.batches.per_epoch * self.recipe.schedule.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate_factor(step, steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.add_gradients(self.model, self.model.encoder)
        self.optimizer.step()

    def _route(self, tokens: Tensor, batch: Batch, link_epoch: int) -> Routing | None:
        """The modes of a batch; None where there is one."""
        if self._mode_choice is None or batch.routing is None:
            return None
        return self._mode_choice.choose(self.model, tokens, batch.snr_db, batch.routing, link_epoch)

    def _accuracy_without_link(self) -> float:
        split = self.data.validation
        right = decide_without_link(self.model, self.task, split, self.processes) == split.labels
        return int(right.sum()) / split.decisions

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
        weights = self._weights(settings.epoch) if metrics else self.recipe.loss
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
            loss_shares=loss_shares(
                loss_values, weights, self.recipe.link, None if self.latent is None else self.latent.shares()
            ),
            validation_samples=len(labels),
            chance=chance(labels, sizes_of(self.model.head)),
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
                    "code_counts": side_by_side(monitor.code_counts(), evaluation.code_counts),
                    "token_drift": token_drift(monitor.token_statistics(), evaluation.tokens),
                }
            )
        if self.latent is not None:
            found = drawn_on(
                self.model, self.task, self.data.validation, self.recipe, settings.epoch, linked=metrics is not None
            )
            record = record.model_copy(update={"bottleneck": self.latent.record(found)})
        return record.model_copy(update={"alarms": alarms(record, self.recipe)})
