import pytest

from link.errors import ArgumentError
from train.plot import plot_diagnosis, plot_training
from train.record import read_metrics


@pytest.mark.parametrize("epochs", [5, 2], ids=["a whole run", "warm-up alone"])
def test_a_run_becomes_a_picture_and_a_drawing(signs_run, tmp_path, epochs):
    png, svg = plot_training(read_metrics(signs_run)[:epochs], tmp_path / "training")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


def test_a_run_without_epochs_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="records must hold at least one epoch"):
        plot_training([], tmp_path / "training")


@pytest.mark.parametrize("epochs", [5, 2], ids=["a whole run", "warm-up alone"])
def test_every_curve_that_is_known_is_drawn_with_its_threshold(signs_run, signs_recipe, tmp_path, epochs):
    png, svg = plot_diagnosis(read_metrics(signs_run)[:epochs], signs_recipe, tmp_path / "diagnosis.png")
    assert (png.name, svg.name) == ("diagnosis.png", "diagnosis.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert text.count("<!-- soft less hard -->") == (1 if epochs == 5 else 0)
    for label in ("without a link", "training", "temperature T"):
        assert f"<!-- {label} -->" in text


def test_a_run_of_an_older_version_is_drawn_without_what_it_did_not_record(signs_run, signs_recipe, tmp_path):
    known = read_metrics(signs_run)
    older = [
        record.model_copy(update={"overfitting": None, "token_drift": None, "code_counts": {}}) for record in known
    ]
    _, svg = plot_diagnosis(older, signs_recipe, tmp_path / "older")
    assert "token drift" not in svg.read_text()
    assert "Rank of the codeword" not in svg.read_text()
    with pytest.raises(ArgumentError, match="records must hold at least one epoch"):
        plot_diagnosis([], signs_recipe, tmp_path / "none")


def test_batches_and_the_histogram_of_the_last_epoch_are_drawn_training_and_validation_over_each_other(
    signs_run, routed_run, signs_recipe, tmp_path
):
    _, svg = plot_diagnosis(read_metrics(signs_run), signs_recipe, tmp_path / "one")
    text = svg.read_text()
    for label in ("training, a batch", "validation, a batch", "Rank of the codeword, of 4; epoch 5", "even usage"):
        assert text.count(f"<!-- {label} -->") == 1
    _, svg = plot_diagnosis(read_metrics(routed_run), signs_recipe, tmp_path / "several")
    assert svg.read_text().count("<!-- Rank of the codeword, of ") == 2
    assert "a batch -->" not in svg.read_text()
