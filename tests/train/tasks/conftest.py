"""What tests of text tasks share: a cache of their own, and the task and the run of a file's recipe and data folder."""

import pytest

from train.tasks import load_task, task_facts


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARDPATH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def task(recipe, folder):
    return load_task(recipe.task, recipe.task_options, task_facts(recipe, folder))


@pytest.fixture(scope="module")
def run(recipe, folder, train_run):
    return train_run(recipe, data_folder=folder)
