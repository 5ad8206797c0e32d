"""Ways to keep a photo's tokens, for ``bench_match_cache``: what each takes, and what is read back of it."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

BITS = 2.18
"""Bits a value that leave room, in 100 KB of BLIP-2's 257 x 1408 tokens, for one token and a scale in full."""
_MOST_BITS = 6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a form may know beside the tokens that it keeps."""

    read: Tensor
    """(D, D) square root of the sum of ``W @ W.T`` over the weights W that make keys and values: what ``tokens @ read``
    differs by is what they differ by."""
    heeded: Tensor
    """(D, D) square root of the sum of ``g @ g.T`` over gradients g of match logits with regard to a token: what
    ``tokens @ heeded`` differs by is what logits differ by, to first order."""
    others: Tensor
    """(P, N, D) tokens of other photos."""
    classifier: int
    """Which token is none of the square of patches."""


def forms(tokens: Tensor, known: Known) -> Iterator[tuple[str, float, Callable[[], Tensor]]]:
    """Name, bytes a photo, and what gives back (P, N, D) tokens as they were kept."""
    count, width = tokens.shape[1:]
    values = count * width
    yield "float16", 2.0 * values, lambda: tokens.half().float()
    yield "int8 per channel", values + 4.0 * width, lambda: scaled(tokens, 1, 127)
    yield "int8 per token", values + 4.0 * count, lambda: scaled(tokens, 2, 127)
    yield "int4 per channel", values / 2 + 4.0 * width, lambda: scaled(tokens, 1, 7)
    rotated = values / 4 + 4.0 * (count + width)
    yield "rotated, 2 bits", rotated, lambda: two_bits(tokens, nearest_level)
    yield "rotated, the best that 2 bits can be", rotated, lambda: two_bits(tokens, shannon_bound)
    bits = (count - 1) * width * BITS / 8 + width + 8
    yield "cosines and directions read, 2.2 bits", bits, lambda: transformed(tokens, known.read, known)
    yield "cosines and directions heeded, 2.2 bits", bits, lambda: transformed(tokens, known.heeded, known)
    rank = round(values * BITS / 8 / (count + 4))
    yield f"rank {rank} of what is read, int8", rank * (count + 4.0), lambda: one_basis(tokens, known.read, known, rank)
    for more in (rank, 2 * rank):
        size = more * (count + 4.0)
        yield f"rank {more} of what is heeded, int8", size, partial(one_basis, tokens, known.heeded, known, more)
    own_rank = round(values * BITS / 8 / (count + width + 8))
    size = own_rank * (count + width + 8.0) + 4 * width
    yield f"rank {own_rank} of its own, int8", size, lambda: own_basis(tokens, known.read, own_rank)


def scaled(tokens: Tensor, over: int, levels: int) -> Tensor:
    """Symmetric integers of -levels…levels, with one scale for each vector along dimension ``over``."""
    scale = (tokens.abs().amax(dim=over, keepdim=True) / levels).clamp(min=torch.finfo(tokens.dtype).tiny)
    kept: Tensor = (tokens / scale).round().clamp(-levels, levels) * scale
    return kept


def two_bits(tokens: Tensor, quantised: Callable[[Tensor], Tensor]) -> Tensor:
    """Each token's difference from the photo's mean, turned by a random rotation; ``quantised`` at variance 1.

    The rotation makes values about normally distributed whatever the tokens are, so that the error is always the same
    share of what differs between the tokens, in squares: 12 % with one number after the other.
    """
    width = tokens.shape[-1]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0))).Q
    mean = tokens.mean(dim=1, keepdim=True)
    turned = (tokens - mean) @ rotation
    scale = turned.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    kept: Tensor = (quantised(turned / scale) * scale) @ rotation.T + mean
    return kept


def nearest_level(values: Tensor) -> Tensor:
    """The four levels that leave the least error."""
    return _nearest(values, _levels(2)[0].float())


def shannon_bound(values: Tensor) -> Tensor:
    """What no code of 2 bits a value betters, by lattice, trellis or table: an error of 1/16, in squares."""
    error = 2.0 ** (-2 * 2)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    return (1 - error) * values + math.sqrt(error * (1 - error)) * noise


def transformed(tokens: Tensor, metric: Tensor, known: Known) -> Tensor:
    """Patches by cosines over their square, and by the directions in which other photos differ most as ``metric`` sees
    it: whole bits for each, more for those that differ more (reverse water-filling). The other token in int8.
    """
    patches, alone = _apart(tokens.double(), known.classifier)
    others, _ = _apart(known.others.double(), known.classifier)
    centre = others.mean(dim=(0, 1))
    cosines = _cosines(math.isqrt(patches.shape[1]))
    seen = (others - centre) @ metric.double()
    analysis = metric.double() @ torch.linalg.eigh(torch.einsum("pnd,pne->de", seen, seen)).eigenvectors
    spread = (cosines @ ((others - centre) @ analysis)).square().mean(dim=0).sqrt()
    depths = _depths(spread.square())
    values = cosines @ ((patches - centre) @ analysis) / spread.clamp(min=spread.max() * 1e-6)
    scale = values[:, depths > 0].square().mean(dim=1).sqrt()[:, None, None]
    kept = _in_bits(values / scale, depths) * scale * spread
    back = cosines.T @ kept @ torch.linalg.inv(analysis) + centre
    return _together(back, scaled(alone, 2, 127), known.classifier).float()


def one_basis(tokens: Tensor, metric: Tensor, known: Known, rank: int) -> Tensor:
    """Int8 coefficients of the same ``rank`` directions for every photo: those that leave the least error over other
    photos as ``metric`` sees it. Folded into keys and values, nothing is multiplied out.
    """
    others = known.others.double().flatten(0, 1)
    moments = others.T @ others / len(others)
    moments += 1e-4 * moments.diagonal().mean() * torch.eye(len(moments))
    seen = metric.double()
    axes = torch.linalg.eigh(seen @ moments @ seen).eigenvectors.flip(1)[:, :rank]
    down = torch.linalg.qr(seen @ axes).Q
    up = torch.linalg.solve(down.T @ moments @ down, down.T @ moments)
    kept: Tensor = scaled(tokens.double() @ down, 1, 127) @ up
    return kept.float()


def own_basis(tokens: Tensor, read: Tensor, rank: int) -> Tensor:
    """The best approximation of each photo's keys and values that has this rank, both factors in int8."""
    result = torch.empty_like(tokens)
    unread = torch.linalg.pinv(read)
    for photo, each in enumerate(tokens):
        mean = each.mean(dim=0)
        left, values, right = torch.linalg.svd((each - mean) @ read, full_matrices=False)
        coefficients, basis = scaled(left[:, :rank] * values[:rank], 0, 127), scaled(right[:rank] @ unread, 1, 127)
        result[photo] = coefficients @ basis + mean
    return result


def _apart(tokens: Tensor, classifier: int) -> tuple[Tensor, Tensor]:
    patches = torch.cat([tokens[:, :classifier], tokens[:, classifier + 1 :]], dim=1)
    return patches, tokens[:, classifier : classifier + 1]


def _together(patches: Tensor, alone: Tensor, classifier: int) -> Tensor:
    return torch.cat([patches[:, :classifier], alone, patches[:, classifier:]], dim=1)


def _cosines(side: int) -> Tensor:
    """(side², side²) orthonormal two-dimensional cosine transform (DCT-II)."""
    place = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(math.pi * place[:, None] * (place + 0.5) / side) * math.sqrt(2 / side)
    waves[0] /= math.sqrt(2)
    return torch.kron(waves, waves)


def _depths(variances: Tensor) -> Tensor:
    """Whole bits for each value, `BITS` in the mean: one more wherever it lessens the error most."""
    errors = torch.tensor([1.0, *(_levels(bits)[1] for bits in range(1, _MOST_BITS + 1))])
    saved = (variances.flatten() * (errors[:-1] - errors[1:])[:, None]).flatten()
    chosen = saved.topk(round(BITS * variances.numel())).indices % variances.numel()
    return torch.bincount(chosen, minlength=variances.numel()).reshape(variances.shape)


def _in_bits(values: Tensor, depths: Tensor) -> Tensor:
    """(P, …) values of variance 1, each to the nearest level of its depth; 0 where there are no bits."""
    kept = torch.zeros_like(values)
    for bits in range(1, _MOST_BITS + 1):
        kept[:, depths == bits] = _nearest(values[:, depths == bits], _levels(bits)[0])
    return kept


def _nearest(values: Tensor, levels: Tensor) -> Tensor:
    return levels[torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)]


def _levels(bits: int) -> tuple[Tensor, float]:
    """(2**bits,) levels of the least mean squared error for the normal distribution, and that error (Max, 1960; Lloyd,
    1982).
    """
    values = torch.special.ndtri((torch.arange(1 << 14, dtype=torch.float64) + 0.5) / (1 << 14))
    levels = values.reshape(1 << bits, -1).mean(dim=1)
    for _ in range(100):
        nearest = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
        levels = torch.zeros_like(levels).index_add_(0, nearest, values) / torch.bincount(nearest, minlength=1 << bits)
    return levels, float((values - levels[nearest]).square().mean())
