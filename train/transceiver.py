"""The trainable transmitter and receiver: torch modules around link's functions.

    inputs ─> encoder [─> bottleneck] ─> normalise ─> tokens z ─┬─ hard: argmax ──> bits ─┐
                                                                └─ soft: softmax ─> P(b) ─┴─> group ─> map ─> x
    y, no ─> LLR (+ llr_in), clip ─> posterior over codewords ─> mean embedding ─┬─> head ─> logits
                                     side inputs, where a receiver has some ─────┘

Where there are several modes, each row goes the way of its own: the first tokens of the sample, with the mode's codebook and
constellation. What its receiver is not sent is the prior's mean, as where all of a token's symbols were erased.

Hard and soft differ in the assignment and nowhere else. Power is a constant of the constellation: soft symbols carry less
energy than hard ones against the same noise and are never renormalised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.bottleneck import Bottleneck
from train.codebook import Codebook
from train.lengths import nested, shortest, within
from train.mode_codec import ModeCodec, Sent
from train.quantizer import build_quantizer
from train.recipe import LinkRecipe, QuantizerRecipe
from train.router import Router, sample_features


class Heard(NamedTuple):
    """What the receiver makes of symbols; LLRs and codewords are 0 past a mode's own.

    Attributes
    ----------
    channel_llr : (B, L) float32
        ln P(b=1)/P(b=0) as demapped, neither added to nor clipped.
    llr : (B, L) float32
        ln P(b=1)/P(b=0), `llr_in` added, clipped.
    indices_hat : (B, N) int64
        Most likely codewords.
    embedding : (B, N, D) float32
        Posterior mean of the tokens.
    logits : (B, C) or (B, T, C) float32
    """

    channel_llr: Tensor
    llr: Tensor
    indices_hat: Tensor
    embedding: Tensor
    logits: Tensor


class Transceiver(nn.Module):
    """An encoder before, a head behind, and between them one mode or several.

    Parameters
    ----------
    encoder : nn.Module
        The task's inputs, in the order of its specification, to (B, N, D).
    head : nn.Module
        (B, N, D) to (B, C), or (B, T, C) where T positions are answered.
    recipe : LinkRecipe
    quantizer : QuantizerRecipe, optional
    router : Router, optional
        What chooses between several modes; without one the default mode is sent.
    bottleneck : Bottleneck, optional
        What stands between encoder and tokens; where it is, tokens are its means, and in training drawn about them.

    Attributes
    ----------
    quantizer : Codebook
        The first codebook; it decides where tokens may lie.
    more_quantizers : nn.ModuleList
        One for each further number of codewords.
    selected_by : str
        Path whose accuracy chooses the best checkpoint.
    """

    selected_by: Literal["hard", "soft"] = "hard"

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        recipe: LinkRecipe,
        quantizer: QuantizerRecipe | None = None,
        router: Router | None = None,
        bottleneck: Bottleneck | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        quantizer = quantizer or QuantizerRecipe()
        first, *others = (build_quantizer(quantizer, codewords, recipe.dim) for codewords in recipe.codebook_sizes)
        self.quantizer = first
        self.more_quantizers = nn.ModuleList(others)
        self.router = router
        self.bottleneck = bottleneck
        self.recipe = recipe

    @property
    def codebooks(self) -> tuple[Codebook, ...]:
        """All codebooks, in the order of `recipe.codebook_sizes`."""
        return (self.quantizer, *self.more_quantizers)

    @property
    def modes(self) -> tuple[ModeCodec, ...]:
        """Each mode by itself."""
        sizes = self.recipe.codebook_sizes
        return tuple(
            ModeCodec(self.recipe.mode(number), self.codebooks[sizes.index(rate.codewords)], self.recipe.tokens)
            for number, rate in enumerate(self.recipe.rates)
        )

    @property
    def labels_sha256(self) -> str:
        """sha256 of the label table; of the hashes of all, in hexadecimal and one after another, where there are several."""
        hashes = [codebook.labels_sha256 for codebook in self.codebooks]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.quantizer.codebook.device

    def encode(self, *inputs: Tensor) -> Tensor:
        """Tokens (B, N, D), each normalised by itself alone."""
        features = self.encoder(*inputs)
        return self.quantizer.tokens(features if self.bottleneck is None else self.bottleneck(features).mean)

    def route(self, tokens: Tensor, snr_db: Tensor) -> Tensor:
        """Logits (B, R) of the modes, by the router, for estimates of Es/N0 (B,) in dB."""
        assert self.router is not None
        features = sample_features(tokens, self.quantizer) if self.router.sees_sample else None
        logits: Tensor = self.router(snr_db, features)
        return logits

    def mode_of(self, tokens: Tensor, snr_db: Tensor | None = None) -> Tensor:
        """The deployed choice, (B,) int64: the router's argmax, the shortest that holds a sample, or the default mode."""
        if self.recipe.lengths:
            return shortest(tokens, self.recipe)
        if self.router is None:
            return torch.full_like(tokens[:, 0, 0], self.recipe.default_mode, dtype=torch.int64)
        assert snr_db is not None
        return self.route(tokens, snr_db).argmax(dim=-1)

    def send_hard(self, tokens: Tensor, mode: Tensor | None = None) -> Sent:
        """The deployed transmitter: argmax, bits, constellation points.

        Parameters
        ----------
        tokens : (B, N, D) float32
        mode : (B,) int64, optional
            Required where there are several.
        """
        if not self.recipe.modes:
            return self.modes[0].send_hard(tokens)
        if nested(self.recipe):
            return self._cut(self._longest.send_hard(tokens), mode)
        return Sent(*self._by_mode(mode, self._sizes_sent, lambda codec, rows: codec.send_hard(tokens[rows])))

    def send_soft(
        self, tokens: Tensor, temperature: float, symbol_temperature: float = 1.0, mode: Tensor | None = None
    ) -> Sent:
        """The surrogate: softmax, probabilities of bits, mean symbols."""
        if not self.recipe.modes:
            return self.modes[0].send_soft(tokens, temperature, symbol_temperature)
        if nested(self.recipe):
            return self._cut(self._longest.send_soft(tokens, temperature, symbol_temperature), mode)
        sent = self._by_mode(
            mode,
            self._sizes_sent,
            lambda codec, rows: codec.send_soft(tokens[rows], temperature, symbol_temperature),
        )
        return Sent(*sent)

    def receive(
        self,
        symbols: Tensor,
        no: Tensor,
        llr_in: Tensor | None = None,
        mode: Tensor | None = None,
        side: Sequence[Tensor] = (),
        *,
        answers: bool = True,
    ) -> Heard:
        """Decode equalised symbols (B, S, 2) with noise variances (B, S), each row in its mode (B,).

        `side` is what the receiver has of its own, (B, ...) each, in the order of the task's `receiver_inputs`. Where no
        answers are asked for, the head is left alone, and the logits are (B, 0).
        """
        link = self.recipe
        if not link.modes:
            channel_llr, llr, indices_hat, embedding = self.modes[0].decode(symbols, no, llr_in)
        elif nested(link):
            channel_llr, llr, indices_hat, embedding = self._decode_longest(symbols, no, llr_in, mode)
        else:
            channel_llr, llr, indices_hat, embedding = self._by_mode(
                mode,
                ((link.num_bits,), (link.num_bits,), (link.tokens,), (link.tokens, link.dim)),
                lambda codec, rows: codec.decode(symbols[rows], no[rows], None if llr_in is None else llr_in[rows]),
            )
        logits = self.head(embedding, *side) if answers else embedding.new_empty(embedding.shape[0], 0)
        return Heard(channel_llr, llr, indices_hat, embedding, logits)

    def noise_met(self, no: Tensor) -> Tensor:
        """Noise variances (B, S) that a training batch meets where it asks for `no`: the same."""
        return no

    def deployed(self) -> Transceiver:
        """What is exported: this transceiver."""
        return self

    @property
    def _longest(self) -> ModeCodec:
        """The longest of modes that are lengths of one another."""
        return ModeCodec(self.recipe.codebook_link(0), self.quantizer, self.recipe.tokens)

    def _cut(self, sent: Sent, mode: Tensor | None) -> Sent:
        """What the longest mode sends, cut to each row's."""
        tokens, bits, symbols = (self._within(mode, name) for name in ("tokens", "num_bits", "num_symbols"))
        return Sent(
            sent.indices * tokens,
            sent.probabilities * tokens[..., None],
            sent.bits * bits,
            sent.symbols * symbols[..., None],
        )

    def _decode_longest(
        self, symbols: Tensor, no: Tensor, llr_in: Tensor | None, mode: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channel LLRs, LLRs, codewords and embedding, as the longest mode, what each row was not sent erased."""
        tokens, bits, sent = (self._within(mode, name) for name in ("tokens", "num_bits", "num_symbols"))
        channel_llr, llr, indices_hat, embedding = self._longest.decode(
            symbols.masked_fill(~sent[..., None], 0.0),
            no.masked_fill(~sent, torch.inf),
            None if llr_in is None else llr_in * bits,
        )
        if self.recipe.lengths:  # what was not sent is nothing, and the head can tell
            embedding = embedding * tokens[..., None]
        return channel_llr, llr, indices_hat * tokens, embedding

    def _within(self, mode: Tensor | None, name: str) -> Tensor:
        if mode is None:
            raise ValueError("mode must be given where there are several")
        return within(mode, self.recipe, name)

    @property
    def _sizes_sent(self) -> tuple[tuple[int, ...], ...]:
        """Of one row of what is sent, in the largest mode."""
        link = self.recipe
        return (link.tokens,), (link.tokens, link.codewords), (link.num_bits,), (link.num_symbols, 2)

    def _by_mode(
        self,
        mode: Tensor | None,
        sizes: Sequence[tuple[int, ...]],
        work: Callable[[ModeCodec, Tensor], Sequence[Tensor]],
    ) -> tuple[Tensor, ...]:
        """Each row's results by the codec of its mode, padded with zeros to these sizes."""
        if mode is None:
            raise ValueError("mode must be given where there are several")
        order = [torch.nonzero(mode == number)[:, 0] for number in range(len(self.recipe.rates))]
        parts = [work(codec, rows) for codec, rows in zip(self.modes, order, strict=True) if len(rows)]
        columns = zip(sizes, zip(*parts, strict=True), strict=True)
        joined = [torch.cat([padded(part, size) for part in column]) for size, column in columns]
        if len(parts) == 1:
            return tuple(joined)
        back = torch.argsort(torch.cat(order))
        return tuple(column[back] for column in joined)


def sent_of_mode(sent: Sent, link: LinkRecipe, rows: Tensor) -> Sent:
    """Some rows of what was sent, all of one mode, without what pads them to the sizes of the largest."""
    return Sent(
        sent.indices[rows, : link.tokens],
        sent.probabilities[rows, : link.tokens, : link.codewords],
        sent.bits[rows, : link.num_bits],
        sent.symbols[rows, : link.num_symbols],
    )


def heard_of_mode(heard: Heard, link: LinkRecipe, rows: Tensor) -> Heard:
    """Some rows of what was heard, all of one mode, without what pads them to the sizes of the largest."""
    return Heard(
        heard.channel_llr[rows, : link.num_bits],
        heard.llr[rows, : link.num_bits],
        heard.indices_hat[rows, : link.tokens],
        heard.embedding[rows],
        heard.logits[rows],
    )


def padded(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """A tensor (B, ...) with zeros behind, up to `sizes` in all dimensions but the first."""
    missing = [size - has for size, has in zip(sizes, tensor.shape[1:], strict=True)]
    if not any(missing):
        return tensor
    return functional.pad(tensor, [width for count in missing[::-1] for width in (0, count)])


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Hard forward, to the last bit; soft backward (Bengio et al. 2013, arXiv:1308.3432).

    `soft - soft` is 0 exactly, where `soft + (hard - soft)` would round.
    """
    return hard.detach() + (soft - soft.detach())
