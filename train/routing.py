"""Modes in training: which one each row is sent in, and what its header does, every draw by its address.

A mode comes from the router's Gumbel softmax, or is drawn with equal probabilities where there is no router. Its header is
lost or wrong as often as that of a frame of one mode over AWGN (link.header_theory): a row whose header is lost is erased
and decoded in the default mode, one whose header is wrong is decoded in one of the other modes, each as likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from link.channel.awgn import Awgn
from link.codebook import lookup
from link.header import HeaderOutcome, carry_headers, head_blocks, mode_blocks
from link.header_theory import uniform_rates
from link.manifest import HeaderSpec
from link.randomness import Draws, Stream
from link.reed_muller import CODES
from train.modes import LinkRecipe
from train.recipe import Recipe
from train.router import choose
from train.transceiver import Heard, Transceiver

# Points of Stream.ROUTING.
_CHOICE: Final = 0
_ESTIMATE: Final = 1
_HEADER: Final = 2
_EXPLORE: Final = 3
_GRID_DB: Final = 0.1


class Routing(NamedTuple):
    """How the rows of a batch travel.

    Attributes
    ----------
    mode : (B,) int64
        What each is sent in.
    decoded : (B,) int64
        What it is decoded in.
    lost : (B,) bool
        Whether its header was lost, and it is erased.
    gate : (B, R) float32 or None
        One-hot of the router's draw, with its gradient; None without a router.
    probabilities : (B, R) float32 or None
        The router's, of each mode.
    agreement : (B,) float32 or None
        Where the router sees samples, the probability that another sample, at the same SNR, takes the same mode.
    """

    mode: Tensor
    decoded: Tensor
    lost: Tensor
    gate: Tensor | None = None
    probabilities: Tensor | None = None
    agreement: Tensor | None = None

    @property
    def right(self) -> Tensor:
        """Rows that are decoded in the mode they were sent in, because their header says so, (B,)."""
        return (self.mode == self.decoded) & ~self.lost


class RoutingNoise(NamedTuple):
    """What is drawn for rows: Gumbel noise (B, R), error of the SNR estimate in dB (B,), uniforms (B, 2) of header and mode.

    A row explores, in the mode of its second uniform, where the first is below the share of rows that do.
    """

    gumbel: NDArray[np.float64]
    snr_error_db: NDArray[np.float64]
    header: NDArray[np.float64]
    explore: NDArray[np.float64]

    def rows(self, chosen: NDArray[np.int64]) -> RoutingNoise:
        """Some of the rows."""
        return RoutingNoise(*(values[chosen] for values in self))


class ModeChoice:
    """How a recipe's modes are chosen in training.

    Parameters
    ----------
    recipe : Recipe
        With several modes.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        low, high = recipe.channel.train_snr_db
        self._snr_db = np.linspace(low, high, 1 + int(np.ceil((high - low) / _GRID_DB)))
        modes = len(recipe.link.modes)
        rates = [uniform_rates(self._snr_db, recipe.header, modes, mode) for mode in range(modes)]
        self._lost = [np.asarray(rate.lost) for rate in rates]
        self._wrong = [np.asarray(rate.wrong) for rate in rates]

    def noise(self, draws: Draws) -> RoutingNoise:
        """Draw for all rows of an epoch."""
        uniforms = draws.uniforms(Stream.ROUTING, _CHOICE, len(self._recipe.link.modes))
        error = 2.0 * draws.uniforms(Stream.ROUTING, _ESTIMATE, 1)[:, 0] - 1.0
        return RoutingNoise(
            gumbel=-np.log(-np.log((1.0 - uniforms).clip(max=1.0 - 2.0**-53))),
            snr_error_db=self._recipe.router.snr_error_db * error,
            header=draws.uniforms(Stream.ROUTING, _HEADER, 2),
            explore=draws.uniforms(Stream.ROUTING, _EXPLORE, 2),
        )

    def choose(
        self, model: Transceiver, tokens: Tensor, snr_db: NDArray[np.float64], noise: RoutingNoise, epoch: int
    ) -> Routing:
        """The modes of one batch, and what becomes of its headers.

        Parameters
        ----------
        tokens : (B, N, D) float32
        snr_db : (B,) float
            Es/N0 of each row, dB.
        noise : RoutingNoise
            Of these rows.
        epoch : int
            Over the link, counted from its first.
        """
        recipe, modes = self._recipe.router, len(self._recipe.link.modes)
        device = tokens.device
        drawn = torch.from_numpy(np.floor(noise.explore[:, 1] * modes).astype(np.int64)).to(device)
        if self._recipe.link.lengths:
            mode = model.mode_of(tokens)
            return Routing(mode, *self._headers(mode, snr_db, noise.header))
        if model.router is None or not recipe.learns(epoch):
            return Routing(drawn, *self._headers(drawn, snr_db, noise.header))
        explores = torch.from_numpy(noise.explore[:, 0] < recipe.explore).to(device)
        gumbel = torch.from_numpy(noise.gumbel).to(device, tokens.dtype)
        estimate = torch.from_numpy(snr_db + noise.snr_error_db).to(device, tokens.dtype)
        choice = choose(model.route(tokens, estimate), gumbel, recipe.temperature(epoch))
        mode = torch.where(explores, drawn, choice.mode)
        agreement = None
        if model.router.sees_sample:
            other = torch.softmax(model.route(tokens.roll(1, dims=0), estimate), dim=-1)
            agreement = (choice.probabilities * other).sum(dim=-1)
        return Routing(mode, *self._headers(mode, snr_db, noise.header), choice.gate, choice.probabilities, agreement)

    def _headers(
        self, mode: Tensor, snr_db: NDArray[np.float64], uniforms: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor]:
        """What each row is decoded in, and whether its header was lost."""
        sent, modes = mode.cpu().numpy(), len(self._lost)
        lost, wrong = np.empty(len(sent)), np.empty(len(sent))
        for number in range(modes):
            here = sent == number
            lost[here] = np.interp(snr_db[here], self._snr_db, self._lost[number])
            wrong[here] = np.interp(snr_db[here], self._snr_db, self._wrong[number])
        is_lost = uniforms[:, 0] < lost
        is_wrong = ~is_lost & (uniforms[:, 0] < lost + wrong)
        other = (sent + 1 + np.floor(uniforms[:, 1] * (modes - 1)).astype(np.int64)) % modes
        decoded = np.where(is_lost, self._recipe.link.default_mode, np.where(is_wrong, other, sent))
        return torch.from_numpy(decoded).to(mode.device), torch.from_numpy(is_lost).to(mode.device)


def receive_routed(
    model: Transceiver,
    y: Tensor,
    no: Tensor,
    mode: Tensor,
    decoded: Tensor,
    lost: Tensor,
    side: Sequence[Tensor] = (),
    *,
    answers: bool = True,
) -> Heard:
    """Decode rows in the mode that their header gives, what was not sent and what it does not take erased.

    Parameters
    ----------
    y : (B, S, 2) float32
    no : (B, S) float32
    mode, decoded : (B,) int64
        Sent, and by the header.
    lost : (B,) bool
    side : sequence of (B, ...) Tensor
        What the receiver has of its own.
    answers : bool
        As for Transceiver.receive.
    """
    sizes = torch.tensor([rate.num_symbols for rate in model.recipe.rates], device=y.device)
    taken = torch.minimum(lookup(sizes, mode), lookup(sizes, decoded)).masked_fill(lost, 0)
    erased = torch.arange(y.shape[1], device=y.device) >= taken[:, None]
    y, no = y.masked_fill(erased[..., None], 0.0), no.masked_fill(erased, torch.inf)
    return model.receive(y, no, mode=decoded, side=side, answers=answers)


def symbols_of_modes(link: LinkRecipe, header: HeaderSpec) -> Tensor:
    """Symbols of a sample in each mode, (R,) float32, its share of the header of a frame of one mode among them."""
    share = CODES[header.code].symbols * header.repeats * head_blocks(header) / header.frame_samples
    return torch.tensor([rate.num_symbols + share for rate in link.rates])


def naming_symbols(modes: int, header: HeaderSpec) -> float:
    """A sample's share of the blocks that name the modes of a full frame one by one."""
    width = (modes - 1).bit_length()
    blocks = int(mode_blocks(header.frame_samples, width, header))
    return CODES[header.code].symbols * header.repeats * blocks / header.frame_samples


def carried(model: Transceiver, header: HeaderSpec, mode: Tensor, snr_db: float, draws: Draws) -> HeaderOutcome:
    """The headers of rows in these modes (B,) over AWGN, as the deployed link sends them."""
    link = model.recipe
    return carry_headers(mode.cpu().numpy(), header, len(link.rates), link.default_mode, Awgn(), snr_db, draws)
