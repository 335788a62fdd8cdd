"""What an epoch leaves behind: a line of JSON, TensorBoard scalars, and a text for the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from torch.utils.tensorboard import SummaryWriter

from train.collapse import CollapseMetrics
from train.schedule import Phase

METRICS_NAME: Final = "metrics.jsonl"


class EpochRecord(BaseModel):
    """One epoch. Entropies in nats; accuracies on the validation set by Es/N0 in dB; empty before the link is there."""

    model_config = ConfigDict(frozen=True)

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
    bits: int
    symbols: int
    restarted: int
    alarms: list[str]
    is_best: bool
    validation_task_hard: float | None = None

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
                f"  Rate:  bits={self.bits} syms={self.symbols} | VQ_ent: {train.vq_entropy:.3f}/{val.vq_entropy:.3f} "
                f"Sym_ent: {train.symbol_entropy:.3f}/{val.symbol_entropy:.3f} "
                f"H_assign: {train.h_assign:.3f}/{val.h_assign:.3f} "
                f"LLR/theory: {train.llr_ratio:.2f}/{val.llr_ratio:.2f} Es: {train.es_db:+.2f}/{val.es_db:+.2f} dB",
                f"  Codes: used={val.codes_used:.0%} perplexity={val.perplexity:.1f} restarted={self.restarted} "
                f"| consistency: {train.consistency:.4f}/{val.consistency:.4f}",
            ]
        lines += [f"  ALARM: {alarm}" for alarm in self.alarms]
        if self.is_best:
            lines.append(f"  -> best so far (epoch={self.epoch}, hard={self.hard_mean:.4f}, vq_T={self.vq_temp:.3f})")
        return "\n".join(lines)


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

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._board.close()


def read_metrics(folder: Path) -> list[EpochRecord]:
    """The finished epochs of a run; a last line that a crash cut short is passed over."""
    file = folder / METRICS_NAME
    if not file.is_file():
        return []
    records = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            records.append(EpochRecord.model_validate(json.loads(line)))
        except ValueError:
            break
    return records


def _scalars(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    scalars: list[tuple[str, float]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            scalars += _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "epoch":
            scalars.append((f"{prefix}{key}", float(value)))
    return scalars
