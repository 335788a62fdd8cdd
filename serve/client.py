"""The client: what the engine answers, from another process.

The calls and results are those of serve.engine; NumPy arrays on both sides:

    with Client("127.0.0.1:50051") as client:
        client.transmit(images, snr_db=12.0, seed=1).decoded.class_names
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from types import TracebackType
from typing import Final, TypeVar, cast

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike

from link.errors import ArgumentError, ServerError
from link.runtime import Transmission
from serve import convert
from serve.model import model_from_message
from serve.pb.hardpath.v1 import link_pb2 as pb
from serve.pb.hardpath.v1 import link_pb2_grpc
from serve.results import Decoded, ModelInfo, Settings, Transmitted
from serve.status import argument_error
from serve.tensor import MESSAGE_BYTES

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0

Reply = TypeVar("Reply", bound=Message)
Result = TypeVar("Result")


class Client:
    """A connection to a server, for any number of threads.

    Parameters
    ----------
    address : str
        host:port
    timeout_s : float
        Seconds that a call may take.

    Notes
    -----
    Each method raises ArgumentError where the server refuses an argument, naming it, and ServerError where the server cannot
    be reached or fails, naming the address.
    """

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
            ],
        )
        self._stub = link_pb2_grpc.LinkServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def model(self) -> ModelInfo:
        """What the server holds and takes."""
        return self._call(self._stub.GetModel, pb.GetModelRequest(), model_from_message)

    def encode(self, x: ArrayLike | Mapping[str, ArrayLike], *, snr_db: float | None = None) -> Transmission:
        """Encode a batch.

        Parameters
        ----------
        x : (B, ...) array, list of B str, or mapping of name to one of them
            An array, or texts where the model reads them, where the model has one input; else the inputs by name.
        snr_db : float, optional
            Es/N0 as the transmitter estimates it, dB, in [-30, 60]; for a model with a router, and for no other.

        Returns
        -------
        Transmission
            As link.runtime.Transmitter has it; the log counts texts that were cut.
        """
        request = convert.encode_request(self._inputs(x), snr_db)
        request.tensor_format = pb.TENSOR_FORMAT_RAW
        return self._call(self._stub.Encode, request, _encoded)

    def decode(
        self,
        symbols: ArrayLike,
        no: ArrayLike,
        *,
        mode: ArrayLike | None = None,
        llr_in: ArrayLike | None = None,
        include_llr: bool = False,
    ) -> Decoded:
        """Decode a batch.

        Parameters
        ----------
        symbols : (B, S, 2) float32
            Equalised symbols as (I, Q), Es = 1, finite.
        no : (B, S) float32, or float
            Noise variance per complex symbol, linear, at least 1e-6; inf marks an erased symbol. A number stands for all.
        mode : (B,) int64, optional
            The model's default mode where absent.
        llr_in : (B, L) float32, optional
            LLRs added to the demapped ones, ln P(b=1)/P(b=0).
        include_llr : bool
            Whether to return the LLRs.
        """
        if np.ndim(no) == 0:
            no = np.full(np.shape(symbols)[:-1], no, dtype=np.float32)
        request = convert.decode_request(symbols, no, mode, llr_in)
        request.include_llr = include_llr
        request.tensor_format = pb.TENSOR_FORMAT_RAW
        return self._call(self._stub.Decode, request, lambda reply: convert.decoded_from_message(reply.decoded))

    def transmit(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        *,
        snr_db: float,
        channel: str = "awgn",
        block_symbols: int = 0,
        k_factor_db: float | None = None,
        seed: int = 0,
        sample_offset: int = 0,
        draw: int = 0,
        snr_error_db: float = 0.0,
        csi: str = "perfect",
        pilots: int = 0,
        no_offset_db: float = 0.0,
        include_llr: bool = False,
        include_symbols: bool = False,
    ) -> Transmitted:
        """Carry a batch over the link.

        Parameters
        ----------
        x : (B, ...) array, list of B str, or mapping of name to one of them
            An array, or texts where the model reads them, where the model has one input; else the inputs by name.
        snr_db, channel, block_symbols, k_factor_db, seed, sample_offset, draw, snr_error_db, csi, pilots, no_offset_db
            As for serve.results.Settings.
        include_llr : bool
            Whether to return the LLRs.
        include_symbols : bool
            Whether to return the symbols sent, the symbols received, and their noise variances.
        """
        settings = Settings(
            snr_db,
            channel,
            block_symbols,
            k_factor_db,
            seed,
            sample_offset,
            draw,
            snr_error_db,
            csi,
            pilots,
            no_offset_db,
        )
        request = pb.TransmitRequest(
            inputs=self._inputs(x),
            settings=convert.settings_to_message(settings),
            tensor_format=pb.TENSOR_FORMAT_RAW,
            include_llr=include_llr,
            include_symbols=include_symbols,
        )
        return self._call(self._stub.Transmit, request, convert.transmitted_from_message)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _input_names(self) -> tuple[str, ...]:
        return self.model().manifest.input_names

    def _inputs(self, x: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, pb.Tensor]:
        if isinstance(x, Mapping):
            return convert.inputs_to_message(x)
        if isinstance(x, str | bytes):
            raise ArgumentError("x", "must be a list of texts, got a single one: put it into a list")
        names = self._input_names
        if len(names) != 1:
            raise ArgumentError("x", f"must map the inputs {', '.join(names)} to arrays")
        return convert.inputs_to_message({names[0]: x})

    def _call(self, method: Callable[..., Reply], request: Message, read: Callable[[Reply], Result]) -> Result:
        try:
            reply = method(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            # What a unary call raises is also the call.
            refused = argument_error(cast(grpc.Call, error))
            raise refused if refused is not None else self._server_error(error) from None
        try:
            return read(reply)
        except ArgumentError as error:
            raise ServerError(f"the server at {self.address} sent a reply that cannot be read: {error}") from None

    def _server_error(self, error: grpc.RpcError) -> ServerError:
        code, details = error.code(), error.details()
        if code is grpc.StatusCode.UNAVAILABLE:
            return ServerError(f"no server can be reached at {self.address}: {details}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerError(f"the server at {self.address} did not answer within {self.timeout_s:g} s")
        return ServerError(f"the server at {self.address} failed: {code.name}: {details}")


def _encoded(reply: pb.EncodeResponse) -> Transmission:
    if any(reply.truncated):
        logger.warning(
            "%d of %d texts have too many tokens for the model: cut", sum(reply.truncated), len(reply.truncated)
        )
    return convert.transmission_from_message(reply)
