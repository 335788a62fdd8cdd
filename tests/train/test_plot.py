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
    older = [record.model_copy(update={"overfitting": None, "token_drift": None}) for record in read_metrics(signs_run)]
    _, svg = plot_diagnosis(older, signs_recipe, tmp_path / "older")
    assert "token drift" not in svg.read_text()
    with pytest.raises(ArgumentError, match="records must hold at least one epoch"):
        plot_diagnosis([], signs_recipe, tmp_path / "none")
