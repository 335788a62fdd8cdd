"""Encoder and head in bfloat16 while they train.

Matrix products of a module are computed in bfloat16 (torch.autocast), its weights, their gradients and what it gives stay
float32. All that is digital is outside: distances, assignment, symbols, LLRs and posterior need more than 8 bits of a
mantissa, and so does a running mean. In evaluation mode, and in a bundle, all is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def train_in_bfloat16(module: nn.Module) -> None:
    """Compute a module's forward in bfloat16 as long as it is in training mode; float32 in and out."""
    exact = module.forward

    def forward(*inputs: Tensor, **named: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=module.training):
            result: Tensor = exact(*inputs, **named)
        return result.float()

    module.forward = forward
