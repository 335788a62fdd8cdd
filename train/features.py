"""States of a frozen backbone, computed once and kept on disk.

    texts ─> frozen backbone ─> states of each text's own tokens, one after another ─> states-HASH.npy, offsets-HASH.npy
                                                                                       └─> memory map ─> rows of a batch

A run whose backbone is frozen trains the neck on these alone, and every run with the same backbone and rows shares them.
States are held in half precision, which costs 2^-11 of their size, and padding is not held at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from link.errors import ArgumentError, HardpathError
from link.interface import TensorSpec
from link.randomness import Draws
from train.checkpoint import weights_sha256
from train.encoders import hidden_size
from train.tasks import Data, PretrainedEncoder, Split, Task, receiver_inputs_of

Progress = Callable[[str, int, int], None]
"""Called with the part that is being encoded, the rows that are done, and how many there are."""

CACHE_VARIABLE: Final = "HARDPATH_CACHE"
_ROWS: Final = 128
_SPARE_BYTES: Final = 2**30


class States:
    """Rows of states, (n, T, H) where each row has a T of its own; an index gives a padded tensor.

    Parameters
    ----------
    values : (tokens, H) float16
        The states of all rows, one row after another.
    offsets : (n + 1,) int64
        Where each row begins.
    """

    def __init__(self, values: NDArray[np.float16], offsets: NDArray[np.int64]) -> None:
        self._values = values
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Tensor:
        """States of some rows, (B, T, H) float32, T that of the longest; 0 behind the end of a row."""
        places, inside = self._places(rows)
        states = torch.from_numpy(self._values[places.ravel()]).float()
        return states.reshape(*places.shape, -1) * torch.from_numpy(inside)[..., None].float()

    def mask(self) -> States.Mask:
        """The mask that goes with the states."""
        return States.Mask(self)

    def _places(self, rows: slice | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        first, last = self._offsets[:-1][rows], self._offsets[1:][rows]
        steps = np.arange(int((last - first).max(initial=1)))
        inside = steps < (last - first)[:, None]
        return np.where(inside, first[:, None] + steps, 0), inside

    class Mask:
        """1 where a row has a state, else 0: an index gives a (B, T) float32 tensor."""

        def __init__(self, states: States) -> None:
            self._states = states

        def __len__(self) -> int:
            return len(self._states)

        def __getitem__(self, rows: slice | NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(self._states._places(rows)[1]).float()


class FrozenEncoder(nn.Module):
    """The neck alone, under the name that it has in the whole encoder."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Latent tokens (B, N, D) of states (B, T, H)."""
        tokens: Tensor = self.neck(states, mask)
        return tokens


class FrozenTask:
    """A task as it looks behind its frozen backbone: its inputs are states, its encoder is the neck.

    Parameters
    ----------
    task : Task
        Whose encoder is a PretrainedEncoder.
    """

    def __init__(self, task: Task, hidden: int) -> None:
        self._task = task
        self.name = task.name
        self.classes = task.classes
        self.inputs = (
            TensorSpec(name="states", dtype="float32", shape=("batch", 1, hidden)),
            TensorSpec(name="mask", dtype="float32", shape=("batch", 1)),
        )
        self.receiver_inputs = receiver_inputs_of(task)

    def load(self, folder: Path | None) -> Data:
        """The task's own rows."""
        return self._task.load(folder)

    def augment(self, inputs: Mapping[str, Any], draws: Draws) -> Mapping[str, Any]:
        """States are not augmented."""
        return inputs

    def encoder(self, tokens: int, dim: int) -> nn.Module:
        """The neck."""
        encoder = cast(PretrainedEncoder, self._task.encoder(tokens, dim))
        return FrozenEncoder(encoder.neck)

    def head(self, tokens: int, dim: int) -> nn.Module:
        """The task's head."""
        return self._task.head(tokens, dim)


def frozen_data(
    task: Task, data: Data, encoder: PretrainedEncoder, cache: Path | None = None, progress: Progress | None = None
) -> Data:
    """The data as a frozen backbone sees them.

    Parameters
    ----------
    task : Task
    data : Data
    encoder : PretrainedEncoder
        With the weights that stay.
    cache : Path, optional
        Folder of the files; where absent, `cache_folder()`.
    progress : callable, optional
        See Progress.

    Raises
    ------
    ArgumentError
        If `cache`, or what the variable HARDPATH_CACHE names, is no folder that can be written into.
    """
    folder = cache or cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(CACHE_VARIABLE, f"must name a folder, {folder} is none: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ArgumentError(CACHE_VARIABLE, f"must name a folder that can be written into, {folder} cannot")
    backbone = weights_sha256(encoder.backbone.state_dict())
    parts = {}
    for name in ("train", "validation", "test"):
        split: Split = getattr(data, name)
        states = _states(name, [split.inputs[spec.name] for spec in task.inputs], encoder, backbone, folder, progress)
        side = {spec.name: split.inputs[spec.name] for spec in receiver_inputs_of(task)}
        parts[name] = Split({"states": states, "mask": states.mask(), **side}, split.labels)  # type: ignore[dict-item]
    return Data(**parts)


def crop(inputs: list[Tensor]) -> list[Tensor]:
    """The inputs of a PretrainedEncoder without the columns that no row of the batch uses."""
    longest = int(inputs[-1].sum(dim=1).max())
    return [tensor[:, :longest] for tensor in inputs]


def cache_folder() -> Path:
    """Where states are kept: $HARDPATH_CACHE, or hardpath/ in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hardpath"


def _states(
    part: str,
    inputs: list[NDArray[Any]],
    encoder: PretrainedEncoder,
    backbone: str,
    folder: Path,
    progress: Progress | None,
) -> States:
    digest = hashlib.sha256(backbone.encode())
    for array in inputs:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    key = digest.hexdigest()[:32]
    values, offsets = folder / f"states-{key}.npy", folder / f"offsets-{key}.npy"
    found = _kept_states(values, offsets)
    if found is None:
        _encode(part, inputs, encoder, values, offsets, progress)
        found = _kept_states(values, offsets)
    assert found is not None
    return found


def _kept_states(values: Path, offsets: Path) -> States | None:
    """The states on disk; None where they are absent or broken, and have to be computed."""
    try:
        starts = np.load(offsets)
        states = np.load(values, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    whole = starts.ndim == 1 and states.ndim == 2 and len(states) == starts[-1] and states.dtype == np.float16
    return States(states, starts) if whole else None


@torch.no_grad()
def _encode(
    part: str,
    inputs: list[NDArray[Any]],
    encoder: PretrainedEncoder,
    values: Path,
    offsets: Path,
    progress: Progress | None,
) -> None:
    """Write both files; the offsets last, so that they are there only when all is.

    Rows of like length go together: their padding is cut off before they are encoded.
    """
    rows, lengths = len(inputs[0]), inputs[-1].sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    device = next(encoder.backbone.parameters()).device
    hidden = hidden_size(encoder.backbone)
    for orphan in values.parent.glob(f"{values.stem}.*.tmp"):  # of a process that was killed
        if not Path(f"/proc/{orphan.suffixes[-2][1:]}").exists():
            orphan.unlink(missing_ok=True)
    _require_room(values.parent, int(starts[-1]) * hidden * 2)
    temporary = values.with_suffix(f".{os.getpid()}.tmp")
    kept = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(int(starts[-1]), hidden))
    try:
        order = np.argsort(lengths, kind="stable")
        for first in range(0, rows, _ROWS):
            chosen = order[first : first + _ROWS]
            texts = crop([torch.from_numpy(array[chosen]) for array in inputs])
            states, _ = encoder.features(*(tensor.to(device) for tensor in texts))
            for row, state in zip(chosen, states.half().cpu().numpy(), strict=True):
                kept[starts[row] : starts[row + 1]] = state[: lengths[row]]
            if progress is not None:
                progress(part, min(first + _ROWS, rows), rows)
        kept.flush()
        temporary.replace(values)
        with temporary.open("wb") as stream:
            np.save(stream, starts)
        temporary.replace(offsets)
    finally:
        temporary.unlink(missing_ok=True)


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise HardpathError(
            f"the states of the encoder take {needed / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} GiB left; "
            f"name another folder with {CACHE_VARIABLE}"
        )
