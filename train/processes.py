"""Several processes that train the model of one.

                     ┌─> process 0: its rows ─> encoder ─> tokens ─┐
    rows of a batch ─┤                                             ├─> tokens of all rows ─> link, loss, codebooks: in each
                     └─> process 1: its rows ─> encoder ─> tokens ─┘

The encoder is nearly all of the work, and a row passes it alone. What is behind it wants the whole batch: the entropy of the
mean usage, load balance, mean energy and the terms of each mode are no means over rows, and a codebook moves by counts and
sums. Tokens are small, so every process gets those of all rows and computes all the rest, as one process would. There is no
other code for several processes: no sum to reduce, no term to correct.

The loss is then the whole batch's in each process, and so is its gradient at the tokens. Each passes that of its own rows on
through its encoder: the encoder's gradient is the sum over the processes, while that of head and router is whole in each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from link.errors import ArgumentError, HardpathError

Device = Literal["auto", "cpu", "cuda"]
Value = TypeVar("Value")

_COUNT_VARIABLES: Final = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they started: torchrun and accelerate, and those of MPI."""

_PATIENCE: Final = timedelta(days=1)
"""How long one waits for another. A process that ends is noticed at once; one that reads a data set may take hours."""


class Processes:
    """A process and those that train the same model with it; alone as a rule.

    Parameters
    ----------
    device : torch.device, optional
        Where it computes; the CPU where absent.
    number, count : int
        Which it is, of how many.
    number_here : int
        Which it is of those on its machine.
    """

    def __init__(
        self, device: torch.device | None = None, number: int = 0, count: int = 1, number_here: int = 0
    ) -> None:
        self.device = device or torch.device("cpu")
        self.number = number
        self.count = count
        self._number_here = number_here

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.number == 0

    def share(self, rows: int) -> NDArray[np.int64]:
        """Which of so many rows this process encodes.

        As many in each process, ceil(rows / count), in the order of the processes; where rows run out, the last one again.

        Examples
        --------
        >>> [Processes(number=number, count=3).share(5).tolist() for number in range(3)]
        [[0, 1], [2, 3], [4, 4]]
        """
        size = -(-rows // self.count)
        return np.minimum(np.arange(self.number * size, (self.number + 1) * size), rows - 1)

    def gather(self, own: Tensor, rows: int) -> Tensor:
        """What the processes made of their shares of so many rows, (rows, ...), in the order of the rows.

        Gradients pass to this process's own.
        """
        if self.count == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.count)]
        with self._together():
            distributed.all_gather(parts, own.detach().contiguous())
        parts[self.number] = own
        return torch.cat(parts)[:rows]

    @torch.no_grad()
    def add_gradients(self, model: nn.Module, encoder: nn.Module) -> None:
        """Make the gradients of a model those of the whole batch: the encoder's summed, all others the first process's."""
        if self.count == 1:
            return
        ours = set(encoder.parameters())
        gradients = []
        for parameter in model.parameters():
            if parameter.grad is not None:
                # Whole in each process already, but for machines that round differently.
                gradients.append(parameter.grad if self.is_first or parameter in ours else parameter.grad.zero_())
        total = torch.cat([gradient.flatten() for gradient in gradients])
        with self._together():
            distributed.all_reduce(total)
        parts = torch.split(total, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Take up the tensors of the first process's model, so that machines that round differently stay together."""
        if self.count == 1:
            return
        for tensor in model.state_dict().values():
            with self._together():
                distributed.broadcast(tensor, 0)

    def agree(self, value: Value) -> Value:
        """What the first process gives here; every process must ask."""
        if self.count == 1:
            return value
        values = [value]
        with self._together():
            distributed.broadcast_object_list(values, 0)
        return values[0]

    @contextmanager
    def one_before_the_others(self) -> Iterator[None]:
        """Run the block in one process of each machine, then in the others: what it leaves on disk is made once."""
        if self._number_here:
            self.meet()
        yield
        if not self._number_here:
            self.meet()

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            with self._together():
                distributed.barrier()

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            why = next(iter(str(error).splitlines()), "")
            raise HardpathError(
                f"process {self.number + 1} of {self.count} ends, since another one has ended: {why}"
            ) from None


@contextmanager
def launched(device: Device = "auto") -> Iterator[Processes]:
    """The processes of `accelerate launch`, torchrun or mpirun while the block runs; one where nothing launched several.

    Parameters
    ----------
    device : str
        `cpu`, `cuda`, or `auto`: CUDA where there is one.

    Raises
    ------
    ArgumentError
        If there is no CUDA and it is asked for.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device", "must be auto or cpu: torch finds no CUDA device here")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if max(int(os.environ.get(name) or 1) for name in _COUNT_VARIABLES) == 1:
        yield Processes(torch.device("cpu" if on_cpu else "cuda"))
        return
    from accelerate import PartialState

    state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    yield Processes(state.device, state.process_index, state.num_processes, state.local_process_index)
    state.destroy_process_group()
