"""The Q-Former's first step over a photo: keys and values of the image encoder's tokens."""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerModel


class TokenProjection(nn.Module):
    """A linear layer over the image encoder's tokens, in the encoder's own precision; returns float32.

    Half of what the Q-Former computes for a photo is here. The tokens have no more digits than that precision, so only
    the weights and the result are rounded to it.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = linear.to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, width of the Q-Former) float32."""
        projected: Tensor = self.linear(tokens.to(self.linear.weight.dtype))
        return projected.float()


def project_tokens_in(qformer: Blip2QFormerModel, dtype: torch.dtype) -> None:
    """Let the keys and values of every cross-attention be computed in ``dtype``."""
    for name, attention in qformer.named_modules():
        if name.endswith(".crossattention.attention"):
            attention.key = TokenProjection(cast("nn.Linear", attention.key), dtype)
            attention.value = TokenProjection(cast("nn.Linear", attention.value), dtype)
