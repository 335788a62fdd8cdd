"""The sections [link] and [router] of a recipe: what is sent, in one mode or several, and what chooses between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from link.manifest import MODES_MAX
from link.rate import Rate
from train.section import Epochs, Fraction, Positive, Section


class LinkRecipe(Rate):
    """What is sent, and how the receiver demaps it.

    Tokens of `dim` are normalised by their own mean and deviation, which leaves two points where `dim` is 2 and one
    where it is 1.

    Attributes
    ----------
    tokens, codewords, order : int
        Of the one mode; where there are several, the most that any of them has, and not to be given.
    modes : tuple of Rate
        Several modes of one codec. A mode sends the first of the tokens, with the codebook of its number of codewords:
        modes of as many codewords share it.
    lengths : tuple of int
        Tokens of modes that are lengths of one another, ascending: with `codewords` and `order` they are the modes, and each
        sample is sent in the shortest one that holds it (train.lengths).
    default_mode : int
        What a sample is decoded as whose header was lost, and what is sent where nothing chooses.
    """

    order: int = 16
    dim: Annotated[int, Field(ge=3, le=4096)] = 16
    demapper: Literal["max-log", "app"] = "app"
    llr_clip: Positive = 30.0
    modes: tuple[Rate, ...] = ()
    lengths: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = ()
    default_mode: Annotated[int, Field(ge=0)] = 0

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The modes; itself where there is one."""
        return self.modes or (self,)

    @property
    def num_bits(self) -> int:
        """Payload bits a sample; of the largest mode."""
        return max(mode.num_bits for mode in self.modes) if self.modes else super().num_bits

    @property
    def num_symbols(self) -> int:
        """Complex symbols a sample, padding included; of the largest mode."""
        return max(mode.num_symbols for mode in self.modes) if self.modes else super().num_symbols

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codewords of each codebook, in the order in which the modes name them."""
        return tuple(dict.fromkeys(mode.codewords for mode in self.rates))

    def mode(self, number: int) -> LinkRecipe:
        """One of the modes, as a link of its own."""
        if not self.modes:
            return self
        shared = self.model_dump(include={"dim", "demapper", "llr_clip"})
        return LinkRecipe(**self.modes[number].model_dump(), **shared)

    def codebook_link(self, number: int) -> LinkRecipe:
        """The mode of most tokens of those that share a codebook, as a link of its own."""
        size = self.codebook_sizes[number]
        sharing = [index for index, mode in enumerate(self.rates) if mode.codewords == size]
        return self.mode(max(sharing, key=lambda index: self.rates[index].tokens))

    @model_validator(mode="before")
    @classmethod
    def _of_its_modes(cls, values: Any) -> Any:
        """The modes of its lengths, and the sizes of the largest mode, where there are several."""
        if not isinstance(values, dict):
            return values
        lengths = values.get("lengths")
        if isinstance(lengths, list | tuple) and lengths and not values.get("modes"):
            shared = {key: values[key] for key in ("codewords", "order") if key in values}
            values = values | {"modes": [{"order": 16, **shared, "tokens": tokens} for tokens in lengths]}
        if not values.get("modes") or not isinstance(values["modes"], list | tuple):
            return {"tokens": 1} | values if lengths else values  # what is no list is refused as such
        most = {}
        for key, least in (("tokens", 1), ("codewords", 2), ("order", 4)):
            given = [mode.get(key) if isinstance(mode, dict) else getattr(mode, key, None) for mode in values["modes"]]
            most[key] = max((value for value in given if isinstance(value, int)), default=least)
        return most | values

    @model_validator(mode="after")
    def _check_modes(self) -> LinkRecipe:
        if self.lengths and tuple(mode.tokens for mode in self.modes) != self.lengths:
            raise ValueError("lengths are the modes: leave out [[link.modes]] beside them")
        if tuple(sorted(set(self.lengths))) != self.lengths:
            raise ValueError(f"lengths must ascend, got {', '.join(map(str, self.lengths))}")
        if not self.modes:
            if self.default_mode:
                raise ValueError(f"default_mode must be 0 where there is one mode, got {self.default_mode}")
            return self
        if not 2 <= len(self.modes) <= MODES_MAX:
            raise ValueError(
                f"modes must be 2 to {MODES_MAX}, got {len(self.modes)}; one mode is told by tokens, codewords and order"
            )
        for key in ("tokens", "codewords", "order"):
            most = max(getattr(mode, key) for mode in self.modes)
            if getattr(self, key) != most:
                raise ValueError(f"{key} is told by each of the modes and must be absent beside them")
        if self.default_mode >= len(self.modes):
            raise ValueError(f"default_mode must be below {len(self.modes)}, got {self.default_mode}")
        return self


class RouterRecipe(Section):
    """What chooses a mode, where there are several.

    Attributes
    ----------
    enabled : bool
        Whether a router is trained. Without one, training draws each sample's mode with equal probabilities, and the bundle
        sends the default mode.
    inputs : str
        `snr`, the transmitter's estimate of Es/N0 alone, so that all samples of a frame agree and the header is one block;
        `snr+sample` adds features of the sample's tokens, and a header that names a mode a sample.
    hidden : int
        Width of its hidden layer.
    temp_start, temp_decay, temp_floor : float
        Temperature of the Gumbel softmax: temp_start, times temp_decay an epoch over the link, to temp_floor.
    snr_error_db : float
        Its estimate of Es/N0 is wrong by a uniform error of up to so many dB in training.
    explore : float
        Share of the rows that are sent in a mode drawn with equal probabilities, whatever the router says, so that every
        mode goes on learning. The router learns from all modes of all rows in any case.
    explore_epochs : int
        Epochs over the link, from its first, in which all rows are, and the router does not learn: while the codec is poor,
        the mode of most symbols is the best everywhere, and a router that has settled on it hardly learns any more. Epochs
        before the router learns are not compared with later ones for the best.
    """

    enabled: bool = False
    inputs: Literal["snr", "snr+sample"] = "snr"
    hidden: Annotated[int, Field(ge=1, le=1024)] = 32
    temp_start: Positive = 1.0
    temp_decay: Annotated[float, Field(gt=0, le=1)] = 0.97
    temp_floor: Positive = 0.3
    snr_error_db: Annotated[float, Field(ge=0, le=30)] = 0.0
    explore: Fraction = 0.2
    explore_epochs: Epochs = 0

    def learns(self, epoch: int) -> bool:
        """Whether the router learns in an epoch over the link, counted from its first."""
        return epoch > self.explore_epochs

    def temperature(self, epoch: int) -> float:
        """Gumbel temperature of an epoch over the link, counted from its first.

        Examples
        --------
        >>> router = RouterRecipe(temp_start=1.0, temp_decay=0.5, temp_floor=0.3)
        >>> [router.temperature(epoch) for epoch in (1, 2, 3)]
        [1.0, 0.5, 0.3]
        """
        return max(self.temp_floor, self.temp_start * self.temp_decay ** (epoch - 1))
