"""Files of a call: what --out saves of an answer, and what --decode reads.

A transmission's .npz holds `y`, the symbols received, with their noise variances `no`, beside `symbols`, those sent; an
encoding's `symbols` and `bits`. So --decode takes of the one what was received, and of the other what was sent.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hardpath.terminal import in_place_of, write_text
from link.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hardpath.call_tables import Answers

_KINDS: Final = (
    {"y": "symbols", "no": "no"},
    {"symbols": "symbols", "no": "no"},
    {"llr_in": "llr_in"},
    {"bits": "bits"},
)
"""What can be decoded: arrays of a file, and what they are to the receiver. The first that a file has is taken."""


def check_out(out: Path | None, *, arrays: bool) -> None:
    """Refuse a name that says no format, before anything is sent.

    Raises
    ------
    ArgumentError
    """
    known = ((".npz",) if arrays else ()) + (".json", ".csv")
    if out is not None and out.suffix.lower() not in known:
        raise ArgumentError("--out", f"must end with {', '.join(known[:-1])} or {known[-1]}, got {out}")
    if out is not None and out.is_dir():
        raise ArgumentError("--out", f"{out} is a folder: name a file")
    above = None if out is None else next((folder for folder in out.parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise ArgumentError("--out", f"{out} cannot be written: {above} is a file")


def save(out: Path | None, answers: Answers, result: Any) -> None:
    """What is printed, as JSON or CSV; or all arrays of a result."""
    if out is None:
        return
    if out.suffix.lower() == ".npz":
        _save_arrays(out, result)
    elif out.suffix.lower() == ".json":
        write_text(out, json.dumps(answers, indent=2, allow_nan=False) + "\n")
    else:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(answers[0]) if answers else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(answers)
        write_text(out, table.getvalue())


def received(file: Path) -> dict[str, Any]:
    """What a file has for the receiver, as the arguments of serve.client.Client.decode.

    Symbols where their noise is told, of a transmission those received; else LLRs, else bits. LLRs go with symbols, too. The
    mode of a sample is what its header said, where there was one.

    Raises
    ------
    ArgumentError
        If the file is no .npz, holds nothing of the kind, or an array that cannot be read.
    """
    import numpy as np

    with file.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ArgumentError("--decode", f"{file} is no .npz, or not the whole of one")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as loaded:
            kind = next((kind for kind in _KINDS if kind.keys() <= set(loaded.files)), None)
            if kind is None:
                held = ", ".join(loaded.files) or "nothing"
                raise ArgumentError("--decode", f"{file} must hold symbols and no, llr_in, or bits; it holds {held}")
            beside = {"mode": "mode"} | ({"llr_in": "llr_in"} if "no" in kind else {})
            if "y" in kind and "header_mode" in loaded.files:
                beside["mode"] = "header_mode"
            chosen = {argument: name for name, argument in kind.items()} | {
                argument: name for argument, name in beside.items() if name in loaded.files
            }
            return {argument: _array(file, loaded, name) for argument, name in chosen.items()}


def received_beside(file: Path, names: Collection[str], rows: slice) -> dict[str, Any]:
    """What a file has of the inputs that the receiver has of its own, by name: some rows of each."""
    import numpy as np

    with np.load(file, allow_pickle=False) as loaded:
        return {name: _array(file, loaded, name, texts=True)[rows] for name in names if name in loaded.files}


def _array(file: Path, loaded: Any, name: str, *, texts: bool = False) -> NDArray[Any]:
    import numpy as np

    try:
        found = loaded[name]
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise ArgumentError("--decode", f"{file}: `{name}` is damaged, or holds Python objects") from None
    if (
        not isinstance(found, np.ndarray)
        or found.dtype.kind not in ("biufU" if texts else "biuf")
        or not found.ndim
        or not len(found)
    ):
        raise ArgumentError(
            "--decode", f"{file} must hold numbers{' or texts' if texts else ''} as `{name}`, a row a sample"
        )
    return found


def _save_arrays(out: Path, result: Any) -> None:
    import numpy as np

    with in_place_of(out) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **_arrays(result))


def _arrays(result: Any) -> dict[str, Any]:
    """Arrays by name, those of the parts of a result among its own: what --decode reads is named as it wants it."""
    import numpy as np

    found: dict[str, Any] = {}
    for name, value in result._asdict().items():
        if isinstance(value, np.ndarray):
            found[name] = value
        elif name == "class_names":
            found[name] = np.array(value)
        elif name in ("sent", "decoded"):
            found |= _arrays(value)
        elif name == "header" and value is not None:
            found |= {f"header_{part}": array for part, array in _arrays(value).items()}
    return found
