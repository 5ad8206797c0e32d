"""Ways to keep a photo's tokens, for ``bench_match_cache``: what each takes, and what is read back of it."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

BITS = 2.18
"""Bits a value that leave room, in 100 KB of BLIP-2's 257 x 1408 tokens, for one token and a scale in full."""
_MOST_BITS = 6
_CODED_BITS = 2.2
"""Bits a value, everything included, of a photo whose values are entropy-coded."""
_SCALES = 3
"""How many scales an octave has, where values are entropy-coded: one is 1.26 times the one below."""
_LEAST_SCALE, _MOST_SCALE, _MOST_STEPS = -8, 40, 4095


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a form may know beside the tokens that it keeps."""

    read: Tensor
    """(D, D) square root of the sum of ``W @ W.T`` over the weights W that make keys and values: what ``tokens @ read``
    differs by is what they differ by."""
    heeded: Tensor
    """(D, D) square root of the sum of ``g @ g.T`` over gradients g of match logits with regard to a token: what
    ``tokens @ heeded`` differs by is what logits differ by, to first order."""
    taken: Tensor
    """(D, D) the like of ``read`` over all weights that a token is multiplied with: in the compact model those that
    make places too, which count as much as keys and values together."""
    others: Tensor
    """(P, N, D) tokens of other photos; without any there is no ``heeded``, and no form that needs either."""
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
    size = values * _CODED_BITS / 8
    channels = torch.diag(known.read.norm(dim=0))
    yield "cosines, coded, 2.2 bits", size, lambda: coded(tokens, channels, known)
    yield "cosines and axes, coded, 2.2 bits", size, lambda: coded(tokens, known.taken, known)
    yield "cosines and axes, the best that 2.2 bits can be", size, lambda: coded(tokens, known.taken, known, bound=True)
    if len(known.others) == 0:
        return
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


def coded(tokens: Tensor, metric: Tensor, known: Known, *, bound: bool = False) -> Tensor:
    """Patches by cosines over their square, channels by the axes of ``metric``; then all in steps of one width, as
    narrow as the bytes allow. Nothing of other photos is known.

    A coefficient is taken as normal, its standard deviation the product of a scale of its row and one of its column,
    which are kept too. The bytes are what a perfect range coder takes with that model, plus 1 % and the scales. With
    ``bound`` they are Shannon's of it, which no code betters: noise of one power replaces the steps.
    """
    count, width = tokens.shape[1:]
    patches, alone = _apart(tokens.double(), known.classifier)
    cosines = _cosines(math.isqrt(patches.shape[1]))
    values, vectors = torch.linalg.eigh(metric.double() @ metric.double().T)
    # The axes of a diagonal metric are the channels themselves, whatever the order of its values.
    diagonal = bool((metric == metric.diag().diag()).all())
    analysis = metric.double() if diagonal else vectors * values.clamp(min=values.max() * 1e-12).sqrt()
    coefficients = torch.cat([alone @ analysis, cosines @ (patches @ analysis)], dim=1)
    kept = torch.empty_like(coefficients)
    for photo, each in enumerate(coefficients):
        rows, columns = _separable(each)
        size = 0.99 * (count * width * _CODED_BITS / 8 - _packed(rows, columns) - 16)
        kept[photo] = (_noisy if bound else _in_steps)(each, rows + columns, 8 * size)
    back = kept @ torch.linalg.inv(analysis)
    return _together(cosines.T @ back[:, 1:], back[:, :1], known.classifier).float()


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


def _separable(values: Tensor) -> tuple[Tensor, Tensor]:
    """(R, 1) and (1, C) whole numbers: the product of their powers is what (R, C) ``values`` differ by, in the mean."""
    energy = values.square() + torch.finfo(torch.float32).tiny
    columns = energy.mean(dim=0, keepdim=True)
    for _ in range(6):
        rows = (energy / columns).mean(dim=1, keepdim=True)
        columns = (energy / rows).mean(dim=0, keepdim=True)
    return (rows.log2() / 2 * _SCALES).round(), (columns.log2() / 2 * _SCALES).round()


def _packed(rows: Tensor, columns: Tensor) -> int:
    """Bytes that the scales take."""
    scales = torch.cat([(each - each.max()).flatten() for each in (rows, columns)])
    return len(zlib.compress(scales.clamp(min=-127).to(torch.int8).numpy().tobytes(), 9))


def _in_steps(values: Tensor, scales: Tensor, bits: float) -> Tensor:
    """To the nearest of steps as narrow as ``bits`` allow, and back to the mean of what a step holds."""
    costs, means = _steps()
    fits, narrow = 3200, -3200
    while fits - narrow > 1:
        tried = (fits + narrow) // 2
        steps, row = _stepped(values, scales, tried)
        fits, narrow = (tried, narrow) if float(costs[row, steps.abs()].sum()) <= bits else (fits, tried)
    steps, row = _stepped(values, scales, fits)
    kept: Tensor = steps.sign() * means[row, steps.abs()] * 2 ** (fits / 64)
    return kept


def _stepped(values: Tensor, scales: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """How many steps of width ``2 ** (width / 64)``, and the row of `_steps` for that scale."""
    steps = (values / 2 ** (width / 64)).round().clamp(-_MOST_STEPS, _MOST_STEPS).long()
    return steps, (scales - round(width / 64 * _SCALES)).clamp(_LEAST_SCALE, _MOST_SCALE).long() - _LEAST_SCALE


@cache
def _steps() -> tuple[Tensor, Tensor]:
    """For each scale and number of steps away from 0: bits, and the mean of the normal distribution within that step.

    One value in 200 is allowed for to be anything, so that none takes more than 20 bits.
    """
    steps = torch.arange(_MOST_STEPS + 1, dtype=torch.float64)
    spread = 2 ** (torch.arange(_LEAST_SCALE, _MOST_SCALE + 1, dtype=torch.float64)[:, None] / _SCALES)
    low, high = (steps - 0.5) / spread, (steps + 0.5) / spread
    share = torch.special.ndtr(-low) - torch.special.ndtr(-high)
    density_low, density_high = (torch.exp(-each.square() / 2) / math.sqrt(2 * math.pi) for each in (low, high))
    mean = torch.where(share > 1e-12, spread * (density_low - density_high) / share, steps)
    mean[:, 0] = 0
    return -(0.995 * share + 0.005 / (_MOST_STEPS + 1)).log2(), mean.clamp(min=steps - 0.5, max=steps + 0.5)


def _noisy(values: Tensor, scales: Tensor, bits: float) -> Tensor:
    """Noise of one power in all of them, or as much as there is to lose: reverse water-filling."""
    power = 4 ** (scales / _SCALES)
    low, high = -100.0, 100.0
    for _ in range(50):
        noise = torch.minimum(power, torch.tensor(2 ** ((low + high) / 2)))
        middle = (low + high) / 2
        low, high = (middle, high) if float((power / noise).log2().sum()) / 2 > bits else (low, middle)
    left = 1 - noise / power
    random = torch.randn(values.shape, generator=torch.Generator().manual_seed(1), dtype=values.dtype)
    return left * values + (noise * left).sqrt() * random


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
