import huggingface_hub
import pytest

from link.errors import ArgumentError, RecipeError, ServerError
from train.encoders import load_config, load_tokenizer, load_weights
from train.hub import fetch_rows, fetch_sentences, names_a_folder

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


@pytest.fixture
def captions(monkeypatch, tmp_path):
    """A data set of two columns as the library gives it, which is on this machine."""
    import datasets

    parts = {
        part: datasets.Dataset.from_dict(
            {"en": [f"{part} one.", f" {part} two. "], "de": ["eins", "zwei"], "id": [1, 2]}
        )
        for part in ("train", "validation", "test")
    }
    (tmp_path / "owner___captions").mkdir()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("datasets.load_dataset", lambda path: datasets.DatasetDict(parts))
    return parts


def test_sentences_are_a_column_of_a_data_set_by_its_parts(captions):
    found = fetch_sentences("owner/captions", "en")
    assert [part.texts for part in found] == [(f"{part} one.", f"{part} two.") for part in captions]
    del captions["validation"]
    assert fetch_sentences("owner/captions", "de").validation is None


@pytest.mark.parametrize(
    ("column", "text"),
    [("fr", "column must be one of en, de, id, .* got 'fr'"), ("id", "column must be one of strings, got 'id'")],
)
def test_a_column_that_holds_no_sentences_is_refused(captions, column, text):
    with pytest.raises(ArgumentError, match=text):
        fetch_sentences("owner/captions", column)


def test_rows_that_are_no_sentence_are_refused_or_counted(captions):
    import datasets

    captions["train"] = datasets.Dataset.from_dict({"en": ["one.", "", None, "four."]})
    with pytest.raises(ArgumentError, match=r"owner/captions, train.*line 2: is empty"):
        fetch_sentences("owner/captions", "en")
    found = fetch_sentences("owner/captions", "en", skip_bad=True).train
    assert (found.texts, found.skipped) == (("one.", "four."), 2)
    del captions["train"]
    with pytest.raises(ArgumentError, match="has no part named train"):
        fetch_sentences("owner/captions", "en")
