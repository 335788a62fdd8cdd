"""The objective of a step over the link: one pass through both paths, its named terms, and their weighted sum.

    tokens ─┬─ soft ─> x_soft ─> + noise ─> receive ─> soft_heard ─┐
            └─ hard ─> x_hard ─> + noise ─> receive ─> hard_heard ─┴─> the answer is of the path that the phase sends

Both paths meet the same noise. While alignment hardens, the answer is a third one, of symbols between the two. The loss is
the sum of sign * weight * value over `TERMS`, the task's own with weight 1.

Where there are several modes each row takes one. Terms of the chain are those of each mode's own rows, by their number,
and rows whose header failed count in the task's alone; terms of a codebook are those of all tokens that some mode may send
with it, averaged over the codebooks. With a router the modes that a row did not take are tried too, without a gradient: the
task's loss of each, weighted by the straight-through gate, is what the router learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from link.bits import group
from link.channel.awgn import add_noise
from link.constellation import bits_per_symbol, symbol_energy
from link.manifest import HeaderSpec
from train import losses
from train.lengths import own
from train.mode_codec import Codec, ModeCodec, Sent
from train.questions import taught
from train.recipe import LinkRecipe, LossRecipe
from train.routing import Routing, naming_symbols, receive_routed, symbols_of_modes
from train.schedule import EpochPlan
from train.transceiver import Heard, Transceiver, heard_of_mode, sent_of_mode, straight_through


class Pass(NamedTuple):
    """One batch, sent and heard.

    Attributes
    ----------
    tokens : (B, N, D) float32
    labels : (B,) or (B, T) int64
    soft, hard : Sent
    bits : (B, L) float32
        The hard path's, with the gradient of the soft one's.
    soft_heard, hard_heard : Heard
        Both through the same noise; of each row's logits, those of its own question (train.questions). The path that is not
        the answer has none where the hard one is not taught.
    answer : Heard
        Of what the phase sends: soft symbols, hard ones, or (1 - a) soft + a hard.
    routing : Routing or None
        None where there is one mode.
    mode_losses : (B, R) float32 or None
        Task loss of each row in each mode, without a gradient; None without a router.
    """

    tokens: Tensor
    labels: Tensor
    soft: Sent
    hard: Sent
    bits: Tensor
    soft_heard: Heard
    hard_heard: Heard
    answer: Heard
    routing: Routing | None = None
    mode_losses: Tensor | None = None

    @property
    def correct(self) -> int:
        """Positions that were answered with their label: rows, where each has one."""
        return int((self.answer.logits.argmax(dim=-1) == self.labels).sum())


def send(
    model: Transceiver,
    tokens: Tensor,
    labels: Tensor,
    no: Tensor,
    normals: Tensor,
    settings: EpochPlan,
    *,
    teach_hard: bool = False,
    routing: Routing | None = None,
    side: Sequence[Tensor] = (),
    lost: Tensor | None = None,
    past_link: bool = False,
) -> Pass:
    """Send tokens (B, N, D) soft and hard through the same noise.

    Parameters
    ----------
    no : (B, S) float32
        Noise variance per complex symbol, linear.
    normals : (B, S, 2) float32
        Standard normals, scaled by `no`.
    teach_hard : bool
        Whether the hard path carries a gradient even where it is not the answer.
    routing : Routing, optional
        Required where there are several modes.
    side : sequence of (B, ...) Tensor
        What the receiver has of its own.
    lost : (B,) bool, optional
        Rows of which nothing arrives: their symbols are erased.
    past_link : bool
        Whether the gradient of a hard answer goes from the embedding to the tokens as it is, not back through the link.
    """
    mode = None if routing is None else routing.mode
    soft = model.send_soft(tokens, settings.vq_temp, settings.symbol_temp, mode)
    hard = model.send_hard(tokens, mode)
    no = model.noise_met(no)

    def hear(x: Tensor, answers: bool = True, past_link: bool = False) -> Heard:
        y, variances = add_noise(x, no, normals), no
        if lost is not None:
            y, variances = y.masked_fill(lost[:, None, None], 0.0), no.masked_fill(lost[:, None], torch.inf)
        if routing is None:
            heard = model.receive(y, variances, None, None, side, answers=False)
        else:
            heard = receive_routed(
                model, y, variances, routing.mode, routing.decoded, routing.lost, side, answers=False
            )
        if not answers:
            return heard
        embedding = straight_through(heard.embedding, tokens) if past_link else heard.embedding
        return heard._replace(logits=taught(model.head, embedding, side, labels))

    # Hard forward, soft backward: the constellation point is sent, the gradient is the mean symbol's.
    symbols = straight_through(hard.symbols, soft.symbols)
    bits = straight_through(hard.bits, soft.bits)
    hardness = settings.hardness if settings.hard_forward else 0.0
    soft_heard = hear(soft.symbols, answers=teach_hard or hardness == 0.0)
    with torch.set_grad_enabled(hardness == 1.0 or teach_hard):
        hard_heard = hear(symbols, teach_hard or hardness == 1.0, past_link)
    if hardness in (0.0, 1.0):
        answer = hard_heard if hardness else soft_heard
    else:
        mixed = (1.0 - hardness) * soft.symbols + hardness * symbols
        answer = hear(mixed)
    tried = None
    if routing is not None and routing.gate is not None:
        tried = _try_modes(model, tokens, labels, no, normals, settings, side)
    return Pass(tokens, labels, soft, hard, bits, soft_heard, hard_heard, answer, routing, tried)


@torch.no_grad()
def _try_modes(
    model: Transceiver,
    tokens: Tensor,
    labels: Tensor,
    no: Tensor,
    normals: Tensor,
    settings: EpochPlan,
    side: Sequence[Tensor] = (),
) -> Tensor:
    """Task loss of each row in each mode, (B, R), its header right."""
    columns = []
    for codec in model.modes:
        if settings.hard_forward:
            x = codec.send_hard(tokens).symbols
        else:
            x = codec.send_soft(tokens, settings.vq_temp, settings.symbol_temp).symbols
        length = codec.recipe.num_symbols
        embedding = codec.decode(add_noise(x, no[:, :length], normals[:, :length]), no, None)[-1]
        logits = taught(model.head, embedding, side, labels)
        columns.append(losses.row_losses(logits, labels))
    return torch.stack(columns, dim=-1)


class Term(NamedTuple):
    """One term of the loss.

    Attributes
    ----------
    name : str
        As recorded.
    weight : str
        Key in the recipe's [loss]; empty for the task's own term, whose weight is 1.
    value : callable
        The unweighted term of a pass.
    sign : float
        1 where the term is lowered, -1 where it is raised.
    alignment_only : bool
        Whether it is 0 but in alignment.
    optional : bool
        Whether it is left out, of the records too, where its weight is 0.
    of_codebook : bool
        Whether it asks for tokens and their assignment alone.
    """

    name: str
    weight: str
    value: Callable[[Codec, Pass], Tensor]
    sign: float = 1.0
    alignment_only: bool = False
    optional: bool = False
    of_codebook: bool = False

    def factor(self, weights: LossRecipe) -> float:
        """What the value is multiplied by in the loss."""
        return self.sign * (getattr(weights, self.weight) if self.weight else 1.0)


TERMS: Final = (
    Term("task", "", lambda model, sent: losses.task_loss(sent.answer.logits, sent.labels)),
    Term(
        "commitment",
        "lambda_vq",
        lambda model, sent: losses.commitment_loss(sent.tokens, model.quantizer.codewords_of(sent.hard.indices)),
        of_codebook=True,
    ),
    Term(
        "assignment",
        "lambda_assignment",
        lambda model, sent: losses.assignment_entropy(sent.soft.probabilities),
        of_codebook=True,
    ),
    Term(
        "usage",
        "lambda_entropy",
        lambda model, sent: losses.usage_entropy(sent.soft.probabilities),
        sign=-1.0,
        of_codebook=True,
    ),
    Term(
        "consistency",
        "lambda_consistency",
        lambda model, sent: losses.consistency_loss(sent.soft_heard.embedding, sent.hard_heard.embedding),
        alignment_only=True,
    ),
    Term(
        "energy",
        "lambda_energy",
        lambda model, sent: losses.excess_energy(symbol_energy(group(sent.bits, bits_per_symbol(model.recipe.order)))),
    ),
    Term(
        "consistency_vq",
        "lambda_consistency_vq",
        lambda model, sent: losses.consistency_loss(
            sent.soft.probabilities @ model.quantizer.codebook, model.quantizer.codewords_of(sent.hard.indices)
        ),
        alignment_only=True,
        optional=True,
    ),
    Term(
        "consistency_symbols",
        "lambda_consistency_symbols",
        lambda model, sent: losses.consistency_loss(sent.soft.symbols, sent.hard.symbols),
        alignment_only=True,
        optional=True,
    ),
    Term(
        "vec",
        "lambda_vec",
        lambda model, sent: losses.reconstruction_loss(sent.answer.embedding, sent.tokens),
        optional=True,
    ),
    Term(
        "kl",
        "lambda_kl",
        lambda model, sent: losses.answer_divergence(sent.soft_heard.logits, sent.hard_heard.logits),
        optional=True,
    ),
)


ROUTER_WEIGHTS: Final = {"sym": "lambda_sym", "lb": "lambda_lb"}
"""Terms of the router, and their weights."""


@dataclass(frozen=True)
class Terms:
    """The unweighted terms of one step by name."""

    values: Mapping[str, Tensor]

    def total(self, weights: LossRecipe) -> Tensor:
        """The loss: the weighted sum of the terms."""
        parts = [term.factor(weights) * self.values[term.name] for term in TERMS if term.name in self.values]
        parts += [
            getattr(weights, key) * self.values[name] for name, key in ROUTER_WEIGHTS.items() if name in self.values
        ]
        return sum(parts[1:], parts[0])


def terms_of(
    model: Transceiver, sent: Pass, settings: EpochPlan, weights: LossRecipe, header: HeaderSpec | None = None
) -> Terms:
    """The terms of a pass that have a weight, and those that are watched without one.

    Parameters
    ----------
    header : HeaderSpec, optional
        Required where there is a router: a sample's share of the header is part of its symbols.
    """
    views = () if sent.routing is None else _views(model, sent, sent.routing, settings)
    values = {
        term.name: torch.zeros(())
        if term.alignment_only and not settings.hard_forward
        else _value(term, model, sent, views)
        for term in TERMS
        if term.factor(weights) or not term.optional
    }
    if sent.routing is not None and sent.routing.probabilities is not None:
        assert header is not None
        values |= {
            name: value
            for name, value in _router_terms(model, sent.routing, header).items()
            if getattr(weights, ROUTER_WEIGHTS[name])
        }
    return Terms(values)


class _View(NamedTuple):
    """Part of a pass as a pass of one mode, and what it weighs."""

    codec: ModeCodec
    sent: Pass
    of_codebook: bool
    weight: float


def _views(model: Transceiver, sent: Pass, routing: Routing, settings: EpochPlan) -> tuple[_View, ...]:
    """All rows with each codebook, and the rows of each mode whose header is right."""
    modes = model.modes
    rows = [torch.nonzero((routing.mode == number) & routing.right)[:, 0] for number in range(len(modes))]
    total = max(sum(map(len, rows)), 1)
    share = 1.0 / len(model.codebooks)
    return (
        *(_View(*_of_codebook(model, sent, n, settings), True, share) for n in range(len(model.codebooks))),
        *(
            _View(codec, _of_mode(sent, codec.recipe, chosen), False, len(chosen) / total)
            for codec, chosen in zip(modes, rows, strict=True)
            if len(chosen)
        ),
    )


def _value(term: Term, model: Transceiver, sent: Pass, views: tuple[_View, ...]) -> Tensor:
    """A term of a pass, whatever the number of modes."""
    if sent.routing is None:
        return term.value(model, sent)
    if term.name == "task":
        value = term.value(model, sent)
        if sent.routing.gate is None or sent.mode_losses is None:
            return value
        expected = (sent.routing.gate * sent.mode_losses).sum(dim=-1).mean()
        return value + (expected - expected.detach())
    values = [view.weight * term.value(view.codec, view.sent) for view in views if view.of_codebook == term.of_codebook]
    return torch.stack(values).sum() if values else torch.zeros(())


def _of_codebook(model: Transceiver, sent: Pass, number: int, settings: EpochPlan) -> tuple[ModeCodec, Pass]:
    """The pass as if all rows sent with one codebook all tokens that some mode sends with it."""
    link = model.recipe.codebook_link(number)
    tokens = sent.tokens[:, : link.tokens]
    if model.recipe.lengths:  # each token by itself: positions differ in who has them
        tokens, link = own(tokens)[:, None], link.model_copy(update={"tokens": 1})
    codec = ModeCodec(link, model.codebooks[number], model.recipe.tokens)
    soft = codec.send_soft(tokens, settings.vq_temp)
    return codec, sent._replace(tokens=tokens, soft=soft, hard=codec.send_hard(tokens))


def _of_mode(sent: Pass, link: LinkRecipe, rows: Tensor) -> Pass:
    """Some rows of a pass, all of one mode, without what pads them to the sizes of the largest."""
    soft, hard = (sent_of_mode(part, link, rows) for part in (sent.soft, sent.hard))
    soft_heard, hard_heard, answer = (
        heard_of_mode(part, link, rows) for part in (sent.soft_heard, sent.hard_heard, sent.answer)
    )
    tokens, labels, bits = sent.tokens[rows], sent.labels[rows], sent.bits[rows, : link.num_bits]
    return Pass(tokens, labels, soft, hard, bits, soft_heard, hard_heard, answer)


def _router_terms(model: Transceiver, routing: Routing, header: HeaderSpec) -> dict[str, Tensor]:
    """Expected symbols, the header's among them, and load balance."""
    assert routing.probabilities is not None
    symbols = losses.expected_symbols(routing.probabilities, symbols_of_modes(model.recipe, header))
    if routing.agreement is not None:
        # Where samples of a frame differ, its header names all of them.
        symbols = symbols + (1.0 - routing.agreement).mean() * naming_symbols(len(model.recipe.rates), header)
    return {"sym": symbols, "lb": losses.load_balance(routing.probabilities)}
