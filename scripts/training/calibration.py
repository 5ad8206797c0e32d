"""What is fitted on dev after training: how far to trust the ITM head, in order and in probability."""

import dataclasses

import torch
from torch import Tensor

from indexer.model.compact._network import CompactNetwork
from scripts.training.evaluation import Gallery, area_under_curve, encode, match_logits, recall

_RERANKED = 20
_ASKED = 2000
_WEIGHTS = tuple(0.01 * 2**exponent for exponent in range(8))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The probability of a match is ``sigmoid(margin / temperature + offset)``, of the logits' margin."""

    temperature: float
    offset: float


def fit(network: CompactNetwork, gallery: Gallery) -> tuple[float, Calibration]:
    """The match weight with the best recall@1 after reranking the top 20, and what makes the probability calibrated.

    The weight belongs to the logits before the temperature divides them.
    """
    encoded = encode(network, gallery)
    draw = torch.Generator().manual_seed(0)
    asked = torch.randperm(len(gallery.texts), generator=draw)[:_ASKED]
    similarity, right = encoded.similarity()[asked], gallery.relevant[asked]
    top = similarity.topk(_RERANKED)
    logits = match_logits(
        network, encoded.tokens, gallery.texts, top.indices.flatten(), asked.repeat_interleave(_RERANKED)
    )[:, 1].view(-1, _RERANKED)
    print(f"before reranking: {recall(similarity, right)}")
    recalls = {weight: _reranked(similarity, top.indices, top.values + weight * logits, right) for weight in _WEIGHTS}
    for weight, measured in recalls.items():
        print(f"reranked with match weight {weight}: {measured}")
    weight = max(recalls, key=lambda candidate: recalls[candidate]["r1"])
    return weight, platt(*_margins(network, encoded.tokens, gallery, asked, draw))


def expected_calibration_error(probability: Tensor, matched: Tensor, bins: int = 15) -> float:
    """Mean distance of probability and frequency over equally wide bins, weighted by how many pairs fall in each."""
    index = (probability * bins).long().clamp(max=bins - 1)
    error = 0.0
    for chosen in (index == k for k in range(bins)):
        if chosen.any():
            gap = probability[chosen].mean() - matched[chosen].float().mean()
            error += gap.abs().item() * chosen.float().mean().item()
    return error


def _reranked(similarity: Tensor, candidates: Tensor, scores: Tensor, right: Tensor) -> dict[str, float]:
    # Reranked candidates come before all others, whose similarity is at most 1.
    return recall(similarity.scatter(1, candidates, scores - scores.min() + 2), right)


def _margins(
    network: CompactNetwork, tokens: Tensor, gallery: Gallery, asked: Tensor, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    own = gallery.relevant[asked].float().argmax(dim=1)
    other = (own + torch.randint(1, len(tokens), own.shape, generator=draw)) % len(tokens)
    pairs = match_logits(network, tokens, gallery.texts, torch.cat([own, other]), asked.repeat(2))
    return pairs[:, 1] - pairs[:, 0], torch.arange(len(pairs)) < len(own)


def platt(margins: Tensor, matched: Tensor) -> Calibration:
    """Temperature and offset that minimise the negative log-likelihood of (P,) pairs (Platt 1999).

    The offset is needed beside the temperature: training sees two hard negatives for every match, and half of the pairs
    that the probability is stated for are matches.
    """
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = margins * parameters[0] + parameters[1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, matched.float())
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    slope, offset = parameters.tolist()
    error = expected_calibration_error(torch.sigmoid(margins * slope + offset), matched)
    curve = area_under_curve(margins[matched], margins[~matched])
    print(f"temperature {1 / slope:.3f}, offset {offset:.3f}: calibration error {error:.4f}, AUROC {curve:.4f}")
    return Calibration(1 / slope, offset)
