"""What each process does in the tests of several: `python one_of_several.py RECIPES FOLDER`, the recipes as JSON.

A model of other tensors in each process is aligned. Each recipe is trained into a folder of its name, and into NAME-resumed
from a copy that was made after epoch 3. Then the first process alone fails.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

import train.tasks
from train.processes import launched
from train.recipe import Recipe
from train.run import train as train_recipe

COPIED_AFTER = 3


def main(recipes, folder):
    torch.set_num_threads(1)
    train.tasks.__path__.append(str(Path(__file__).parent / "extra_tasks"))
    with launched("cpu") as processes:
        model = torch.nn.BatchNorm1d(2)
        for tensor in model.state_dict().values():
            tensor.fill_(7 + processes.number)
        processes.align(model)
        found = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
        (folder / f"aligned-{processes.number}.json").write_text(json.dumps(found))
        for recipe in recipes:
            whole, resumed = folder / recipe.name, folder / f"{recipe.name}-resumed"

            def copy(record, whole=whole, resumed=resumed):
                if record.epoch == COPIED_AFTER:
                    shutil.copytree(whole, resumed)

            train_recipe(recipe, whole, on_epoch=copy, processes=processes)
            train_recipe(recipe, resumed, processes=processes)

        def fail(record):
            raise RuntimeError("the first process fails")

        train_recipe(recipes[0], folder / "failed", on_epoch=fail, processes=processes)


if __name__ == "__main__":
    main([Recipe.model_validate(values) for values in json.loads(sys.argv[1])], Path(sys.argv[2]))
