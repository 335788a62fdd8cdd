"""What moves the codebooks of a run: start, running means, restarts, labels. Gradients do not."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from link.randomness import permutation
from link.theory import bit_error_rates
from train.evaluate import encode, tensors
from train.lengths import own
from train.processes import Processes
from train.recipe import Recipe
from train.schedule import EpochPlan
from train.stage import Stage

START_TOKENS: Final = 2**16
"""Most tokens that the codebook is started from."""


class Upkeep:
    """The codebooks of a stage's model.

    Parameters
    ----------
    recipe : Recipe
    stage : Stage
    processes : Processes, optional
        Those that share the rows that the codebooks start from.
    """

    def __init__(self, recipe: Recipe, stage: Stage, processes: Processes | None = None) -> None:
        self._recipe = recipe
        self._stage = stage
        self._processes = processes or Processes()
        self._recent: list[Tensor] = []

    @torch.no_grad()
    def start(self) -> None:
        """Codebook, labels and scale from what the warmed-up encoder makes of the training set."""
        model, split = self._stage.model.eval(), self._stage.data.train
        link, recipe = self._recipe.link, self._recipe
        chosen = np.arange(len(split))
        if len(split) * link.tokens > START_TOKENS:
            chosen = np.sort(permutation(recipe.seed, len(split))[: START_TOKENS // link.tokens])
        tokens = encode(model, [tensor[chosen] for tensor in tensors(self._stage.task, split)], self._processes)
        for number, codebook in enumerate(model.codebooks):
            codebook.start(
                self._tokens_of(number, tokens),
                temperature=recipe.schedule.temp_reference,
                target_entropy=recipe.quantizer.target_assignment_entropy,
                bit_error_rates=self._label_error_rates(number),
                seed=recipe.seed,
            )

    def align_labels(self) -> None:
        """Search labels once more where alignment begins, if the recipe has it so."""
        for number, codebook in enumerate(self._stage.model.codebooks):
            codebook.search_labels("alignment", self._label_error_rates(number))

    def update(self, tokens: Tensor) -> None:
        """Move the running means by the tokens (B, N, D) of a step."""
        self._keep(tokens.detach())
        for number, codebook in enumerate(self._stage.model.codebooks):
            flat = self._tokens_of(number, tokens)
            codebook.update(flat, codebook.hard(flat))

    def end_epoch(self, settings: EpochPlan) -> int:
        """Restart dead codewords from the tokens of the last steps, take up the prior; how many restarted."""
        restarted = self.restart(torch.cat(self._recent), settings)
        self._recent.clear()
        for codebook in self._stage.model.codebooks:
            codebook.refresh_prior()
        return restarted

    def restart(self, tokens: Tensor, settings: EpochPlan) -> int:
        """Put dead codewords on tokens (B, N, D), where the recipe does so in this epoch; how many."""
        recipe, seed = self._recipe.quantizer, self._recipe.seed
        if not recipe.restarts_in(settings.epoch, learning=settings.restarts):
            return 0
        restarted = 0
        for number, codebook in enumerate(self._stage.model.codebooks):
            flat, threshold = self._tokens_of(number, tokens), recipe.fair_threshold(codebook.codewords)
            if moved := codebook.restart(flat, threshold, seed=seed, draw=settings.epoch):
                codebook.search_labels("restart", self._label_error_rates(number))
            restarted += moved
        return restarted

    def _keep(self, tokens: Tensor) -> None:
        """Keep tokens (B, N, D), and of those before them as many steps as it takes to have one for each codeword."""
        self._recent.append(tokens)
        largest = max(codebook.codewords for codebook in self._stage.model.codebooks)
        while sum(map(len, self._recent[1:])) * self._recipe.link.tokens >= largest:
            self._recent.pop(0)

    def _tokens_of(self, number: int, tokens: Tensor) -> Tensor:
        """Those of (B, N, D) tokens that some mode sends with a codebook, in one row."""
        link = self._recipe.link
        sent = tokens.detach()[:, : link.codebook_link(number).tokens]
        return own(sent) if link.lengths else sent.reshape(-1, link.dim)

    def _label_error_rates(self, number: int) -> np.ndarray:
        """Error rate of each bit of a codebook's labels, (k,), at the Es/N0 that they are searched for; mean over modes."""
        link, snr_db = self._recipe.link, self._recipe.quantizer.label_snr_db
        rates = []
        for mode in link.rates:
            if mode.codewords == link.codebook_sizes[number]:
                by_position = bit_error_rates(mode.order, snr_db)
                # Bit i of a token stands at another place of the symbol in each token: its rate is the mean over tokens.
                rates.append(np.resize(by_position, mode.num_bits).reshape(mode.tokens, mode.index_bits).mean(axis=0))
        return rates[0] if len(rates) == 1 else np.asarray(np.mean(rates, axis=0))


class Unmoved(Upkeep):
    """Codebooks of a transmitter that is kept: they have started, and nothing moves them."""

    def start(self) -> None:
        """They are there."""

    def align_labels(self) -> None:
        """They stay."""

    def update(self, tokens: Tensor) -> None:
        """Running means stay."""

    def end_epoch(self, settings: EpochPlan) -> int:
        """Nothing restarts, and the prior stays."""
        return 0
