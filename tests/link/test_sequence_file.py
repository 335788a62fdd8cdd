"""The file of a sequence stage: there and back, the same bytes, and each mistake in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from link.durations import negative_binomial
from link.errors import ArgumentError, BundleError
from link.hdp import GaussianHdp, Hdp
from link.hsmm import Hsmm
from link.sequence import SequenceTables
from link.sequence_file import read_sequence, write_sequence

C, K, N, V = 3, 4, 2, 5


def tables(hdp: bool = True, hsmm: bool = True) -> SequenceTables:
    random = np.random.default_rng(0)

    def log_rows(*shape: int) -> NDArray[np.float64]:
        return np.log(random.dirichlet(np.ones(shape[-1]), shape[:-1]))

    transition = np.full((C, C), np.log(0.5))
    np.fill_diagonal(transition, -np.inf)
    durations = negative_binomial(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0]), 6)
    return SequenceTables(
        np.array(0.7),
        log_rows(C),
        Hdp(log_rows(K, N, V) - 0.1, random.dirichlet(np.ones(K)), 0.8, marginal=True) if hdp else None,
        log_rows(K, C) if hdp else None,
        np.array(0.3) if hdp else None,
        Hsmm.of(log_rows(C), transition, durations) if hsmm else None,
    )


def same(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(map(same, one, other))
    return bool(np.array_equal(np.asarray(one), np.asarray(other))) if one is not None else other is None


@pytest.mark.parametrize(("hdp", "hsmm"), [(True, True), (True, False), (False, True), (False, False)])
def test_tables_come_back_as_they_were_and_are_the_same_bytes_each_time(tmp_path: Path, hdp: bool, hsmm: bool) -> None:
    written = tables(hdp, hsmm)
    for name in ("a.npz", "b.npz"):
        write_sequence(written, tmp_path / name)
    found = read_sequence(tmp_path / "a.npz", C)
    assert same(found, written)
    assert type(found.hdp) is type(written.hdp)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_never_passes_a_link_is_not_deployed(tmp_path: Path) -> None:
    gaussian = GaussianHdp(np.zeros((K, 2)), np.ones((K, 2)), np.full(K, 1 / K), 1.0)
    with pytest.raises(ArgumentError, match="hdp must be over codes"):
        write_sequence(tables()._replace(hdp=gaussian), tmp_path / "a.npz")


def changed(**arrays: Any) -> dict[str, Any]:
    held = tables()
    assert held.hdp is not None
    assert held.hsmm is not None
    found = {"scale": held.scale, "log_prior": held.log_prior, "log_classes": held.log_classes, "share": held.share}
    found |= {f"hdp.{name}": value for name, value in held.hdp._asdict().items()}
    found |= {f"hsmm.{name}": value for name, value in held.hsmm._asdict().items()}
    return {name: value for name, value in {**found, **arrays}.items() if value is not None}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"extra": np.zeros(3)}, "holds extra, which is none"),
        ({"scale": np.zeros(2)}, "must be of 3 classes"),
        ({"scale": np.array(-1.0)}, "the scale above 0"),
        ({"log_prior": np.zeros(4)}, "must be of 3 classes"),
        ({"log_prior": np.full(3, np.nan)}, "must be finite"),
        ({"log_classes": None}, "log_classes and share must be there"),
        ({"log_classes": np.zeros((4, 2))}, "must be finite and have shape"),
        ({"share": np.zeros(2)}, "share must be one finite number"),
        ({"hdp.weights": np.ones(4)}, "must add up to 1"),
        ({"hdp.alpha": None}, "hdp.alpha"),
        ({"hsmm.tail": None}, "hsmm.tail"),
        ({"hsmm.transition": np.log(np.full((3, 3), 1 / 3))}, "diagonal of -inf"),
        ({"hsmm.initial": np.zeros(3)}, "probabilities that sum to 1"),
        ({"scale": np.array(["a"])}, "sequence"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    file = tmp_path / "sequence.npz"
    np.savez(file, **changed(**arrays))
    with pytest.raises(BundleError, match=says) as caught:
        read_sequence(file, C)
    assert "\n" not in str(caught.value)


def test_tables_of_other_classes_and_files_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "sequence.npz"
    write_sequence(tables(), file)
    with pytest.raises(BundleError, match="must be of 4 classes"):
        read_sequence(file, 4)
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(BundleError, match="is no archive of arrays"):
        read_sequence(file, C)
    with pytest.raises(BundleError, match="is no archive of arrays"):
        read_sequence(tmp_path / "none.npz", C)
