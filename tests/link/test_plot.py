import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from link import theory
from link.errors import ArgumentError, MissingExtra
from link.montecarlo import Proportion, wilson
from link.plot import Curve, constellation, llr_histogram, waterfall
from link.repetition import sweep_repetition
from link.sweep import SweepSpec

SNR_DB = (-3.0, 0.0, 3.0, 6.0)
SVG = "{http://www.w3.org/2000/svg}"
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def baseline():
    labels = np.arange(40) % 4
    return Curve.of_accuracy(
        "label by repetition",
        sweep_repetition(labels, labels, SweepSpec(snr_db=SNR_DB), num_classes=4, num_symbols=2),
        "baseline",
    )


def measured(values):
    return Curve("hard path", SNR_DB, [wilson(value, 1000) for value in values])


def draw_all(folder):
    generator = np.random.default_rng(0)
    llr, sent = generator.normal(size=500) * 20, generator.integers(0, 2, 500)
    return [
        *waterfall([measured([0.3, 0.5, 0.8, 0.9]), baseline()], folder / "accuracy", title="ring"),
        *waterfall(
            [measured([0.2, 0.05, 1e-3, 0.0]), Curve("theory", SNR_DB, theory.ber_awgn(4, SNR_DB).tolist(), "theory")],
            folder / "ber",
            metric="ber",
        ),
        *constellation(generator.normal(size=(30, 5, 2)), 16, folder / "constellation", 6.5),
        *llr_histogram(llr, sent, folder / "llr", 30.0),
    ]


def test_each_figure_is_written_as_png_and_svg(tmp_path):
    files = draw_all(tmp_path / "figures")
    assert [file.name for file in files] == [
        name + suffix for name in ("accuracy", "ber", "constellation", "llr") for suffix in (".png", ".svg")
    ]
    for png, svg in zip(files[::2], files[1::2], strict=True):
        assert png.read_bytes().startswith(PNG_HEAD)
        assert png.stat().st_size > 10_000
        assert len(ElementTree.parse(svg).getroot().findall(f".//{SVG}path")) > 10


def test_the_same_data_gives_the_same_files(tmp_path):
    for once, again in zip(draw_all(tmp_path / "a"), draw_all(tmp_path / "b"), strict=True):
        assert once.read_bytes() == again.read_bytes()


def test_a_stem_may_hold_a_point_and_may_end_on_a_suffix(tmp_path):
    curves = [measured([0.3, 0.5, 0.8, 0.9])]
    assert waterfall(curves, tmp_path / "at_6.5_db")[0].name == "at_6.5_db.png"
    assert [file.name for file in waterfall(curves, tmp_path / "curve.svg")] == ["curve.png", "curve.svg"]


def test_the_users_settings_neither_show_nor_change(tmp_path):
    plain = waterfall([baseline()], tmp_path / "plain")[1].read_bytes()
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        assert waterfall([baseline()], tmp_path / "mine")[1].read_bytes() == plain
        assert dict(mpl.rcParams) == before


def test_drawing_does_not_import_pyplot(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from link.plot import Curve, waterfall\n"
        "waterfall([Curve('a', [0.0, 1.0], [0.1, 0.2])], pathlib.Path(sys.argv[1]) / 'a')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_curve_is_drawn_in_the_order_of_snr():
    points = sweep_repetition([0, 1], [0, 1], SweepSpec(snr_db=(6.0, -3.0)), num_classes=2, num_symbols=1)
    curve = Curve.of_accuracy("repetition", points)
    assert list(curve.snr_db) == [-3.0, 6.0]
    assert list(curve.values) == [points[1].accuracy, points[0].accuracy]


def figure_of(monkeypatch, draw, *arguments, **options):
    """The figure that a function would have written."""
    figures = []
    monkeypatch.setattr("link.plot.save_figure", lambda figure, path: figures.append(figure) or (path, path))
    draw(*arguments, **options)
    return figures[0]


def test_a_point_without_errors_is_an_upper_limit_and_no_point_of_the_curve(monkeypatch, tmp_path):
    counted, none = wilson(0.01, 1000), wilson(0.0, 1000)
    curve = Curve("hard path", (0.0, 3.0), [counted, none])
    figure = figure_of(monkeypatch, waterfall, [curve], tmp_path / "ber", metric="ber")
    line, *limits = figure.axes[0].lines
    assert line.get_ydata()[0] == 0.01
    assert np.isnan(line.get_ydata()[1])
    assert any(np.asarray(limit.get_ydata()).tolist() == [none.high] for limit in limits)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["hard path", "95% interval", "no error counted: upper limit"]


def test_the_band_is_the_interval(monkeypatch, tmp_path):
    interval = Proportion(value=0.5, low=0.4, high=0.7)
    figure = figure_of(monkeypatch, waterfall, [Curve("a", (0.0, 3.0), [interval, interval])], tmp_path / "a")
    box = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (0.4, 0.7)


def test_the_legend_covers_no_data(monkeypatch, tmp_path):
    figure = figure_of(monkeypatch, waterfall, [measured([0.3, 0.5, 0.8, 0.9]), baseline()], tmp_path / "a")
    figure.draw_without_rendering()
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_the_histogram_counts_what_was_clipped_and_what_was_decided_wrongly(monkeypatch, tmp_path):
    llr, sent = np.array([-30.0, -30.0, 5.0, -1.0, 30.0, 2.0, 8.0, -2.0]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    figure = figure_of(monkeypatch, llr_histogram, llr, sent, tmp_path / "llr", 30.0)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "0 sent (4 bits, 25.00% decided wrongly)",
        "1 sent (4 bits, 25.00% decided wrongly)",
        "clipped at ±30 (37.5% of all)",
    ]
    assert all(np.isclose(patch.get_data().values.sum(), 1.0) for patch in figure.axes[0].patches)


def test_all_llrs_zero_can_be_drawn(tmp_path):
    assert llr_histogram(np.zeros(4), [0, 1, 0, 1], tmp_path / "llr")[0].exists()


def test_what_cannot_be_drawn_is_refused(tmp_path):
    for call, field in (
        (lambda: waterfall([], tmp_path / "a"), "curves"),
        (lambda: constellation(np.zeros((0, 2)), 4, tmp_path / "a", 0.0), "y"),
        (lambda: constellation(np.zeros((5, 3)), 4, tmp_path / "a", 0.0), "y"),
        (lambda: llr_histogram([1.0], [1, 0], tmp_path / "a"), "bits"),
    ):
        with pytest.raises(ArgumentError) as error:
            call()
        assert error.value.field == field


def test_without_matplotlib_the_answer_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"hardpath\[sweep\]"):
        waterfall([baseline()], tmp_path / "a")


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_path_without_a_name_is_refused(path):
    with pytest.raises(ArgumentError, match="path must name a file, got"):
        waterfall([baseline()], Path(path))


def test_a_label_whose_formula_cannot_be_set_is_refused_in_one_line(tmp_path):
    with pytest.raises(ArgumentError, match="label or title has no formula between its") as error:
        waterfall([Curve(r"$\frac{$", [0.0, 1.0], [0.1, 0.2])], tmp_path / "curve")
    assert "\n" not in str(error.value)
