"""What each way to store match features costs in bytes, and what it does to match logits and to the reranked order.

    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 300 --rerank 5
    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 12 --rerank 3 --random-blip2  # 4 GB of memory
    python scripts/bench_match_cache.py CAPTIONS.jsonl --photos 1000 --rerank 10 --forms 'int|coded'

Encodes the first photos of the annotations, asks for each with its first caption, and reranks the candidates of highest
similarity with the tokens as they are (float32) and with the tokens as each form gives them back. A low-rank form that
is folded into the keys and values of cross-attention gives the same numbers as one that is multiplied out, as here.
As many photos again, with their first captions, tell the forms that ask for it how tokens vary and what logits heed;
where the annotations have no more photos, those forms are left out.
"""

import argparse
import inspect
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.model import Model, load_model
from indexer.model.compact import CompactModel
from indexer.photos import read_photo
from scripts._token_forms import Known, forms
from scripts.bench_encode import save_checkpoint
from search._annotations import read_annotations

_RESAMPLES = 2000
_PAIRS = 32
"""Pairs that are matched at once."""


def main() -> None:
    """Measure every form, a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--random-blip2", action="store_true", help="BLIP-2 of full size with random weights")
    parser.add_argument(
        "--qformer-alone", action="store_true", help="the compact model's match logit without its other parts"
    )
    parser.add_argument("--outliers", action="store_true", help="make a few channels and a few tokens far larger")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rerank", type=int, default=20)
    parser.add_argument("--forms", default="", help="only those whose name matches this regular expression")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory:
        if options.random_blip2:
            save_checkpoint(Path(directory), "cpu", tiny=False)
        model = load_model(directory if options.random_blip2 else options.model, options.device)
        if options.qformer_alone:
            leave_qformer_alone(model)
        measure(model, options)


def measure(model: Model, options: argparse.Namespace) -> None:
    """Print what each form costs and does."""
    count, rerank = options.photos, options.rerank
    photos = [photo for photo in read_annotations(options.captions) if photo.captions][: 2 * count]
    all_tokens, all_embeddings = encode(model, [photo.path for photo in photos])
    if options.outliers:
        all_tokens = with_outliers(all_tokens)
    all_texts = [photo.captions[0] for photo in photos]
    tokens, embeddings, texts = all_tokens[:count], all_embeddings[:count], all_texts[:count]
    similarities = torch.einsum("pqd,td->tpq", embeddings, model.encode_texts(texts).cpu()).amax(dim=-1)
    candidates = similarities.topk(min(rerank, len(texts)), dim=1).indices
    own = torch.gather(similarities, 1, candidates)
    exact = match(model, tokens, embeddings, texts, candidates)
    read = read_by(model)
    spread = ((tokens - tokens.mean(dim=1, keepdim=True)) @ read).norm()
    heeded = heeded_by(model, all_tokens[count:], all_embeddings[count:], all_texts[count:])
    classifier = len(tokens[0]) - 1 if isinstance(model, CompactModel) else 0
    taken = taken_by(model, read)
    known = Known(read=read, taken=taken, heeded=heeded, others=all_tokens[count:], classifier=classifier)
    for name, size, keep in forms(tokens, known):
        if re.search(options.forms, name):
            kept = keep()
            measured = {
                "form": name,
                "bytes": round(size),
                "read_error": round(float(((kept - tokens) @ read).norm() / spread), 4),
            }
            logits = match(model, kept, embeddings, texts, candidates)
            print(json.dumps(measured | compared(exact, logits, own, candidates, model)), flush=True)


def with_outliers(tokens: Tensor) -> Tensor:
    """(P, N, D) tokens, 8 channels of them 30 times as large, and 4 tokens of each photo 10 times."""
    draw = torch.Generator().manual_seed(0)
    result = tokens.clone()
    result[:, :, torch.randperm(tokens.shape[2], generator=draw)[:8]] *= 30
    for photo in result:
        photo[torch.randperm(tokens.shape[1], generator=draw)[:4]] *= 10
    return result


def leave_qformer_alone(model: Model) -> None:
    """Let the compact model's match logit be the Q-Former's, as BLIP-2's is: without similarity, words and places."""
    network = model._network  # type: ignore[attr-defined]
    for head in (network.similarity_head, network.alignment_head):
        nn.init.zeros_(head.weight)


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
    return square_root(weights.T @ weights)


def taken_by(model: Model, read: Tensor) -> Tensor:
    """(D, D) the like of ``read`` over all that a token is multiplied with: the compact model's places too, if its
    match logit has the alignment, in equal shares.
    """
    if not isinstance(model, CompactModel) or not model._network.alignment_head.weight.any():
        return read
    places = model._network.place_projection.weight.detach().float().cpu()
    reading, placing = read @ read, places.T @ places
    return square_root(reading / reading.trace() + placing / placing.trace())


def heeded_by(model: Model, tokens: Tensor, embeddings: Tensor, texts: list[str]) -> Tensor:
    """(D, D) square root of the sum of ``g @ g.T`` over gradients g of the match logit with regard to a token.

    Each photo is matched with its own text and with the next one's. A thousandth of the mean is added, everywhere.
    """
    differentiable = inspect.unwrap(type(model).match)
    gradients = torch.zeros(tokens.shape[-1], tokens.shape[-1], dtype=torch.float64)
    for asked in (texts, texts[1:] + texts[:1]):
        for start in range(0, len(tokens), _PAIRS // 2):
            some = slice(start, start + _PAIRS // 2)
            photos = tokens[some].clone().to(model.device).requires_grad_()
            differentiable(model, photos, asked[some], embeddings[some].clone())[:, 1].sum().backward()
            assert photos.grad is not None
            each = photos.grad.flatten(0, 1).cpu().double()
            gradients += each.T @ each
    return square_root(gradients + 1e-3 * gradients.diagonal().mean() * torch.eye(len(gradients))).float()


def square_root(matrix: Tensor) -> Tensor:
    """The symmetric one, of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root


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
