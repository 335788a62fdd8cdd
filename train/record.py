"""What an epoch leaves behind: a line of JSON, TensorBoard scalars, and a text for the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch.utils.tensorboard import SummaryWriter

from link.errors import ResultsError
from train.collapse import CollapseMetrics, TokenDrift
from train.latent import BottleneckRecord
from train.schedule import Phase
from train.usage import CodeCounts, Usage, carriers

METRICS_NAME: Final = "metrics.jsonl"


class EpochRecord(BaseModel):
    """One epoch. Entropies in nats; accuracies on the validation set by Es/N0 in dB; empty before the link is there.

    What is None is not known: before the link is there, or in a run of an older version.

    Attributes
    ----------
    losses : mapping of name to float
        The unweighted terms, and `loss`, their weighted sum.
    loss_shares : mapping of name to float
        What each weighted term contributes to the loss; they sum to 1 (`train.collapse.loss_shares`).
    validation_task_soft, validation_task_hard : float
        Task loss on the validation set, nats, averaged over the SNR grid.
    overfitting : float
        Validation's task loss over training's, by the path that the epoch sends. The noise of training is that of
        `train_snr_db`, which may be harder than the grid's.
    soft_hard_gap : float
        Soft less hard accuracy, points.
    token_drift : TokenDrift
        Of the encoder's tokens in evaluation against those of the epoch's training, augmentation and all.
    validation_samples : int
    bits, symbols : float
        Of a sample. Where there are several modes, means over validation set and grid as the router chose, with the share of
        the header in the symbols.
    mode_shares : tuple of float
        Share of the samples of validation set and grid that were sent in each mode; empty where there is one.
    codebook_usage : mapping of codewords, as text, to Usage
        Of each codebook in validation, where there are several modes.
    code_counts : mapping of codewords, as text, to CodeCounts
        The histogram of each codebook. Some 5 KB an epoch at K = 512, twice what all else of a record takes.
    headers_lost, headers_wrong : float
        Share of those samples.
    bottleneck : BottleneckRecord
        Where there is one.
    chance : float
        Share of the most frequent class in the validation set: the accuracy of an answer that knows nothing.
    """

    # A diverged run has losses that are not finite: they are written as NaN and Infinity, and read again.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    epoch: int
    phase: Phase
    vq_temp: float
    symbol_temp: float
    hard_forward: bool
    losses: dict[str, float]
    train_accuracy: float
    validation_no_link: float | None
    hard_accuracy: dict[str, float]
    soft_accuracy: dict[str, float]
    hard_mean: float | None
    soft_mean: float | None
    train_collapse: CollapseMetrics | None
    validation_collapse: CollapseMetrics | None
    bits: float
    symbols: float
    restarted: int
    alarms: list[str]
    is_best: bool
    loss_shares: dict[str, float] | None = None
    validation_task_soft: float | None = None
    validation_task_hard: float | None = None
    overfitting: float | None = None
    soft_hard_gap: float | None = None
    token_drift: TokenDrift | None = None
    validation_samples: int | None = None
    chance: float | None = None
    mode_shares: tuple[float, ...] = ()
    codebook_usage: dict[str, Usage] = Field(default_factory=dict)
    headers_lost: float | None = None
    headers_wrong: float | None = None
    bottleneck: BottleneckRecord | None = None
    code_counts: dict[str, CodeCounts] = Field(default_factory=dict)

    def text(self) -> str:
        """The epoch as lines for the screen."""
        terms = " ".join(f"{name}={value:.4f}" for name, value in self.losses.items())
        lines = [
            f"[Epoch {self.epoch}] Phase={self.phase.value} | vq_T={self.vq_temp:.3f} sym_T={self.symbol_temp:.3f} "
            f"| hard_fwd={self.hard_forward}",
            f"  Train: {terms} acc={self.train_accuracy:.4f}",
        ]
        if self.validation_no_link is not None:
            lines.append(f"  Val:   acc={self.validation_no_link:.4f} (no link)")
        if self.train_collapse is not None and self.validation_collapse is not None:
            train, val = self.train_collapse, self.validation_collapse
            by_snr = " ".join(f"{snr}dB={value:.4f}" for snr, value in self.hard_accuracy.items())
            lines += [
                f"  Val:   hard={self.hard_mean:.4f} soft={self.soft_mean:.4f} | hard {by_snr}",
                f"  Rate:  bits={self.bits:.4g} syms={self.symbols:.4g} | "
                f"VQ_ent: {train.vq_entropy:.3f}/{val.vq_entropy:.3f} "
                f"Sym_ent: {train.symbol_entropy:.3f}/{val.symbol_entropy:.3f} "
                f"H_assign: {train.h_assign:.3f}/{val.h_assign:.3f} "
                f"LLR/theory: {train.llr_ratio:.2f}/{val.llr_ratio:.2f} Es: {train.es_db:+.2f}/{val.es_db:+.2f} dB",
                f"  Codes: used={train.codes_used:.0%}/{val.codes_used:.0%} "
                f"perplexity={train.perplexity:.1f}/{val.perplexity:.1f} restarted={self.restarted} "
                f"| consistency: {train.consistency:.4f}/{val.consistency:.4f}",
                *self._batches(train, val),
            ]
            if self.mode_shares:
                usage = " ".join(
                    f"K={size}: {found.codes_used:.0%}/{found.perplexity:.1f}"
                    for size, found in self.codebook_usage.items()
                )
                lines.append(
                    f"  Modes: {' '.join(f'{share:.0%}' for share in self.mode_shares)} | headers lost="
                    f"{self.headers_lost:.2%} wrong={self.headers_wrong:.2%} | codes used/perplexity {usage}"
                )
            lines += self._health(val.same_codes)
        if self.bottleneck is not None:
            lines.append(self.bottleneck.text())
        lines += [f"  ALARM: {alarm}" for alarm in self.alarms]
        if self.is_best:
            lines.append(f"  -> best so far (epoch={self.epoch}, hard={self.hard_mean:.4f}, vq_T={self.vq_temp:.3f})")
        return "\n".join(lines)

    def _batches(self, train: CollapseMetrics, val: CollapseMetrics) -> list[str]:
        """The usage of single batches, and the histogram in short; nothing for a run of an older version."""
        lines = []
        if train.batches is not None and val.batches is not None:
            lines.append(
                f"  Batch: of {train.batches.rows} rows, at most {train.batches.reachable} codes: "
                f"perplexity={train.batches.perplexity.text()}/{val.batches.perplexity.text()} "
                f"active codes={train.batches.active_codes.text()}/{val.batches.active_codes.text()}"
            )
        for size, counts in self.code_counts.items():
            half, most = (
                f"{carriers(counts.training, share)}/{carriers(counts.validation, share)}" for share in (0.5, 0.9)
            )
            lines.append(f"  Ranks: of {size} codewords, half of the tokens are in {half}, nine tenths in {most}")
        return lines

    def _health(self, same_codes: float | None) -> list[str]:
        """The shares of the loss, and what tells training from evaluation; nothing for a run of an older version."""
        lines = []
        if self.loss_shares is not None:
            shares = " ".join(f"{name}={share:.0%}" for name, share in self.loss_shares.items())
            lines.append(f"  Share: {shares}")
        if None not in (self.overfitting, self.soft_hard_gap, self.token_drift, same_codes):
            lines.append(
                f"  Drift: task hard={self.validation_task_hard:.4f} soft={self.validation_task_soft:.4f} "
                f"val/train={self.overfitting:.2f} | gap={self.soft_hard_gap:+.2f} points "
                f"| same codes={same_codes:.0%} tokens={self.token_drift.frechet:.3f}"  # type: ignore[union-attr]
            )
        return lines


class Recorder:
    """Writes the records of a run into its folder.

    Parameters
    ----------
    folder : Path
    after : int
        Epochs up to this one are kept from an interrupted run; later ones are run again and dropped here.
    """

    def __init__(self, folder: Path, after: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / METRICS_NAME
        kept = [record for record in read_metrics(folder) if record.epoch <= after] if after else []
        self._file.write_text("".join(record.model_dump_json() + "\n" for record in kept), encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)

    def write(self, record: EpochRecord) -> None:
        """Append one epoch."""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(record.model_dump_json() + "\n")
        for name, value in _scalars(record.model_dump(mode="json")):
            self._board.add_scalar(name, value, record.epoch)
        for size, counts in record.code_counts.items():
            self._draw(f"codes/{size}/training", counts.training, record.epoch)
            self._draw(f"codes/{size}/validation", counts.validation, record.epoch)

    def _draw(self, name: str, counts: Sequence[int], epoch: int) -> None:
        """The histogram of the codewords that were sent, a bar for each."""
        places = np.arange(len(counts))
        told = np.asarray(counts, dtype=np.float64)
        self._board.add_histogram_raw(
            name,
            min=0,
            max=len(counts) - 1,
            num=int(told.sum()),
            sum=float(told @ places),
            sum_squares=float(told @ places**2),
            bucket_limits=(places + 0.5).tolist(),
            bucket_counts=told.tolist(),
            global_step=epoch,
        )

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._board.close()


def read_metrics(folder: Path) -> list[EpochRecord]:
    """The finished epochs of a run; a last line that a crash cut short is passed over, and none where there is no file.

    Raises
    ------
    ResultsError
        If the file cannot be read, or holds anything but epochs before its last line.
    """
    file = folder / METRICS_NAME
    if not file.is_file():
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{file} cannot be read: {error}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(EpochRecord.model_validate(json.loads(line)))
        except ValueError as error:
            if number == len(lines):
                break
            what = str(error).splitlines()[0]
            raise ResultsError(f"{file}: line {number} of {len(lines)} is no epoch of hardpath: {what}") from None
    return records


def _scalars(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    scalars: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            scalars += _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "epoch":
            scalars.append((f"{prefix}{key}", float(value)))
    return scalars


def batch_usage(record: EpochRecord) -> dict[str, float]:
    """Perplexity and active codes of an epoch, means over batches: `perplexity_training`, `active_validation` and so on.

    Those of training and of validation are of as many rows, so that they can be compared (train.usage). Empty where either
    has no batch of so many, or there are several modes.
    """
    found = {"training": record.train_collapse, "validation": record.validation_collapse}
    batches = {name: metrics.batches for name, metrics in found.items() if metrics is not None and metrics.batches}
    if len(batches) < len(found):
        return {}
    return {
        f"{field}_{name}": spread.mean
        for name, usage in batches.items()
        for field, spread in (("perplexity", usage.perplexity), ("active", usage.active_codes))
    }
