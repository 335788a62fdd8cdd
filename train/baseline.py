"""The classifier without a link: the same encoder, head, data and epochs, and nothing between them.

It bounds what a link can reach. Its decisions are also what the fair baseline sends: decide at the transmitter, send the
label by repetition (link.repetition).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from train.evaluate import decide_without_link
from train.loop import Trainer
from train.recipe import Recipe
from train.tasks import load_task, task_facts

FILE_NAME: Final = "no_link.safetensors"


class WithoutLink(NamedTuple):
    """Decisions on the test set, (n,) int64, and their accuracy."""

    decisions: NDArray[np.int64]
    accuracy: float


def without_link(
    recipe: Recipe, folder: Path, *, data_folder: Path | None = None, on_epoch: Callable[[int], None] | None = None
) -> WithoutLink:
    """Train the recipe's classifier without a link, or read it from `folder` where the same recipe left it.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with each finished epoch's number.
    """
    facts = task_facts(recipe, data_folder)
    task = load_task(recipe.task, recipe.task_options, facts)
    data = task.load(data_folder)
    file = folder / FILE_NAME
    decisions = _read(file, recipe)
    if decisions is None:
        trainer = Trainer(recipe, task, data)
        model = trainer.run_without_link(on_epoch)
        decisions = decide_without_link(model, trainer.task, trainer.data.test)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"decisions": decisions}, file, metadata={"recipe": recipe.model_dump_json()})
    return WithoutLink(decisions, float(np.mean(decisions == data.test.labels)))


def _read(file: Path, recipe: Recipe) -> NDArray[np.int64] | None:
    try:
        with safe_open(file, framework="np") as stream:
            if json.loads((stream.metadata() or {}).get("recipe", "null")) != recipe.model_dump(mode="json"):
                return None
            decisions: NDArray[np.int64] = stream.get_tensor("decisions")
            return decisions
    except (OSError, SafetensorError, ValueError):
        return None
