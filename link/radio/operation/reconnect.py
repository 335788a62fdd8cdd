"""A radio that is lost in the middle and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from link.errors import DriverUnavailable, RadioError
from link.radio.channel import Drop, RadioChannel
from link.radio.frontend import FrontEnd
from link.radio.spec import RadioSpec
from link.randomness import Draws

_FIRST_WAIT_S: Final = 0.1
_WAIT_MAX_S: Final = 2.0


class ReconnectingRadio(RadioChannel):
    """Opens the device again where it is lost, and sends again what was under way; one that never worked is refused at once.

    Parameters
    ----------
    spec, frontend, watch
        As for RadioChannel.
    patience_s : float
        How long after the last exchange that came through it goes on trying, with waits that double up to 2 s.
    on_loss : callable, optional
        Is told why and how long it waits, at each attempt.

    Attributes
    ----------
    reconnects : int
        Times that it came back.
    """

    def __init__(
        self,
        spec: RadioSpec,
        frontend: FrontEnd | None = None,
        watch: Callable[[Drop], None] | None = None,
        *,
        patience_s: float,
        on_loss: Callable[[RadioError, float], None] | None = None,
    ) -> None:
        super().__init__(spec, frontend, watch)
        self.reconnects = 0
        self._patience_s = patience_s
        self._on_loss = on_loss
        self._worked = False

    def drop(self, payloads: list[NDArray[np.complex128]], snr_db: float | None, draws: Draws) -> Drop:
        """As for RadioChannel, as often as it takes.

        Raises
        ------
        RadioError
            If the device does not come back in time.
        """
        lost_at: float | None = None
        wait = _FIRST_WAIT_S
        while True:
            try:
                found = super().drop(payloads, snr_db, draws)
            except RadioError as error:
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                if isinstance(error, DriverUnavailable) or not self._worked or not self._patience_s:
                    raise
                if now - lost_at + wait > self._patience_s:
                    raise RadioError(f"{error}; it did not come back within {self._patience_s:g} s") from None
                if self._on_loss is not None:
                    self._on_loss(error, wait)
                time.sleep(wait)
                wait = min(2.0 * wait, _WAIT_MAX_S)
            else:
                self._worked = True
                self.reconnects += lost_at is not None
                return found
