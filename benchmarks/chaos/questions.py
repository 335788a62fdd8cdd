"""Requests whose right answers are known: computed by the link in this process, which knows neither server nor batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from link.chain import Link
from link.channel import build_channel
from link.interface import TensorSpec
from link.randomness import Draws
from serve.messages import convert
from serve.messages.tensor import tensor_to_message
from serve.pb.hardpath.v1 import link_pb2 as pb

SERVICE: Final = f"/{pb.DESCRIPTOR.services_by_name['LinkService'].full_name}"
CHANNELS: Final[tuple[dict[str, Any], ...]] = (
    {"channel": "awgn"},
    {"channel": "rayleigh"},
    {"channel": "rayleigh-fast", "no_offset_db": 1.5},
    {"channel": "rician-fast", "k_factor_db": 3.0},
    {"channel": "rayleigh", "block_symbols": 2, "csi": "ls", "pilots": 1},
    {"channel": "rician", "csi": "lmmse", "pilots": 2},
)
TEXTS: Final = ("a fine film", "dull", "one", "a dull film and a fine one", "nothing of it is known")


class Question(NamedTuple):
    """A request and its answer.

    Attributes
    ----------
    method : str
        Path of the method.
    request : bytes
        Serialized message.
    samples : int
        Rows in it.
    answer : tuple
        What `essence` must make of the reply.
    """

    method: str
    request: bytes
    samples: int
    answer: tuple[bytes, ...]

    def is_answered_by(self, reply: bytes) -> bool:
        """Whether a serialized reply is the right one: this request's own rows, bit for bit."""
        return essence(self.method, reply) == self.answer


def make_questions(link: Link, count: int, rows: Sequence[int] = (1, 2, 5, 8), seed: int = 0) -> tuple[Question, ...]:
    """Encode, Decode and Transmit in turn, each with rows and settings of its own.

    Parameters
    ----------
    link : Link
    count : int
    rows : sequence of int
        Batch sizes, taken in turn.
    seed : int
        Of the inputs.
    """
    random = np.random.default_rng(seed)
    makers: tuple[Callable[..., Question], ...] = (_transmit, _encode, _decode)
    return tuple(makers[n % 3](link, random, rows[(n // 3) % len(rows)], n) for n in range(count))


def essence(method: str, reply: bytes) -> tuple[bytes, ...]:
    """The arrays of a reply that follow from the request alone; times and versions are left out."""
    name = method.rpartition("/")[2]
    if name == "Encode":
        encoded = pb.EncodeResponse.FromString(reply)
        return _raw(encoded.sent, "indices", "bits", "symbols")
    if name == "Decode":
        decoded = pb.DecodeResponse.FromString(reply).decoded
        return (*_raw(decoded, "indices_hat", "logits", "llr"), _bytes([d.class_index for d in decoded.decisions]))
    carried = pb.TransmitResponse.FromString(reply)
    return (
        *_raw(carried.sent, "indices", "bits"),
        *_raw(carried.decoded, "indices_hat", "logits"),
        _bytes([d.class_index for d in carried.decoded.decisions]),
        _bytes(list(carried.bit_errors)),
    )


def sample_inputs(specs: Sequence[TensorSpec], rows: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Inputs anywhere in their ranges."""
    return {spec.name: _within(spec, rows, random) for spec in specs}


def _within(spec: TensorSpec, rows: int, random: np.random.Generator) -> NDArray[Any]:
    shape = (rows, *(int(size) for size in spec.shape[1:]))
    low, high = (-1.0 if spec.low is None else spec.low), (1.0 if spec.high is None else spec.high)
    if spec.dtype == "float32":
        return random.uniform(low, high, shape).astype(np.float32)
    return random.integers(int(low), int(high), shape, dtype=spec.dtype, endpoint=True)


def _inputs(link: Link, rows: int, random: np.random.Generator) -> dict[str, Any]:
    """Samples as a caller has them: texts where the bundle reads texts."""
    manifest = link.manifest
    if manifest.tokenizer is None:
        return dict(sample_inputs(manifest.task_inputs, rows, random))
    return {manifest.tokenizer.text: random.choice(TEXTS, rows).tolist()}


def _encode(link: Link, random: np.random.Generator, rows: int, number: int) -> Question:
    inputs = _inputs(link, rows, random)
    modes = _modes(link, rows, number // 3)
    request = pb.EncodeRequest(
        model=link.manifest.name,
        inputs=convert.inputs_to_message(inputs),
        tensor_format=pb.TENSOR_FORMAT_RAW,
        mode=modes,
    )
    snr_db = float(number % 20)
    if link.manifest.routed:
        request.snr_db = snr_db
    sent = link.encode(inputs, snr_db, mode=convert.mode_from_message(modes))
    answer = (_bytes(sent.indices), _bytes(sent.bits), _bytes(sent.symbols))
    return Question(f"{SERVICE}/Encode", request.SerializeToString(), rows, answer)


def _decode(link: Link, random: np.random.Generator, rows: int, number: int) -> Question:
    manifest = link.manifest
    symbols = random.normal(scale=0.7, size=(rows, manifest.num_symbols, 2)).astype(np.float32)
    no = random.uniform(0.01, 1.0, size=(rows, manifest.num_symbols)).astype(np.float32)
    mode = random.integers(len(manifest.modes), size=rows)
    request = pb.DecodeRequest(
        model=manifest.name,
        symbols=tensor_to_message("symbols", symbols),
        no=tensor_to_message("no", no),
        mode=mode.tolist(),
        tensor_format=pb.TENSOR_FORMAT_RAW,
        include_llr=True,
    )
    found = link.receiver(symbols, no, mode)
    answer = (_bytes(found.indices_hat), _bytes(found.score), _bytes(found.llr), _bytes(found.decisions.tolist()))
    return Question(f"{SERVICE}/Decode", request.SerializeToString(), rows, answer)


def _transmit(link: Link, random: np.random.Generator, rows: int, number: int) -> Question:
    inputs = _inputs(link, rows, random)
    carried, snr_db, seed, offset = CHANNELS[(number // 3) % len(CHANNELS)], number % 17 - 1.5, number, 64 * number
    modes = _modes(link, rows, number // 3)
    request = pb.TransmitRequest(
        model=link.manifest.name,
        inputs=convert.inputs_to_message(inputs),
        settings=pb.LinkSettings(snr_db=snr_db, seed=seed, sample_offset=offset, **carried),
        tensor_format=pb.TENSOR_FORMAT_RAW,
        mode=modes,
    )
    draws = Draws(seed=seed, samples=offset + np.arange(rows))
    options = {name: value for name, value in carried.items() if name != "channel"}
    found = link.transmit(
        inputs, build_channel(carried["channel"], **options), snr_db, draws, mode=convert.mode_from_message(modes)
    )
    payload = np.arange(found.sent.bits.shape[1]) < found.sent.num_bits[:, None]
    errors = (((found.decoded.llr > 0) != found.sent.bits.astype(bool)) & payload).sum(axis=1)
    answer = (
        _bytes(found.sent.indices),
        _bytes(found.sent.bits),
        _bytes(found.decoded.indices_hat),
        _bytes(found.decoded.score),
        _bytes(found.decoded.decisions.tolist()),
        _bytes(errors.tolist()),
    )
    return Question(f"{SERVICE}/Transmit", request.SerializeToString(), rows, answer)


def _modes(link: Link, rows: int, number: int) -> list[int]:
    """Modes asked for: one a sample, one for all, and none, in turn; none of a bundle that takes none."""
    modes = len(link.manifest.modes)
    if modes > 1 and not link.manifest.takes_mode:
        return []
    each = [(number + row) % (modes + 1) - 1 for row in range(rows)]
    return (each, each[:1], [])[number % 3]


def _raw(message: Message, *names: str) -> tuple[bytes, ...]:
    return tuple(getattr(message, name).raw for name in names)


def _bytes(values: NDArray[Any] | list[int]) -> bytes:
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
