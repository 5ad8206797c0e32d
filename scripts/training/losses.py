"""The training objectives, each a function of one batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

# The similarity takes the best of the 32 query tokens. So that the others get a gradient too, training takes a soft
# maximum: at this temperature a query token 0.04 below the best weighs e^-2 of it.
_QUERY_TEMPERATURE = 0.02
_LABEL_SMOOTHING = 0.1
# Two query tokens of a photo may share this much (cosine); beyond it they pay.
_ALLOWED_COSINE = 0.5


def similarities(images: Tensor, texts: Tensor) -> Tensor:
    """(I, 32, D) and (T, D) -> (I, T): the soft maximum over the query tokens of the dot products."""
    products = torch.einsum("iqd,td->itq", images, texts)
    return _QUERY_TEMPERATURE * (products / _QUERY_TEMPERATURE).logsumexp(dim=-1)


def contrastive(similarity: Tensor, positive: Tensor, temperature: Tensor) -> Tensor:
    """ITC: cross-entropy in both directions of (I, T) similarities; a row's positives share its target evenly."""
    return (_one_way(similarity / temperature, positive) + _one_way(similarity.T / temperature, positive.T)) / 2


def _one_way(logits: Tensor, positive: Tensor) -> Tensor:
    target = positive / positive.sum(dim=1, keepdim=True)
    target = target * (1 - _LABEL_SMOOTHING) + _LABEL_SMOOTHING / positive.shape[1]
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def diversity(learned: Tensor) -> Tensor:
    """Penalty on query tokens that say the same: (I, 32, D) unit vectors -> mean squared excess of their cosines."""
    cosines = learned @ learned.transpose(1, 2)
    others = ~torch.eye(learned.shape[1], dtype=torch.bool)
    return (cosines[:, others] - _ALLOWED_COSINE).clamp(min=0).square().mean()


def distillation(pooled: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of our sentence embeddings (B, 384) and MiniLM's: keeps names where the beliefs expect them."""
    return 1 - F.cosine_similarity(pooled.float(), target, dim=-1).mean()


def matching(logits: Tensor) -> Tensor:
    """ITM: (L, C, 2) logits of a text with C candidates each, of which the first is its photo.

    The sum of two cross-entropies: is a pair a match, and which of the candidates is? The second is what a rerank asks.
    """
    matched = torch.zeros(logits.shape[:2], dtype=torch.long)
    matched[:, 0] = 1
    pairwise = F.cross_entropy(logits.flatten(0, 1), matched.flatten())
    margin = logits[..., 1] - logits[..., 0]
    return pairwise - margin.log_softmax(dim=1)[:, 0].mean()
