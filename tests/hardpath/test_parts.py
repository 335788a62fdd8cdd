"""`hardpath ablate` of recordings: what each part of a receiver brings, from the command to its table."""

import json

import numpy as np
import pytest

from link.errors import BundleError
from link.sequence import code_probabilities
from train.parts import COMBINATIONS, NO_LINK, PartScores, variant_name
from train.parts_report import markdown, points_of


@pytest.fixture(scope="module")
def finished(people, motion_settings, tmp_path_factory, hardpath):
    out = tmp_path_factory.mktemp("parts") / "out"
    arguments = ["ablate", "motion", "--data", people, "--out", out, "--seeds", "0:2", "--snr-db", "0,6"]
    arguments += ["--channels", "awgn", "--draws", "2", "--json"]
    for setting in motion_settings:
        arguments += ["--set", setting]
    return out, arguments, hardpath(*arguments)


def test_every_variant_is_measured_at_every_point_and_those_without_a_codebook_without_a_link(finished):
    out, _, answered = finished
    assert answered.code == 0, answered.err
    rows = [PartScores.model_validate(row) for row in answered.json["scores"]]
    points = [(NO_LINK, None), ("awgn", 0.0), ("awgn", 6.0)]
    expected = [
        (seed, vq, parts, *point)
        for seed in (0, 1)
        for vq in (True, False)
        for parts in COMBINATIONS
        for point in (points if vq else points[:1])
    ]
    assert [(row.seed, row.vq, row.parts, row.channel, row.snr_db) for row in rows] == expected
    for row in rows:
        assert 0.0 <= row.macro_f1 <= 1.0
        assert (row.gain is None) == (row.parts == ())
        assert (row.bits, row.symbols) == ((6, 3) if row.vq else (0, 0))
        usage = row.perplexity_training, row.active_training, row.perplexity_validation, row.active_validation
        assert [value is not None for value in usage] == [row.vq] * 4
        if row.vq:  # a batch of 32 rows of 2 tokens, 8 codewords
            assert 1.0 <= row.perplexity_training <= row.active_training <= 8.0
            assert 1.0 <= row.perplexity_validation <= row.active_validation <= 8.0
        assert (row.behaviours is not None) == ("hdp" in row.parts)
    assert (out / "parts.png").stat().st_size > 10_000
    assert (out / "scores.jsonl").read_text().count("\n") == len(rows)


def test_the_table_names_every_variant_once_and_every_point(finished):
    table = (finished[0] / "parts.md").read_text(encoding="utf-8")
    first, second = table.strip().split("\n\n")
    names = [variant_name(vq, parts) for vq in (False, True) for parts in COMBINATIONS]
    for part in (first, second):
        assert [line.split(" | ")[0].removeprefix("| ") for line in part.splitlines()[2:]] == names
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[1:-1]] for line in first.splitlines()
    }
    place = cells["variant"].index("active codes")
    assert cells["none"][place] == ""
    rows = [row for row in finished[2].json["scores"] if row["vq"] and not row["parts"] and row["channel"] == NO_LINK]
    means = [np.mean([row[f"active_{where}"] for row in rows]) for where in ("training", "validation")]
    assert cells["vq"][place] == "{:.1f} / {:.1f}".format(*means)
    assert second.splitlines()[0] == "| macro-F1 | no link | awgn 0 dB | awgn 6 dB |"


def test_what_is_finished_is_not_trained_again_and_another_question_is(finished, hardpath):
    out, arguments, answered = finished
    before = (out / "seed-0" / "vq" / "metrics.jsonl").stat().st_mtime_ns
    again = hardpath(*arguments)
    assert again.json == answered.json
    assert (out / "seed-0" / "vq" / "metrics.jsonl").stat().st_mtime_ns == before
    (out / "seed-1" / "measured.json").write_text("{}", encoding="utf-8")
    assert hardpath(*arguments).json == answered.json


def test_codes_are_certain_where_llrs_are_and_even_where_nothing_is_known(finished):
    from link.bundle import load_bundle

    mode = load_bundle(finished[0] / "seed-0" / "bundle").manifest.modes[0]
    label = np.array(mode.labels)[[3, 5]]
    bits = (label[:, None] >> np.arange(mode.index_bits)[::-1]) & 1
    llr = np.concatenate([(40.0 * bits - 20.0).ravel(), np.zeros(6)]).reshape(2, 6).astype(np.float32)
    found = code_probabilities(llr, mode)
    assert found[0].argmax(axis=-1).tolist() == [3, 5]
    np.testing.assert_allclose(found[0].max(axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found[1], 1 / 8, atol=1e-7)


def test_seeds_are_told_by_mean_deviation_and_interval():
    rows = [
        PartScores(
            seed=seed,
            vq=False,
            parts=(),
            channel=NO_LINK,
            snr_db=None,
            accuracy=0.9,
            macro_f1=f1,
            calibration_error=0.01,
            bits=0,
            symbols=0,
        )
        for seed, f1 in enumerate([0.90, 0.92, 0.94])
    ]
    assert points_of(rows) == [(NO_LINK, None)]
    assert "| none | 3 | 90.0 ±0.0 [±0.0] | 92.0 ±2.0 [±5.0] |" in markdown(rows)


def test_another_folder_of_data_is_no_answer_of_what_was_measured(finished, people, tmp_path, hardpath):
    _, arguments, _ = finished
    for file in people.iterdir():
        with np.load(file) as loaded:
            np.savez(tmp_path / file.name, **{**loaded, "data": loaded["data"] + 1.0})
    again = hardpath(*[tmp_path if argument == people else argument for argument in arguments])
    assert again.code != 0
    assert "was trained on other rows than the data have now" in again.err


def test_a_link_of_several_modes_and_behaviours_that_cannot_be_are_refused_before_training(people, tmp_path, hardpath):
    recipe = tmp_path / "modes.toml"
    mode = "[[link.modes]]\ntokens = 2\ncodewords = 8\norder = 4\n"
    schedule = "[schedule]\nepochs = 3\nwarmup_epochs = 1\nalignment_start_epoch = 2\n"
    head = f'name = "modes"\ntask = "motion"\n{schedule}[link]\ndim = 8\n'
    recipe.write_text(head + mode + mode.replace("2", "4", 1), encoding="utf-8")
    for command in ("ablate", recipe), ("train", recipe, "--set", 'sequence.parts=["hsmm"]'):
        found = hardpath(*command, "--data", people, "--out", tmp_path / command[0])
        assert "its codes are those of one mode, and [[link.modes]] has several" in found.err
    vanishing = ["--set", "sequence.gamma=0.01", "--set", "sequence.behaviours=100"]
    found = hardpath("ablate", "motion", *vanishing, "--data", people, "--out", tmp_path / "ablate")
    assert "sequence.behaviours must be at most 9, where weights vanish" in found.err
    found = hardpath(
        "ablate", "motion", "--set", "bottleneck.enabled=true", "--data", people, "--out", tmp_path / "ablate"
    )
    assert "bottleneck.enabled must be false: an ablation of parts compares codecs without one" in found.refused(2)
    assert not list(tmp_path.glob("**/metrics.jsonl"))


def test_a_seed_that_cannot_be_exported_costs_no_other_seed(finished, tmp_path, hardpath, monkeypatch):
    out, arguments, answered = finished
    kept = [row for row in answered.json["scores"] if row["seed"] == 1]

    def measured(recipe, folder, *rest, **options):
        if recipe.seed == 0:
            raise BundleError("no such bundle")
        return [PartScores.model_validate(row) for row in kept]

    monkeypatch.setattr("train.parts.measure_seed", measured)
    found = hardpath(*[tmp_path / "out" if argument == out else argument for argument in arguments])
    assert found.code == 4
    assert "1 of 2 seeds could not be exported; the first: seed 0: no such bundle" in found.err
    lines = (tmp_path / "out" / "scores.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == kept
