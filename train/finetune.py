"""Fine-tuning of a pretrained encoder as a classifier, before any link: what a frozen backbone is made of.

    backbone ─> mean of the states ─> one linear layer ─> classes        a few epochs ─> folder in the format of transformers

The loop is that of transformers (Wolf et al. 2020, arXiv:1910.03771) over accelerate: mixed precision, several processes and
runs that go on where they were interrupted come with it. The folder serves as `task_options.encoder` of any recipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from link.bundle import sha256
from link.errors import ArgumentError, CheckpointError, RecipeError
from train.encoders import hidden_size, import_transformers
from train.features import crop
from train.questions import within_question
from train.recipe import Recipe
from train.tasks import (
    TOKENIZER_FACT,
    Data,
    PretrainedEncoder,
    PretrainedTask,
    Split,
    TextTask,
    load_task,
    questions_of,
    task_facts,
)

SUMMARY_NAME: Final = "finetuning.json"
_TOKENIZER_NAME: Final = "tokenizer.json"
_WORK_NAME: Final = "training"
_JOB_NAME: Final = "job.json"
_DROPOUT: Final = 0.1
_WARMUP: Final = 0.06
_SAVES_AN_EPOCH: Final = 8


class FinetuneSettings(BaseModel):
    """How the encoder is trained: AdamW, its rate rising over the first 6 % of the steps and falling linearly to 0.

    A field outside its range is an ArgumentError that names it.

    Attributes
    ----------
    epochs : int
    batch_size : int
    learning_rate : float
    weight_decay : float
    bf16 : bool
        Whether matrix products are computed in bfloat16.
    seed : int
        Of the order of the rows, of dropout and of the classifier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    bf16: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            text = f"{first['msg'].removeprefix('Input ')}, got {first['input']!r}"
            raise ArgumentError(str(first["loc"][0]), text) from None


class Finetuned(BaseModel):
    """What came of it, and of what.

    Attributes
    ----------
    task_options : mapping
        All that the recipe had.
    validation_accuracy, test_accuracy : float
        Of the classifier; the test rows are read once, at the end.
    rows, seconds : int, float
        Training rows, and the time that the last uninterrupted stretch took.
    data_sha256 : str
        Of the training and validation rows (`Data.sha256`).
    facts : mapping
        What the task knew of its data, but for the tokenizer, which lies beside.
    files : mapping of name to sha256
        What was written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    task_options: dict[str, Any]
    settings: FinetuneSettings
    rows: int
    data_sha256: str
    facts: dict[str, Any] = Field(repr=False)
    files: dict[str, str]
    validation_accuracy: float
    test_accuracy: float
    seconds: float


class Classifier(nn.Module):
    """A backbone and one linear layer on the mean of the states of each text.

    Parameters
    ----------
    encoder : PretrainedEncoder
    classes : int
    sizes : sequence of int
        Classes of each question, where the task has several (train.questions).
    """

    def __init__(self, encoder: PretrainedEncoder, classes: int, sizes: Sequence[int] = ()) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.backbone = encoder.backbone
        self.dropout = nn.Dropout(_DROPOUT)
        self.linear = nn.Linear(hidden_size(encoder.backbone), classes)
        for module in self.backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = _DROPOUT

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Logits (B, C), and where labels are given their cross entropy, both within the question of each row."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        there = attention_mask[..., None].to(states.dtype)
        logits = self.linear(self.dropout((states * there).sum(dim=1) / there.sum(dim=1)))
        if labels is None:
            return {"logits": logits}
        logits = within_question(logits, labels, self.sizes)
        return {"loss": functional.cross_entropy(logits.float(), labels), "logits": logits}


def finetune(recipe: Recipe, folder: Path, data_folder: Path | None, settings: FinetuneSettings) -> Finetuned:
    """Fine-tune the encoder of a recipe's task, going on where an interrupted run stopped.

    Parameters
    ----------
    recipe : Recipe
        Its task and task_options alone are used.
    folder : Path
        Gets config.json, model.safetensors, tokenizer.json and finetuning.json; training/ while it lasts.
    data_folder : Path or None
        As for training.
    settings : FinetuneSettings

    Raises
    ------
    RecipeError
        If the task has no pretrained encoder, or the folder holds another fine-tuning.
    CheckpointError
        If what an earlier call left in the folder is broken.

    Notes
    -----
    A finished fine-tuning answers from its folder alone; where data are named all the same, they are compared.
    """
    done = _finished(folder, recipe, data_folder, settings)
    if done is not None:
        return done
    facts = task_facts(recipe, data_folder)
    task = load_task(recipe.task, recipe.task_options, facts)
    if not hasattr(task, "pretrained"):
        raise RecipeError(
            f"task {task.name} is no classifier of texts, which alone are fine-tuned before a link; encoders that it names "
            "are trained over the link, at optimizer.encoder_learning_rate"
        )
    weights = cast(PretrainedTask, task).pretrained()
    if weights is None:
        raise RecipeError(f"task {task.name} with these options has no pretrained encoder to fine-tune")
    data = task.load(data_folder)
    transformers = import_transformers()
    transformers.set_seed(settings.seed)
    encoder = cast(PretrainedEncoder, task.encoder(1, 3))
    encoder.backbone.load_state_dict(weights)
    sizes = [len(question.classes) for question in questions_of(task).values()]
    model = Classifier(encoder, len(task.classes), sizes)
    trainer = _trainer(transformers, model, data.train, data.validation, folder / _WORK_NAME, settings)
    _claim(folder / _WORK_NAME, recipe, settings, data)
    checkpoint = _last_whole(folder / _WORK_NAME)
    started = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # where transformers writes its progress
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - started
    cast(Any, encoder.backbone).save_pretrained(folder)
    (folder / _TOKENIZER_NAME).write_text(cast(TextTask, task).tokenizer_json, encoding="utf-8")
    result = Finetuned(
        encoder=str(recipe.task_options.get("encoder")),
        task_options=recipe.task_options,
        settings=settings,
        rows=len(data.train),
        data_sha256=data.sha256,
        facts={name: value for name, value in facts.items() if name != TOKENIZER_FACT},
        files={name: sha256(folder / name) for name in ("config.json", "model.safetensors", _TOKENIZER_NAME)},
        validation_accuracy=accuracy(model, data.validation),
        test_accuracy=accuracy(model, data.test),
        seconds=seconds,
    )
    _write(folder / SUMMARY_NAME, result.model_dump_json(indent=2) + "\n")
    return result


def _claim(work: Path, recipe: Recipe, settings: FinetuneSettings, data: Data) -> None:
    """Say whose the half-trained weights in `work` are, or refuse to go on from another job's."""
    job = {
        "task_options": recipe.task_options,
        "settings": settings.model_dump(),
        "data_sha256": data.sha256,
    }
    file = work / _JOB_NAME
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}); remove {work} to start anew") from None
        if found != job:
            raise RecipeError(
                f"{work} holds an unfinished job of other rows or settings; name another folder with --out"
            )
        return
    work.mkdir(parents=True, exist_ok=True)
    _write(file, json.dumps(job, indent=2) + "\n")


def _write(file: Path, text: str) -> None:
    """Write in one step, so that a crash leaves no half of it."""
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def _last_whole(work: Path) -> str | None:
    """The newest checkpoint of the trainer that was written to its end; None where there is none."""
    found = sorted(work.glob("checkpoint-[0-9]*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            with safe_open(path / "model.safetensors", framework="pt") as stream:
                stream.keys()
        except (OSError, ValueError, SafetensorError):
            continue
        return str(path)
    return None


@torch.no_grad()
def accuracy(model: Classifier, split: Split, rows: int = 256) -> float:
    """Share of a split's rows that the classifier gets right."""
    model.eval()
    correct = 0
    for first in range(0, len(split), rows):
        part = slice(first, first + rows)
        inputs = crop([torch.from_numpy(split.inputs[name][part]) for name in ("input_ids", "attention_mask")])
        labels = torch.from_numpy(split.labels[part])
        correct += int((model(*inputs, labels)["logits"].argmax(dim=-1) == labels).sum())
    return correct / len(split)


def _trainer(
    transformers: Any,
    model: Classifier,
    train: Split,
    validation: Split,
    folder: Path,
    settings: FinetuneSettings,
) -> Any:
    steps = -(-len(train) // settings.batch_size)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=int(_WARMUP * settings.epochs * steps),
        weight_decay=settings.weight_decay,
        bf16=settings.bf16,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=max(1, steps // _SAVES_AN_EPOCH),
        save_total_limit=1,
        logging_steps=max(1, steps // 50),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        report_to=[],
        seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=None if os.isatty(2) else True,
    )
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=_Rows(train),
        eval_dataset=_Rows(validation),
        data_collator=_collate,
        compute_metrics=_accuracy_of,
    )


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """A split as the trainer of transformers reads it, row by row."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._lengths = split.inputs["attention_mask"].sum(axis=1)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, row: int) -> dict[str, Any]:
        own = slice(int(self._lengths[row]))
        return {
            "input_ids": self._split.inputs["input_ids"][row, own],
            "attention_mask": self._split.inputs["attention_mask"][row, own],
            "labels": int(self._split.labels[row]),
        }


def _collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch, padded to its longest row."""
    inputs = {
        name: pad_sequence([torch.from_numpy(row[name]) for row in rows], batch_first=True)
        for name in ("input_ids", "attention_mask")
    }
    return {**inputs, "labels": torch.tensor([row["labels"] for row in rows])}


def _accuracy_of(prediction: Any) -> dict[str, float]:
    logits: NDArray[Any] = np.asarray(prediction.predictions)
    return {"accuracy": float((logits.argmax(axis=-1) == prediction.label_ids).mean())}


def _finished(folder: Path, recipe: Recipe, data_folder: Path | None, settings: FinetuneSettings) -> Finetuned | None:
    """What an earlier call came to, its files whole and all it was asked for the same; None where it did not finish."""
    file = folder / SUMMARY_NAME
    if not file.is_file():
        return None
    try:
        found = Finetuned.model_validate_json(file.read_bytes())
        broken = [name for name, wanted in found.files.items() if sha256(folder / name) != wanted]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise CheckpointError(f"{file}: {where}: {first['msg']}; remove it to fine-tune again") from None
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}; remove {file} to fine-tune again") from None
    if broken:
        raise CheckpointError(
            f"{folder / broken[0]} is not what the fine-tuning wrote; remove {file} to fine-tune again, or name another "
            "folder with --out"
        )
    if found.settings != settings or found.task_options != recipe.task_options:
        raise RecipeError(f"{folder} holds a fine-tuning with other settings; name another folder with --out")
    if data_folder is not None:
        facts = found.facts | {TOKENIZER_FACT: (folder / _TOKENIZER_NAME).read_text(encoding="utf-8")}
        data = load_task(recipe.task, recipe.task_options, facts).load(data_folder)
        if data.sha256 != found.data_sha256:
            raise RecipeError(f"{folder} holds a fine-tuning on other rows; name another folder with --out")
    return found
