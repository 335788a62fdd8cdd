"""The tables of a sequence stage as a file of a bundle: sequence.npz, arrays alone, each under its name."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from link.errors import ArgumentError, BundleError
from link.hdp import Hdp, check_hdp
from link.hsmm import Hsmm
from link.sequence import SequenceTables

_HDP: Final = "hdp."
_HSMM: Final = "hsmm."


def write_sequence(tables: SequenceTables, file: Path) -> None:
    """Write the tables of a stage over codes; the same tables give the same bytes.

    Raises
    ------
    ArgumentError
        If its behaviours are not over codes: what stands in their place never passes a link.
    """
    arrays: dict[str, NDArray[Any]] = {"scale": np.asarray(tables.scale), "log_prior": np.asarray(tables.log_prior)}
    if tables.hdp is not None:
        if not isinstance(tables.hdp, Hdp):
            raise ArgumentError("hdp", "must be over codes to be deployed")
        arrays |= {"log_classes": np.asarray(tables.log_classes), "share": np.asarray(tables.share)}
        arrays |= {f"{_HDP}{name}": np.asarray(value) for name, value in tables.hdp._asdict().items()}
    if tables.hsmm is not None:
        arrays |= {f"{_HSMM}{name}": np.asarray(value) for name, value in tables.hsmm._asdict().items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue())


def read_sequence(file: Path, classes: int) -> SequenceTables:
    """The tables of a stage over so many classes.

    Raises
    ------
    BundleError
        If the file cannot be read, holds other arrays, or tables that no training makes.
    """
    try:
        content = file.read_bytes()
    except OSError:
        raise BundleError(f"{file} is no archive of arrays; export the bundle again") from None
    return sequence_from_bytes(content, classes, str(file))


def sequence_from_bytes(content: bytes, classes: int, file: str) -> SequenceTables:
    """The same of a file's content; `file` is what errors name."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            arrays: dict[str, NDArray[Any]] = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, TypeError):
        raise BundleError(f"{file} is no archive of arrays; export the bundle again") from None
    try:
        tables = _tables(arrays)
        _check(tables, classes)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file}: {error}; export the bundle again") from None
    return tables


def _tables(arrays: dict[str, NDArray[Any]]) -> SequenceTables:
    known = {"scale", "log_prior", "log_classes", "share"}
    known |= {f"{_HDP}{name}" for name in Hdp._fields} | {f"{_HSMM}{name}" for name in Hsmm._fields}
    if unknown := sorted(set(arrays) - known):
        raise ValueError(f"holds {unknown[0]}, which is none of a sequence stage's arrays")
    hdp = hsmm = None
    if any(name.startswith(_HDP) for name in arrays):
        log_codes, weights, alpha, marginal = (arrays[f"{_HDP}{name}"] for name in Hdp._fields)
        hdp = Hdp(log_codes, weights, float(alpha), bool(marginal))
    if any(name.startswith(_HSMM) for name in arrays):
        hsmm = Hsmm(*(arrays[f"{_HSMM}{name}"] for name in Hsmm._fields))
    return SequenceTables(
        arrays["scale"], arrays["log_prior"], hdp, arrays.get("log_classes"), arrays.get("share"), hsmm
    )


def _check(tables: SequenceTables, classes: int) -> None:
    """Raise ValueError unless all tables are of so many classes, and are what they say."""
    sizes = {"log_prior": tables.log_prior.shape[-1:], "scale": tables.scale.shape}
    if sizes != {"log_prior": (classes,), "scale": ()} or tables.log_prior.ndim != 1:
        raise ValueError(f"scale and log_prior must be of {classes} classes")
    if not (np.isfinite(tables.log_prior).all() and np.isfinite(tables.scale) and tables.scale > 0):
        raise ValueError("scale and log_prior must be finite, and the scale above 0")
    if tables.hdp is not None:
        check_hdp(tables.hdp)
        if tables.log_classes is None or tables.share is None:
            raise ValueError("log_classes and share must be there where there are behaviours")
        expected = (tables.hdp.weights.shape[0], classes)
        if tables.log_classes.shape != expected or not np.isfinite(tables.log_classes).all():
            raise ValueError(f"log_classes must be finite and have shape {expected}, got {tables.log_classes.shape}")
        if tables.share.shape != () or not np.isfinite(tables.share):
            raise ValueError("share must be one finite number")
    if tables.hsmm is not None:
        tables.hsmm.check()
        if tables.hsmm.classes != classes:
            raise ValueError(f"hsmm is of {tables.hsmm.classes} classes, the task of {classes}")
