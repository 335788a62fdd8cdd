"""What is compared: a server, its graphs, and how it is started."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from link.bundle import load_bundle
from link.interface import TensorSpec

ROOT: Final = Path(__file__).parents[2]
OUTPUT: Final = "symbols"
"""Of the transmitter's outputs the one that every server is asked for."""


class Graph(NamedTuple):
    """A bundle's transmitter as a model of the Open Inference Protocol.

    Attributes
    ----------
    name : str
        NAME.transmitter
    file : path
        Of the ONNX graph.
    takes, gives : TensorSpec
        Its input, and the output that is asked for.
    """

    name: str
    file: Path
    takes: TensorSpec
    gives: TensorSpec

    @classmethod
    def of(cls, bundle: Path) -> Graph:
        """The transmitter of a bundle with one input."""
        found = load_bundle(bundle)
        graph = found.manifest.transmitter
        (takes,) = graph.inputs
        (gives,) = (spec for spec in graph.outputs if spec.name == OUTPUT)
        return cls(f"{found.manifest.name}.transmitter", found.file(graph).absolute(), takes, gives)


class Command(NamedTuple):
    """How a server is started.

    Attributes
    ----------
    arguments : sequence of str
        The program first.
    address : str or None
        host:port where it will listen; None where it prints a line that ends in " on host:port".
    environment : mapping of str to str
        Beside that of this process.
    """

    arguments: Sequence[str]
    address: str | None = None
    environment: Mapping[str, str] = MappingProxyType({})


def free_port() -> int:
    """A port that nothing listens on, for a server that cannot choose one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
