"""What the models of a server share: threads, room in the queue, limits, and how runs are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from serve.engine.admission import Admission
from serve.engine.aside import Aside
from serve.engine.batcher import Run
from serve.engine.cost import CostModel
from serve.engine.policy import Adaptive, Fixed, Policy
from serve.engine.workers import Workers

if TYPE_CHECKING:
    from serve.engine.radio import Radio

MAX_BATCH: Final = 4096


@dataclass(frozen=True)
class Means:
    """What the models of a server share.

    Attributes
    ----------
    workers : Workers
    admission : Admission
    max_batch : int
        Most samples in one request.
    max_rows : int, optional
        Rows of a run at most; None decides by measured cost, up to `max_batch`.
    wait_s : float, optional
        How long a run waits for more rows; None decides by what waiting has paid.
    threads : int
        Threads inside one operation of ONNX Runtime.
    device : str
        Where the graphs run, see link.runtime.Transmitter.
    memory_bytes : int, optional
        What each graph may take of a GPU's memory, see link.session.open_session.
    ran : callable
        Called with the name of an operation and each of its runs.
    aside : Aside
    radio : Radio, optional
        None where there is no radio.
    """

    workers: Workers = field(default_factory=lambda: Workers(1))
    admission: Admission = field(default_factory=Admission)
    max_batch: int = MAX_BATCH
    max_rows: int | None = None
    wait_s: float | None = None
    threads: int = 1
    device: str = "cpu"
    memory_bytes: int | None = None
    ran: Callable[[str, Run], None] = lambda operation, run: None
    aside: Aside = field(default_factory=Aside)
    radio: Radio | None = None

    def policy(self, cost: CostModel) -> Policy:
        """How runs are made up."""
        if self.wait_s is None:
            return Adaptive(cost, self.max_rows or self.max_batch)
        return Fixed(self.max_rows or self.max_batch, self.wait_s)

    def close(self) -> None:
        """Wait for what is being run."""
        self.workers.close()
        self.aside.close()
        if self.radio is not None:
            self.radio.close()
