"""Sionna, kept from the rest of the program.

Importing sionna.phy takes seconds and gives torch's global generators a new seed; its channels take their numbers from
generators of its own, in the order in which they are asked for. Here it is imported when it is first called for, torch's
generators are put back, and each random number that a channel asks for is one with an address (link.randomness).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import Any, Final

from link.errors import MissingExtra
from link.randomness import Draws, Stream

_IMPORTING: Final = Lock()


def require_sionna() -> None:
    """Find out, without importing it, whether Sionna is there.

    Raises
    ------
    MissingExtra
        If Sionna or torch is not installed.
    """
    if find_spec("torch") is None or find_spec("sionna") is None:
        raise MissingExtra("sionna", "sim")


def import_sionna() -> None:
    """Import sionna.phy, and leave torch's generators, those of GPUs too, as they were.

    Raises
    ------
    MissingExtra
        If Sionna or torch is not installed.
    """
    require_sionna()
    import torch

    # Two threads at once would put back what the other's import had left.
    with _IMPORTING, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        import sionna.phy  # noqa: F401


@contextmanager
def addressed(draws: Draws, stream: Stream, point: int) -> Iterator[None]:
    """Within it, what torch.rand and torch.normal are asked for is taken from `draws`, row by row.

    The first axis of each request is the batch, and a row's numbers depend on its own address and on what was asked for
    before, so not on the other rows. Numbers that torch.normal is asked for are normal; all are float64.

    Raises
    ------
    RuntimeError
        If any other function is handed a generator, or a request has another first axis: its numbers would have no address.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Addressed(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.taken = 0

        def __torch_function__(
            self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            if "generator" not in kwargs:
                return function(*args, **kwargs)
            size = kwargs.get("size", args[0] if args else ())
            drawn = function in (torch.rand, torch.normal) and isinstance(size, tuple | list)
            if not drawn or size[0] != len(draws.samples):
                raise RuntimeError(f"{function} asks for random numbers that have no address")
            many = math.prod(size[1:])
            start = self.taken
            if function is torch.rand:
                self.taken += many
                return torch.from_numpy(draws.uniforms(stream, point, many, start)).reshape(size)
            self.taken += -(-many // 2)
            normals = draws.normals(stream, point, self.taken - start, start).reshape(len(draws.samples), -1)
            return torch.from_numpy(normals[:, :many].copy()).reshape(size)

    with Addressed(), torch.inference_mode():
        yield
