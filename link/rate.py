"""What one mode sends: tokens, the bits of their labels, and the symbols that carry them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from link.bits import num_symbols
from link.constellation import bits_per_symbol


class Rate(BaseModel):
    """Tokens of log2(codewords) bits each, over square QAM of `order`.

    Attributes
    ----------
    tokens : int
        Latent tokens a sample.
    codewords : int
        In the codebook; a power of two.
    order : int
        Of the constellation.

    Examples
    --------
    >>> rate = Rate(tokens=8, codewords=8, order=16)
    >>> rate.index_bits, rate.num_bits, rate.num_symbols
    (3, 24, 6)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tokens: Annotated[int, Field(ge=1, le=1024)]
    codewords: Annotated[int, Field(ge=2, le=4096)]
    order: int

    @property
    def index_bits(self) -> int:
        """Bits of one token's label."""
        return (self.codewords - 1).bit_length()

    @property
    def num_bits(self) -> int:
        """Payload bits a sample."""
        return self.tokens * self.index_bits

    @property
    def num_symbols(self) -> int:
        """Complex symbols a sample, padding included."""
        return num_symbols(self.num_bits, bits_per_symbol(self.order))

    @model_validator(mode="after")
    def _check_rate(self) -> Rate:
        bits_per_symbol(self.order)
        if self.codewords != 2**self.index_bits:
            raise ValueError(f"codewords must be a power of two, got {self.codewords}")
        return self
