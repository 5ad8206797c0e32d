"""Tokens to 8 bits and back, on the device that the model runs on.

Symmetric, one scale for each channel of each photo: a transformer's tokens have a few channels far larger than the
others, which one scale for a whole token would drown the others in.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from indexer.tokens import QuantisedTokens

_LEVELS = 127


@torch.inference_mode()
def quantise(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, D) floating-point tokens -> values (B, N, D) int8 and scales (B, D) float32, on the same device.

    A value comes back within half of its channel's scale, which is the channel's largest magnitude over 127.
    """
    exact = tokens.float()
    scales = exact.abs().amax(dim=1) / _LEVELS
    # A channel of zeros has no scale; neither has one so near to zero that the division has no meaning.
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 0, scales)
    values = exact / torch.where(scales == 0, 1, scales)[:, None]
    return values.round_().clamp_(-_LEVELS, _LEVELS).to(torch.int8), scales


def quantised(tokens: Tensor) -> list[QuantisedTokens]:
    """(B, N, D) floating-point tokens -> what a library keeps of each of the B photos."""
    values, scales = (each.cpu().numpy() for each in quantise(tokens))
    return [QuantisedTokens(*photo) for photo in zip(values, scales, strict=True)]


@torch.inference_mode()
def restored(photos: Sequence[QuantisedTokens], device: str) -> Tensor:
    """What a library keeps of B photos -> (B, N, D) float32 tokens on ``device``; only the 8 bits travel there."""
    values = torch.empty(len(photos), *photos[0].shape, dtype=torch.int8, pin_memory=device.startswith("cuda"))
    np.stack([photo.values for photo in photos], out=values.numpy())
    scales = torch.from_numpy(np.stack([photo.scales for photo in photos])).to(device)
    return values.to(device, non_blocking=True) * scales[:, None]
