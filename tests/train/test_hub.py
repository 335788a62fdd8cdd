import huggingface_hub
import pytest

from link.errors import ArgumentError, RecipeError, ServerError
from train.encoders import load_config, load_tokenizer, load_weights
from train.hub import fetch_rows, names_a_folder

NAME = "no-such-owner/no-such-model"


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers each question with an error, and keeps the questions."""
    asked = []

    class Hub:
        def repo_info(self, name, **options):
            asked.append((name, options["repo_type"]))
            raise self.error

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    Hub.error = ConnectionError("Name or service not known\nand more")
    Hub.asked = asked
    return Hub


@pytest.mark.parametrize("load", [load_tokenizer, load_config, lambda name: load_weights(name, {})])
def test_a_hub_out_of_reach_is_asked_once_and_told_in_one_line(hub, load):
    with pytest.raises(ServerError) as refused:
        load(NAME)
    assert str(refused.value) == (
        f"encoder {NAME!r} is not on this machine and the hub cannot be reached (Name or service not known); "
        "name a folder with --encoder"
    )
    assert hub.asked == [(NAME, "model")]


def test_a_name_that_the_hub_has_not_is_told_from_a_hub_out_of_reach(hub):
    hub.error = huggingface_hub.errors.HFValidationError("no name")
    with pytest.raises(
        ArgumentError, match=r"encoder 'no-such-owner/no-such-model' is no folder here and nothing that"
    ):
        load_config(NAME)


def test_a_data_set_out_of_reach_is_one_line(hub, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(
        ServerError, match=r"^dataset 'stanfordnlp/sst2' is not on this machine.*; name a folder with --data$"
    ):
        fetch_rows("sst2")
    assert hub.asked == [("stanfordnlp/sst2", "dataset")]


@pytest.mark.parametrize(
    "name", ["./encoder", "/no/such/encoder", "~/no-such-encoder", "runs/text/encoder", "runs/encoder"]
)
def test_a_folder_that_is_not_there_is_not_asked_for_on_the_hub(hub, tmp_path, monkeypatch, name):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for load in (load_tokenizer, load_config):
        with pytest.raises(RecipeError, match=rf"^encoder folder {name} does not exist$"):
            load(name)
    assert hub.asked == []


def test_a_name_of_the_hub_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not names_a_folder("roberta-base")
    assert not names_a_folder("sentence-transformers/all-MiniLM-L6-v2")
    (tmp_path / "roberta-base").mkdir()
    assert names_a_folder("roberta-base")
