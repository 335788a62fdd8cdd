import pytest

from link.errors import ArgumentError
from train.plot import plot_training
from train.record import read_metrics


@pytest.mark.parametrize("epochs", [5, 2], ids=["a whole run", "warm-up alone"])
def test_a_run_becomes_a_picture_and_a_drawing(signs_run, tmp_path, epochs):
    png, svg = plot_training(read_metrics(signs_run)[:epochs], tmp_path / "training")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


def test_a_run_without_epochs_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="records must hold at least one epoch"):
        plot_training([], tmp_path / "training")
