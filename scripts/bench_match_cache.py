"""What each way to store match features costs in bytes, and what it does to match logits and to the reranked order.

    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 300 --rerank 20
    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 8 --rerank 4 --random-blip2  # 4 GB of memory

Encodes the first photos of the annotations, asks for each with its first caption, and reranks the candidates of highest
similarity with the tokens as they are (float32) and with the tokens as each form gives them back. A low-rank form that
is folded into the keys and values of cross-attention gives the same numbers as one that is multiplied out, as here.
"""

import argparse
import json
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.model import Model, load_model
from indexer.model.compact import CompactModel
from indexer.photos import read_photo
from scripts.bench_encode import save_checkpoint
from search._annotations import read_annotations

# The least mean squared error for normally distributed values of variance 1 (Max, 1960, and Lloyd, 1982).
_FOUR_LEVELS = torch.tensor([-1.510, -0.4528, 0.4528, 1.510])
_RESAMPLES = 2000
_PAIRS = 32
"""Pairs that are matched at once."""
_WITHIN = 0.1
"""Error of the keys and values, as a share of their spread over a photo, that `own_basis` may make."""


def scaled(tokens: Tensor, over: int, levels: int) -> Tensor:
    """Symmetric integers of -levels…levels, with one scale for each vector along dimension ``over``."""
    scale = (tokens.abs().amax(dim=over, keepdim=True) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    kept: Tensor = (tokens / scale).round().clamp(-levels, levels) * scale
    return kept


def two_bits(tokens: Tensor) -> Tensor:
    """Each token's difference from the photo's mean, turned by a random rotation, in two bits a value.

    The rotation makes values about normally distributed whatever the tokens are, so that the error is always about 12 %
    of what differs between the tokens, in squares.
    """
    width = tokens.shape[-1]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0))).Q
    mean = tokens.mean(dim=1, keepdim=True)
    turned = (tokens - mean) @ rotation
    scale = turned.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    nearest = torch.bucketize(turned / scale, (_FOUR_LEVELS[1:] + _FOUR_LEVELS[:-1]) / 2)
    kept: Tensor = (_FOUR_LEVELS[nearest] * scale) @ rotation.T + mean
    return kept


def pooled(tokens: Tensor, classifier: int) -> Tensor:
    """The mean of each 2 x 2 patches in their place, in int8; the token at ``classifier`` as it is.

    Four equal tokens weigh in attention what one would whose weight is multiplied by four.
    """
    patches = torch.cat([tokens[:, :classifier], tokens[:, classifier + 1 :]], dim=1)
    side = math.isqrt(patches.shape[1])
    grid = patches.reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)
    small = nn.functional.avg_pool2d(grid, 2, ceil_mode=True)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :side, :side]
    merged = scaled(large.flatten(2).transpose(1, 2), 1, 127)
    return torch.cat([merged[:, :classifier], tokens[:, classifier : classifier + 1], merged[:, classifier:]], dim=1)


def one_basis(tokens: Tensor, directions: Tensor) -> Tensor:
    """Int8 coefficients of the same orthonormal ``directions`` (r, D) for every photo."""
    return scaled(tokens @ directions.T, 1, 127) @ directions


def own_basis(tokens: Tensor, read: Tensor, rank: int | None) -> tuple[Tensor, float]:
    """The best approximation of each photo's keys and values that has this rank, both factors in int8; mean rank.

    Without a rank, the least that keeps the error within `_WITHIN`. ``read`` (D, D) is the square root of the sum of
    ``W @ W.T`` over the weights W that make keys and values: what ``tokens @ read`` differs by is what they differ by.
    """
    result, ranks = torch.empty_like(tokens), 0
    unread = torch.linalg.pinv(read)
    for photo, each in enumerate(tokens):
        mean = each.mean(dim=0)
        left, values, right = torch.linalg.svd((each - mean) @ read, full_matrices=False)
        error = (values.square().flip(0).cumsum(0).flip(0) / values.square().sum()).sqrt()
        kept = rank or int((error > _WITHIN).sum())
        coefficients, basis = scaled(left[:, :kept] * values[:kept], 0, 127), scaled(right[:kept] @ unread, 1, 127)
        result[photo] = coefficients @ basis + mean
        ranks += kept
    return result, ranks / len(tokens)


def read_by(model: Model) -> Tensor:
    """(D, D) square root of what the keys and values of all cross-attention layers read of a token."""
    network: nn.Module = model._network  # type: ignore[attr-defined]
    weights = torch.cat(
        [
            weight.detach().float().cpu()
            for name, weight in network.named_parameters()
            if re.search(r"crossattention\.attention\.(key|value)\.(linear\.)?weight$", name)
        ]
    )
    values, vectors = torch.linalg.eigh(weights.T @ weights)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


def forms(tokens: Tensor, read: Tensor, classifier: int) -> Iterator[tuple[str, float, Tensor]]:
    """Name, bytes a photo, and what is read back, for (P, N, D) tokens.

    The last ones keep about as little of a photo as would make 100 KB of BLIP-2's 257 x 1408 tokens: 2.2 bits a value.
    """
    count, width = tokens.shape[1:]
    values = count * width
    yield "float16", 2.0 * values, tokens.half().float()
    yield "int8 per channel", values + 4.0 * width, scaled(tokens, 1, 127)
    yield "int8 per token", values + 4.0 * count, scaled(tokens, 2, 127)
    yield "int4 per channel", values / 2 + 4.0 * width, scaled(tokens, 1, 7)
    merged = math.ceil(math.isqrt(count) / 2) ** 2 + 1
    yield "2 x 2 patches pooled, int8", (merged + 4.0) * width, pooled(tokens, classifier)
    yield "rotated, 2 bits", values / 4 + 4.0 * (count + width), two_bits(tokens)
    rank = round(values * 2.2 / 8 / (count + 4))
    of_photos = torch.linalg.svd(tokens.reshape(-1, width), full_matrices=False).Vh[:rank]
    yield f"rank {rank} of all photos, int8", rank * (count + 4.0), one_basis(tokens, of_photos)
    of_weights = torch.linalg.eigh(read).eigenvectors.T.flip(0)[:rank]
    yield f"rank {rank} of the weights, int8", rank * (count + 4.0), one_basis(tokens, of_weights)
    own_rank = round(values * 2.2 / 8 / (count + width + 8))
    for wanted in (own_rank, None):
        approximated, mean_rank = own_basis(tokens, read, wanted)
        name = f"rank {own_rank} of its own" if wanted else f"own rank, within {_WITHIN:.0%} (mean {mean_rank:.0f})"
        yield f"{name}, int8", mean_rank * (count + width + 8.0) + 4.0 * width, approximated


def main() -> None:
    """Measure every form, a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--random-blip2", action="store_true", help="BLIP-2 of full size with random weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rerank", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory:
        if options.random_blip2:
            save_checkpoint(Path(directory), "cpu", tiny=False)
        model = load_model(directory if options.random_blip2 else options.model, options.device)
        measure(model, options.captions, options.photos, options.rerank)


def measure(model: Model, captions: Path, count: int, rerank: int) -> None:
    """Print what each form costs and does."""
    photos = [photo for photo in read_annotations(captions) if photo.captions][:count]
    tokens, embeddings = encode(model, [photo.path for photo in photos])
    texts = [photo.captions[0] for photo in photos]
    similarities = torch.einsum("pqd,td->tpq", embeddings, model.encode_texts(texts).cpu()).amax(dim=-1)
    candidates = similarities.topk(min(rerank, len(photos)), dim=1).indices
    own = torch.gather(similarities, 1, candidates)
    exact = match(model, tokens, embeddings, texts, candidates)
    read = read_by(model)
    spread = ((tokens - tokens.mean(dim=1, keepdim=True)) @ read).norm()
    classifier = len(tokens[0]) - 1 if isinstance(model, CompactModel) else 0
    for name, size, kept in forms(tokens, read, classifier):
        logits = match(model, kept, embeddings, texts, candidates)
        measured = {
            "form": name,
            "bytes": round(size),
            "read_error": round(float(((kept - tokens) @ read).norm() / spread), 4),
        }
        print(json.dumps(measured | compared(exact, logits, own, candidates, model)), flush=True)


def encode(model: Model, paths: list[Path]) -> tuple[Tensor, Tensor]:
    """(P, N, D) tokens and (P, 32, 256) embeddings, float32 on the CPU."""
    tokens, embeddings = [], []
    for start in range(0, len(paths), model.batch_size):
        pixels = [
            read_photo(path, model.image_size, thumbnail=False).pixels for path in paths[start:][: model.batch_size]
        ]
        features = model.encode_images(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
        tokens.append(features.tokens.float().cpu())
        embeddings.append(features.embeddings.float().cpu())
    return torch.cat(tokens), torch.cat(embeddings)


def match(
    model: Model, tokens: Tensor, embeddings: Tensor, texts: list[str], candidates: Tensor
) -> NDArray[np.float64]:
    """(T, k, 2) ITM logits of each text with its candidates."""
    photos = candidates.flatten()
    asked = [text for text in texts for _ in range(candidates.shape[1])]
    logits = []
    for start in range(0, len(asked), _PAIRS):
        some = photos[start : start + _PAIRS]
        matched = model.match(tokens[some].to(model.device), asked[start : start + _PAIRS], embeddings[some])
        logits.append(matched.double().cpu())
    return torch.cat(logits).reshape(*candidates.shape, 2).numpy()


def compared(
    exact: NDArray[np.float64], logits: NDArray[np.float64], own: Tensor, candidates: Tensor, model: Model
) -> dict[str, object]:
    """How far the logits moved, how many queries have another first photo, and recall at 1 before and after; the 95 %
    bootstrap interval of its change, over the queries.
    """
    moved = np.abs(logits[..., 1] - exact[..., 1])
    before, after = (model.match_weight * each[..., 1] + own.numpy() for each in (exact, logits))
    pairs = np.triu_indices(before.shape[1], 1)
    swapped = [
        np.mean(np.sign(one[pairs[0]] - one[pairs[1]]) != np.sign(two[pairs[0]] - two[pairs[1]]))
        for one, two in zip(before, after, strict=True)
    ]
    right = np.arange(len(before))
    random = np.random.default_rng(0)
    first, now = (candidates.numpy()[right, each.argmax(axis=1)] for each in (before, after))
    change = (now == right).astype(float) - (first == right)
    means = random.choice(change, (_RESAMPLES, len(change))).mean(axis=1)
    return {
        "logit_mean": round(float(moved.mean()), 5),
        "logit_max": round(float(moved.max()), 5),
        "logit_std": round(float(exact[..., 1].std()), 3),
        "pairs_swapped": round(float(np.mean(swapped)), 5),
        "first_changed": round(float(np.mean(first != now)), 4),
        "r1_before": round(float(np.mean(first == right)), 4),
        "r1_after": round(float(np.mean(now == right)), 4),
        "r1_change_within": np.quantile(means, (0.025, 0.975)).round(4).tolist(),
    }


if __name__ == "__main__":
    main()
