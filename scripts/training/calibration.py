"""What is fitted on dev after training: how to weigh what is known of a pair, in order and in probability."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.model.compact._network import CompactNetwork
from scripts.training.evaluation import Encoded, Galleries, Gallery, area_under_curve, encode, match_evidence, recall

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


@dataclasses.dataclass(frozen=True)
class _Ranked:
    """Texts, their similarity with every photo of a gallery, and the evidence on their candidates."""

    asked: Tensor
    """(T,) indices of the texts."""
    similarity: Tensor
    """(T, I)"""
    right: Tensor
    """(T, I)"""
    candidates: Tensor
    """(T, C) indices of photos."""
    evidence: Tensor
    """(T, C, 3): similarity, ITM margin, alignment."""

    @property
    def right_candidates(self) -> Tensor:
        """(T, C): which candidates are right."""
        return self.right.gather(1, self.candidates)

    def part(self, rows: slice) -> "_Ranked":
        """Some of the texts."""
        return _Ranked(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def report(self, name: str, weights: Tensor) -> None:
        """Print what a rerank by these weights does."""
        scores = self.evidence @ weights
        # Reranked candidates come before all others, whose similarity is at most 1.
        after = self.similarity.scatter(1, self.candidates, scores - scores.min() + 2)
        print(f"{name}: {recall(self.similarity, self.right)}, reranked {recall(after, self.right)}", flush=True)


def fit(network: CompactNetwork, galleries: Galleries, captions: int) -> Fitted:
    """Fit rank weights on known names and two thirds of as many ``captions``, the calibration on all of these captions.

    Prints what reranking the top 20 does, also to what nothing is fitted on: the other captions and held-out names.
    """
    draw = torch.Generator().manual_seed(0)
    gallery = galleries.captions
    asked = torch.randperm(len(gallery.texts), generator=draw)[:captions]
    encoded = encode(network, gallery)
    described = _ranked(network, gallery, encoded, asked)
    named, others = (
        _ranked(network, names, encode(network, names), torch.arange(len(names.texts)))
        for names in (galleries.known_names, galleries.held_out_names)
    )
    fitted_on = described.part(slice(0, captions * 2 // 3))
    weights = rank_weights(
        torch.cat([fitted_on.evidence, named.evidence]), torch.cat([fitted_on.right_candidates, named.right_candidates])
    )
    print(f"weights of similarity, ITM, alignment: {weights.tolist()}")
    fitted_on.report("captions fitted on", weights)
    described.part(slice(captions * 2 // 3, None)).report("other captions", weights)
    named.report("names fitted on", weights)
    others.report("held-out names", weights)
    own = described.right.float().argmax(dim=1)
    other = (own + torch.randint(1, len(encoded.tokens), own.shape, generator=draw)) % len(encoded.tokens)
    pairs = match_evidence(network, encoded, gallery.texts, torch.cat([own, other]), asked.repeat(2))
    calibration = platt(pairs @ weights[1:], torch.arange(len(pairs)) < len(own))
    by_similarity, by_itm, by_alignment = weights.tolist()
    return Fitted(by_similarity, by_itm, by_alignment, calibration)


def _ranked(network: CompactNetwork, gallery: Gallery, encoded: Encoded, asked: Tensor) -> _Ranked:
    similarity = encoded.similarity()[asked]
    top = similarity.topk(_RERANKED)
    texts = asked.repeat_interleave(_RERANKED)
    seen = match_evidence(network, encoded, gallery.texts, top.indices.flatten(), texts).view(-1, _RERANKED, 2)
    evidence = torch.cat([top.values[..., None], seen], dim=-1)
    return _Ranked(asked, similarity, gallery.relevant[asked], top.indices, evidence)


def rank_weights(evidence: Tensor, right: Tensor) -> Tensor:
    """(E,) weights under which a right one of (L, C, E) candidates most probably comes first (conditional logit).

    ``right`` (L, C) says which are; lists without any say nothing.
    """
    lists, wrong = evidence[right.any(dim=1)], ~right[right.any(dim=1)]
    weights = torch.zeros(evidence.shape[-1], requires_grad=True)

    def loss() -> Tensor:
        chances = (lists @ weights).log_softmax(dim=1)
        return -chances.masked_fill(wrong, -torch.inf).logsumexp(dim=1).mean()

    with torch.enable_grad():
        _minimise(weights, loss)
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
