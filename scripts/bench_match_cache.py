"""What each way to store match features costs in bytes, and what it does to match logits and to the reranked order.

    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 300 --rerank 20
    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 8 --rerank 8 --random-blip2  # 6 GB of memory

Encodes the first photos of the annotations, asks for each with its first caption, and reranks the candidates of highest
similarity with the tokens as they are (float32) and with the tokens as each form gives them back. A low-rank form that
is folded into the keys and values of cross-attention gives the same numbers as one that is multiplied out, as here.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.model import Model, load_model
from indexer.photos import read_photo
from scripts.bench_encode import save_checkpoint
from search._annotations import read_annotations

Form = Callable[[Tensor], Tensor]
"""(P, N, D) tokens -> what is read back of them."""


def scaled(tokens: Tensor, over: int, levels: int) -> Tensor:
    """Symmetric integers of -levels…levels, with one scale for each vector along dimension ``over``."""
    scale = (tokens.abs().amax(dim=over, keepdim=True) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    return (tokens / scale).round().clamp(-levels, levels) * scale


def shifted(tokens: Tensor, levels: int) -> Tensor:
    """Integers between the least and the greatest of each channel of a photo."""
    low, high = tokens.amin(dim=1, keepdim=True), tokens.amax(dim=1, keepdim=True)
    scale = ((high - low) / (2 * levels)).clamp(min=torch.finfo(torch.float32).tiny)
    return ((tokens - low) / scale).round() * scale + low


def low_rank(tokens: Tensor, rank: int) -> Tensor:
    """The ``rank`` directions that hold most of these tokens, their coefficients in int8 per channel."""
    directions: Tensor = torch.linalg.svd(tokens.reshape(-1, tokens.shape[-1]), full_matrices=False)[2]
    basis = directions[:rank].T
    return scaled(tokens @ basis, 1, 127) @ basis.T


def forms(count: int, width: int) -> dict[str, tuple[float, Form]]:
    """Name -> bytes a photo, and the form, for (N, D) tokens."""
    values = count * width
    some = {
        "float16": (2.0 * values, lambda tokens: tokens.half().float()),
        "int8 per channel": (values + 4.0 * width, lambda tokens: scaled(tokens, 1, 127)),
        "int8 per token": (values + 4.0 * count, lambda tokens: scaled(tokens, 2, 127)),
        "int8 per channel, with zero point": (values + 8.0 * width, lambda tokens: shifted(tokens, 127)),
        "int4 per channel": (values / 2 + 4.0 * width, lambda tokens: scaled(tokens, 1, 7)),
    }
    for rank in (width * 3 // 4, width // 2, width // 4):
        some[f"rank {rank}, int8"] = (count * rank + 4.0 * rank, lambda tokens, rank=rank: low_rank(tokens, rank))  # type: ignore[misc]
    return some


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
    exact = match(model, tokens, texts, candidates)
    for name, (size, form) in forms(*model.token_shape).items():
        logits = match(model, form(tokens), texts, candidates)
        measured = compared(exact, logits, own, candidates, model)
        print(json.dumps({"form": name, "bytes": round(size)} | measured), flush=True)


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


def match(model: Model, tokens: Tensor, texts: list[str], candidates: Tensor) -> NDArray[np.float64]:
    """(T, k, 2) ITM logits of each text with its candidates."""
    logits = [
        model.match(tokens[row].to(model.device), [text] * len(row)).double().cpu()
        for text, row in zip(texts, candidates, strict=True)
    ]
    return torch.stack(logits).numpy()


def compared(
    exact: NDArray[np.float64], logits: NDArray[np.float64], own: Tensor, candidates: Tensor, model: Model
) -> dict[str, float]:
    """How far the logits moved, how many queries have another first photo, and recall at 1 before and after."""
    moved = np.abs(logits[..., 1] - exact[..., 1])
    before, after = (model.match_weight * each[..., 1] + own.numpy() for each in (exact, logits))
    pairs = np.triu_indices(before.shape[1], 1)
    swapped = [
        np.mean(np.sign(one[pairs[0]] - one[pairs[1]]) != np.sign(two[pairs[0]] - two[pairs[1]]))
        for one, two in zip(before, after, strict=True)
    ]
    right = np.arange(len(before))
    first, now = (candidates.numpy()[right, each.argmax(axis=1)] for each in (before, after))
    return {
        "logit_mean": round(float(moved.mean()), 5),
        "logit_max": round(float(moved.max()), 5),
        "logit_std": round(float(exact[..., 1].std()), 3),
        "pairs_swapped": round(float(np.mean(swapped)), 5),
        "first_changed": round(float(np.mean(first != now)), 4),
        "r1_before": round(float(np.mean(first == right)), 4),
        "r1_after": round(float(np.mean(now == right)), 4),
    }


if __name__ == "__main__":
    main()
