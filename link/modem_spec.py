"""What to sweep a modem over: its constellation, its demapper, its code, and how often."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from link.bits import num_symbols
from link.channel.fec import K_MAX, K_MIN, coded_bits
from link.constellation import bits_per_symbol
from link.errors import ArgumentError
from link.grid import GridSpec


class ModemSpec(GridSpec):
    """What to sweep a modem over: uncoded square QAM, or with an LDPC code in front.

    A frame is what is sent together: its symbols share the fading blocks of `block_symbols`, and with a code it is one
    codeword.

    Attributes
    ----------
    order : int
        Of square QAM: 4, 16, 64, 256, 1024 or 4096.
    demapper : {"max-log", "app"}
        LLRs by the nearest points, or exact.
    frame_symbols : int
        Symbols a frame, in [1, 2**20]; 0 stands for 1024, or with a code for those that a codeword takes.
    code : {"none", "ldpc"}
        "ldpc" is that of 5G, TS 38.212.
    code_k, code_n : int
        Information bits of a codeword, in [12, 8448], and coded ones, see link.channel.fec.coded_bits; 0 without a code.
    sampling : {"plain", "importance"}
        "importance" estimates error rates too small to count (link.rare): uncoded, over AWGN.
    iterations : int
        Of belief propagation, in [1, 200].
    block_frames : int
        Frames of a block, the unit of work that is counted as a whole; 0 stands for some 2**18 symbols uncoded, and for 128
        codewords.
    blocks : int
        Blocks a point at most; 0 stands for 4096 uncoded, some 10**9 symbols, and for 128 with a code, 2**14 codewords.

    Examples
    --------
    >>> ModemSpec(snr_db=(6.0,), order=8)
    Traceback (most recent call last):
    ...
    link.errors.ArgumentError: order must be one of 4, 16, 64, 256, 1024, 4096, got 8
    """

    order: int = 4
    demapper: Literal["max-log", "app"] = "max-log"
    frame_symbols: Annotated[int, Field(ge=0, le=2**20)] = 0
    code: Literal["none", "ldpc"] = "none"
    code_k: int = 0
    code_n: int = 0
    sampling: Literal["plain", "importance"] = "plain"
    iterations: Annotated[int, Field(ge=1, le=200)] = 20
    block_frames: Annotated[int, Field(ge=0, le=2**20)] = 0
    blocks: Annotated[int, Field(ge=0, le=2**31)] = 0

    @model_validator(mode="after")
    def _check_modem(self) -> Self:
        bits_per_symbol(self.order)
        if self.code == "none":
            for field in ("code_k", "code_n"):
                if getattr(self, field):
                    raise ArgumentError(field, f"must be 0 without a code, got {getattr(self, field)}")
        else:
            if not K_MIN <= self.code_k <= K_MAX:
                raise ArgumentError("code_k", f"must be in [{K_MIN}, {K_MAX}], got {self.code_k}")
            fewest, most = coded_bits(self.code_k)
            if not fewest <= self.code_n <= most:
                raise ArgumentError(
                    "code_n", f"must be in [{fewest}, {most}] for code_k = {self.code_k}, got {self.code_n}"
                )
            if self.frame_symbols:
                raise ArgumentError("frame_symbols", f"must be 0 with a code, got {self.frame_symbols}")
        if self.sampling == "importance":
            self._check_importance()
        if self.frames_a_block * self.limit > 2**32:
            raise ArgumentError("blocks", f"must be at most {2**32 // self.frames_a_block}, got {self.limit}")
        return self

    def _check_importance(self) -> None:
        if self.channel != "awgn" or self.coded:
            raise ArgumentError("sampling", "by importance is for uncoded QAM over awgn alone")
        for field in ("target_errors", "frame_symbols", "block_frames"):
            if getattr(self, field):
                raise ArgumentError(
                    field, f"means nothing where errors are weighed and not counted, got {getattr(self, field)}"
                )

    @property
    def limit(self) -> int:
        """Blocks at most."""
        return self.blocks or (128 if self.coded else 4096)

    @property
    def title(self) -> str:
        """What is simulated, for a title.

        Examples
        --------
        >>> ModemSpec(snr_db=(6.0,), order=64, code="ldpc", code_k=512, code_n=1024).title
        '64-QAM, LDPC (512, 1024), awgn'
        """
        code = f"LDPC ({self.code_k}, {self.code_n})" if self.coded else ""
        exact = "exact LLRs" if self.demapper == "app" else ""
        return ", ".join(filter(None, (f"{self.order}-QAM", code, exact, self.channel, self.knowledge)))

    @property
    def coded(self) -> bool:
        """Whether a code stands in front of the mapper."""
        return self.code != "none"

    @property
    def bits_a_symbol(self) -> int:
        """Channel bits of a symbol."""
        return bits_per_symbol(self.order)

    @property
    def symbols_a_frame(self) -> int:
        """Payload symbols of a frame."""
        if self.coded:
            return num_symbols(self.code_n, bits_per_symbol(self.order))
        return self.frame_symbols or 1024

    @property
    def bits_a_frame(self) -> int:
        """Information bits of a frame, those that are judged."""
        return self.code_k if self.coded else self.symbols_a_frame * bits_per_symbol(self.order)

    @property
    def frames_a_block(self) -> int:
        """Frames of a block."""
        return self.block_frames or (128 if self.coded else max(1, 2**18 // self.symbols_a_frame))

    @property
    def ebn0_offset_db(self) -> float:
        """Eb/N0 lies below Es/N0 by this, dB; padding of a frame's last symbol counted."""
        return 10.0 * math.log10(self.bits_a_frame / self.symbols_a_frame)
