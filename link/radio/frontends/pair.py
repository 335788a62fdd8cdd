"""One front end that sends and another one that receives: two devices, and whatever is between their antennas."""

from __future__ import annotations

from typing import ClassVar

from link.errors import ArgumentError, RadioError
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples
from link.radio.frontends import AnyFrontEndSpec


class Spec(FrontEndSpec):
    """Two front ends.

    Attributes
    ----------
    send, recv : FrontEndSpec
        Each given as a table with its kind and its options. Of the first nothing is received, over the other nothing sent.
    """

    kind: ClassVar[str] = "pair"

    send: AnyFrontEndSpec
    recv: AnyFrontEndSpec

    def build(self) -> Pair:
        for field, end in (("send", self.send), ("recv", self.recv)):
            if end.simulated or end.kind == "pair":
                raise ArgumentError(field, f"must be a device or a program, got {end.kind}")
        return Pair(self.send.build(), self.recv.build())


class Pair(FrontEnd):
    """Two front ends as one.

    Parameters
    ----------
    sender, receiver : FrontEnd
    """

    def __init__(self, sender: FrontEnd, receiver: FrontEnd) -> None:
        self._sender = sender
        self._receiver = receiver

    @property
    def capabilities(self) -> Capabilities:
        sends, receives = self._sender.capabilities, self._receiver.capabilities
        return Capabilities(
            sends=sends.sends,
            receives=receives.receives,
            sample_rate_hz=receives.sample_rate_hz or sends.sample_rate_hz,
            real_time=sends.real_time or receives.real_time,
            chunk=min(sends.chunk, receives.chunk),
            full_scale=sends.full_scale,
            timestamps=receives.timestamps,
            exclusive=sends.exclusive or receives.exclusive,
        )

    def open(self) -> None:
        self._receiver.open()
        try:
            self._sender.open()
            self._require_same_rate()
        except Exception:
            self.close()
            raise

    def send(self, samples: Samples, timeout_s: float) -> int:
        return self._sender.send(samples, timeout_s)

    def recv(self, most: int, timeout_s: float) -> Block:
        return self._receiver.recv(most, timeout_s)

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()

    def attached(self, timeout_s: float) -> bool:
        return self._sender.attached(timeout_s) and self._receiver.attached(timeout_s)

    def facts(self) -> dict[str, str | float | int | bool]:
        ends = (("send", self._sender), ("recv", self._receiver))
        return {f"{end} {name}": value for end, frontend in ends for name, value in frontend.facts().items()}

    def _require_same_rate(self) -> None:
        rates = [end.capabilities.sample_rate_hz for end in (self._sender, self._receiver)]
        if None not in rates and rates[0] != rates[1]:
            raise RadioError(
                f"the pair must have one sample rate, but sends at {rates[0]:g} and receives at {rates[1]:g}"
            )
