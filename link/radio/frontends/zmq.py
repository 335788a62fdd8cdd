"""Samples over ZMQ, in GNU Radio's and srsRAN's manner.

    pattern         we send                  we receive                   at the other end
    push-pull       PUSH                     PULL                         GNU Radio's pull_source and push_sink
    request-reply   replies to requests      requests, and get replies    GNU Radio's req_source and rep_sink; srsRAN

A message is any number of complex64 (little-endian, I before Q) and nothing else: no tags (`pass_tags` off), no key. GNU
Radio requests with a uint32, the count of items that it has room for, and is sent no more than these; srsRAN requests with
one byte, and is sent what there is. We request with GNU Radio's four bytes: its rep_sink reads all of them, srsRAN's
transmitter reads one and does not look at it, and may reply with more than was requested.

Publishers and subscribers are left out: a publisher drops what its subscribers are too slow for, half of a stream at ZMQ's
default high-water mark, and tells nobody. GNU Radio's and srsRAN's senders bind and their receivers connect, whence our
defaults. Only one program may be at the other side of an endpoint: ZMQ would share the samples out among several.

Nobody is asked who they are: whoever reaches an endpoint takes or gives samples. Bind addresses that only the peer reaches.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from link.errors import ArgumentError, DriverUnavailable, RadioError
from link.radio.frontend import Block, Capabilities, FrontEnd, FrontEndSpec, Samples

if TYPE_CHECKING:
    from link.radio.frontends import zmq_sockets

_LOOK_S: Final = 0.01

Endpoint = Annotated[str, Field(pattern=r"^(tcp|ipc)://.+$")]


class Spec(FrontEndSpec):
    """Two ZMQ endpoints.

    Attributes
    ----------
    send, recv : str or None
        Where samples go and where they come from, tcp://HOST:PORT or ipc://PATH; at least one. The port of one that we bind
        may be `*`, for any that is free: the front end's `facts` tell which.
    send_binds, recv_binds : bool
        Whether we bind the endpoint, or connect to one that the peer binds.
    pattern : str
        push-pull or request-reply.
    sample_rate_hz : float or None
        The rate that the peer keeps; None where nothing does.
    message_samples : int
        Samples in a message that we send, at most, and that we request.
    high_water_mark : int
        Messages that wait at each end of ours before no more are taken.
    """

    kind: ClassVar[str] = "zmq"
    needs: ClassVar[str | None] = "pip install 'hardpath[zmq]'"

    send: Endpoint | None = None
    recv: Endpoint | None = None
    send_binds: bool = True
    recv_binds: bool = False
    pattern: Literal["push-pull", "request-reply"] = "push-pull"
    sample_rate_hz: PositiveFloat | None = None
    message_samples: Annotated[int, Field(ge=1, le=1 << 20)] = 8192
    high_water_mark: PositiveInt = 64

    @model_validator(mode="after")
    def _check_endpoints(self) -> Spec:
        if self.send is None and self.recv is None:
            raise ArgumentError("send", "must be given, or recv, or both")
        for field, endpoint, binds in (("send", self.send, self.send_binds), ("recv", self.recv, self.recv_binds)):
            if endpoint is not None and "*" in endpoint and not binds:
                raise ArgumentError(field, f"must name host and port where we do not bind it, got {endpoint!r}")
        return self

    def build(self) -> ZmqFrontEnd:
        _require_driver()
        return ZmqFrontEnd(self)

    def probe(self) -> list[dict[str, Any]]:
        _require_driver()
        return []


class ZmqFrontEnd(FrontEnd):
    """Samples to and from a program at the other side of two ZMQ endpoints.

    A peer that never came takes nothing and gives nothing. One that was there and has gone is a RadioError: of `send` when
    no more is taken, of `recv` when all that had come was given. Should it come back, the stream goes on, and the first
    block says that an unknown number of samples is missing. So does the block behind a message that was no whole number of
    samples, which is an error of its own.

    Parameters
    ----------
    spec : Spec
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._context: zmq_sockets.Context | None = None
        self._sender: zmq_sockets.Pusher | zmq_sockets.Replier | None = None
        self._receiver: zmq_sockets.Puller | None = None

    @property
    def capabilities(self) -> Capabilities:
        spec = self._spec
        return Capabilities(
            sends=spec.send is not None,
            receives=spec.recv is not None,
            sample_rate_hz=spec.sample_rate_hz,
            chunk=spec.message_samples,
        )

    def open(self) -> None:
        if self._context is not None:
            return
        _require_driver()
        from link.radio.frontends.zmq_sockets import Context, Line, Puller, Pusher, Replier, Requester

        spec = self._spec
        requests = spec.pattern == "request-reply"
        self._context = Context()
        try:
            if spec.send is not None:
                sender = Replier if requests else Pusher
                line = Line(self._context, sender.kind, spec.send, spec.send_binds, spec.high_water_mark)
                self._sender = sender(line, spec.message_samples)
            if spec.recv is not None:
                receiver = Requester if requests else Puller
                line = Line(self._context, receiver.kind, spec.recv, spec.recv_binds, spec.high_water_mark)
                self._receiver = receiver(line, spec.message_samples)
        except RadioError:
            self.close()
            raise

    def send(self, samples: Samples, timeout_s: float) -> int:
        if self._sender is None:
            raise RadioError(self._missing("send"))
        return self._sender.send(np.ascontiguousarray(samples, dtype="<c8"), time.monotonic() + timeout_s)

    def recv(self, most: int, timeout_s: float) -> Block:
        if self._receiver is None:
            raise RadioError(self._missing("recv"))
        return self._receiver.recv(most, time.monotonic() + timeout_s)

    def attached(self, timeout_s: float) -> bool:
        if self._context is None:
            raise RadioError(self._missing("send"))
        deadline = time.monotonic() + timeout_s
        lines = [end.line for end in (self._sender, self._receiver) if end is not None]
        while True:
            for line in lines:
                line.look()
            if all(line.peers for line in lines):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_S)

    def close(self) -> None:
        for end in (self._sender, self._receiver):
            if end is not None:
                end.line.close()
        if self._context is not None:
            self._context.term()
        self._context = self._sender = self._receiver = None

    def facts(self) -> dict[str, str | float | int | bool]:
        """Endpoints in use, with the ports that were free; nothing while it is closed."""
        ends = {"send": self._sender, "recv": self._receiver}
        return {name: end.line.endpoint for name, end in ends.items() if end is not None}

    def _missing(self, end: str) -> str:
        if self._context is None:
            return "the ZMQ front end is not open"
        return f"the ZMQ front end has no endpoint to {end}: give the option {end}"


def _require_driver() -> None:
    try:
        import zmq  # noqa: F401
    except ImportError:
        raise DriverUnavailable("zmq", "pyzmq", str(Spec.needs)) from None
