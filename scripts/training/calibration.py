"""What is fitted on dev after training: how to weigh what is known of a pair, in order and in probability."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.model.compact._network import CompactNetwork
from scripts.training.evaluation import Gallery, area_under_curve, encode, match_evidence, recall

_RERANKED = 20


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The probability of a match is ``sigmoid(margin / temperature + offset)``, of the logits' margin."""

    temperature: float
    offset: float


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A pair's margin is ``itm`` times the trained ITM margin plus ``alignment`` times the alignment.

    Candidates rank by ``similarity`` times the ITC similarity plus that margin.
    """

    similarity: float
    itm: float
    alignment: float
    calibration: Calibration


def fit(network: CompactNetwork, gallery: Gallery, captions: int = 1200) -> Fitted:
    """Fit on two thirds of as many ``captions``; print what reranking the top 20 does to the rest."""
    encoded = encode(network, gallery)
    draw = torch.Generator().manual_seed(0)
    asked = torch.randperm(len(gallery.texts), generator=draw)[:captions]
    similarity, right = encoded.similarity()[asked], gallery.relevant[asked]
    top = similarity.topk(_RERANKED)
    seen = match_evidence(network, encoded, gallery.texts, top.indices.flatten(), asked.repeat_interleave(_RERANKED))
    evidence = torch.cat([top.values[..., None], seen.view(-1, _RERANKED, 2)], dim=-1)
    fitted = captions * 2 // 3
    weights = rank_weights(evidence[:fitted], right.gather(1, top.indices)[:fitted])
    print(f"weights of similarity, ITM, alignment: {weights.tolist()}")
    for name, rows in (("fitted on", slice(0, fitted)), ("others", slice(fitted, None))):
        scores = evidence[rows] @ weights
        # Reranked candidates come before all others, whose similarity is at most 1.
        after = similarity[rows].scatter(1, top.indices[rows], scores - scores.min() + 2)
        print(f"{name}: {recall(similarity[rows], right[rows])}, reranked {recall(after, right[rows])}", flush=True)
    own = right.float().argmax(dim=1)
    other = (own + torch.randint(1, len(encoded.tokens), own.shape, generator=draw)) % len(encoded.tokens)
    pairs = match_evidence(network, encoded, gallery.texts, torch.cat([own, other]), asked.repeat(2))
    calibration = platt(pairs @ weights[1:], torch.arange(len(pairs)) < len(own))
    by_similarity, by_itm, by_alignment = weights.tolist()
    return Fitted(by_similarity, by_itm, by_alignment, calibration)


def rank_weights(evidence: Tensor, right: Tensor) -> Tensor:
    """(E,) weights under which the right one of (L, C, E) candidates most probably comes first (conditional logit).

    ``right`` (L, C) says which it is; lists without it say nothing.
    """
    lists, own = evidence[right.any(dim=1)], right[right.any(dim=1)].float().argmax(dim=1)
    weights = torch.zeros(evidence.shape[-1], requires_grad=True)
    with torch.enable_grad():
        _minimise(weights, lambda: F.cross_entropy(lists @ weights, own))
    return weights.detach()


def expected_calibration_error(probability: Tensor, matched: Tensor, bins: int = 15) -> float:
    """Mean distance of probability and frequency over equally wide bins, weighted by how many pairs fall in each."""
    index = (probability * bins).long().clamp(max=bins - 1)
    error = 0.0
    for chosen in (index == k for k in range(bins)):
        if chosen.any():
            gap = probability[chosen].mean() - matched[chosen].float().mean()
            error += gap.abs().item() * chosen.float().mean().item()
    return error


def platt(margins: Tensor, matched: Tensor) -> Calibration:
    """Temperature and offset that minimise the negative log-likelihood of (P,) pairs (Platt 1999).

    The offset is needed beside the temperature: training sees two hard negatives for every match, and half of the pairs
    that the probability is stated for are matches.
    """
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    with torch.enable_grad():
        _minimise(
            parameters,
            lambda: F.binary_cross_entropy_with_logits(margins * parameters[0] + parameters[1], matched.float()),
        )
    slope, offset = parameters.tolist()
    error = expected_calibration_error(torch.sigmoid(margins * slope + offset), matched)
    curve = area_under_curve(margins[matched], margins[~matched])
    print(f"temperature {1 / slope:.3f}, offset {offset:.3f}: calibration error {error:.4f}, AUROC {curve:.4f}")
    return Calibration(1 / slope, offset)


def _minimise(parameters: Tensor, loss: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS([parameters], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
