"""`hardpath ablate` of a task of recordings: what codebook, behaviours and durations bring, seed by seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hardpath.terminal import note, percent, progress, write_text
from link.errors import BundleError
from link.lock import locked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from link.grid import SweepSpec
    from train.parts import PartScores
    from train.recipe import Recipe

RESULTS_NAME = "scores.jsonl"
MEASURED_NAME = "measured.json"
TABLE_NAME = "parts.md"
PLOT_NAME = "parts"


def run_parts(
    recipes: Sequence[Recipe], specs: Mapping[str, SweepSpec], out: Path, data: Path | None, threads: int
) -> list[PartScores]:
    """Train and measure every seed that is missing, with a progress bar; what is finished is kept.

    `out` gets a folder a seed, scores.jsonl (one line a variant and point), parts.md and parts.png, each anew after every
    seed.

    Raises
    ------
    BundleError
        At the end, if what a seed trained could not be exported: the others are kept.
    """
    import torch

    from train.parts import measure_seed, require_rows
    from train.parts_report import markdown, plot_parts

    torch.set_num_threads(threads)
    done: list[PartScores] = []
    failed: list[str] = []
    with locked(out):
        for number, recipe in enumerate(recipes, start=1):
            folder = out / f"seed-{recipe.seed}"
            found = _finished(folder, recipe, specs)
            if found is not None and data is not None:
                require_rows(folder, data)
            if found is None:
                try:
                    with progress(f"seed {recipe.seed}, {number} of {len(recipes)}", 100) as update:
                        found = measure_seed(
                            recipe,
                            folder,
                            specs,
                            data_folder=data,
                            tell=lambda step, done, update=update: update(round(100 * done), step),  # type: ignore[misc]
                        )
                except BundleError as error:
                    failed.append(f"seed {recipe.seed}: {error}")
                    note(f"failed: {failed[-1]}")
                    continue
                _keep(folder, recipe, specs, found)
            done += found
            write_text(out / RESULTS_NAME, "".join(json.dumps(row.model_dump(mode="json")) + "\n" for row in done))
            write_text(out / TABLE_NAME, markdown(done))
            plot_parts(done, out / PLOT_NAME)
            best = max(found, key=lambda row: row.macro_f1)
            note(f"seed {recipe.seed}: {best.variant} has the highest macro-F1, {percent(best.macro_f1)} %")
    if failed:
        raise BundleError(f"{len(failed)} of {len(recipes)} seeds could not be exported; the first: {failed[0]}")
    return done


def _described(recipe: Recipe, specs: Mapping[str, SweepSpec]) -> dict[str, object]:
    return {
        "recipe": recipe.model_dump(mode="json"),
        "specs": {name: spec.model_dump(mode="json") for name, spec in specs.items()},
    }


def _keep(folder: Path, recipe: Recipe, specs: Mapping[str, SweepSpec], found: Sequence[PartScores]) -> None:
    rows = [row.model_dump(mode="json") for row in found]
    write_text(folder / MEASURED_NAME, json.dumps({**_described(recipe, specs), "scores": rows}, indent=1) + "\n")


def _finished(folder: Path, recipe: Recipe, specs: Mapping[str, SweepSpec]) -> list[PartScores] | None:
    """What was measured of a seed; None where it was not, or another recipe was, or at other points."""
    from train.parts import PartScores

    try:
        kept = json.loads((folder / MEASURED_NAME).read_text(encoding="utf-8"))
        rows = [PartScores.model_validate(row) for row in kept.pop("scores")]
    except (OSError, ValueError, KeyError):
        return None
    return rows if kept == _described(recipe, specs) else None
