"""The Q-Former of BLIP-2 (arXiv 2301.12597) in miniature: BERT, with query tokens that may look at a photo.

What it computes, and what its weights are called, is as in transformers' ``Blip2QFormerModel`` and
``Blip2TextEmbeddings``, which the tests hold it against. Importing those takes 3 s, and every search from the command
line would wait for them.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN_SIZE = 384
"""Width of the Q-Former, and of MiniLM, from which its text half comes."""
TOKEN_SIZE = 256
"""Width of the tokens that cross-attention sees: small, because a library keeps them for every photo."""
MAX_TEXT_TOKENS = 64
_LAYERS = 6  # as many as MiniLM's
_LAYERS_PER_CROSS_ATTENTION = 2
_HEADS = 12
_FEED_FORWARD_SIZE = 1536
_NORM_EPSILON = 1e-12
_DROPOUT = 0.1
_INITIAL_DEVIATION = 0.02


class TextEmbeddings(nn.Module):
    """What a Q-Former reads: query tokens, if any, then a text's words by their places."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, HIDDEN_SIZE, padding_idx=0)
        self.position_embeddings = nn.Embedding(MAX_TEXT_TOKENS, HIDDEN_SIZE)

    def forward(self, ids: Tensor, queries: Tensor | None = None) -> Tensor:
        """(B, T) token ids, (B, Q, 384) query tokens -> (B, Q + T, 384)."""
        words: Tensor = self.word_embeddings(ids) + self.position_embeddings.weight[: ids.shape[1]]
        return words if queries is None else torch.cat([queries, words], dim=1)


class QFormer(nn.Module):
    """Six layers; in every second one, from the first on, query tokens attend to a photo's tokens.

    Queries and words attend to one another, and have feed-forward layers of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(HIDDEN_SIZE, eps=_NORM_EPSILON)
        self.dropout = nn.Dropout(_DROPOUT)
        layers = [_Layer(looks=index % _LAYERS_PER_CROSS_ATTENTION == 0) for index in range(_LAYERS)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.apply(_initialise)

    @property
    def layers(self) -> nn.ModuleList:
        """From first to last."""
        return cast("nn.ModuleList", self.encoder["layer"])

    def forward(
        self, embedded: Tensor, query_length: int, mask: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """(B, Q + T, 384): ``query_length`` (Q) query tokens, then T words -> their hidden states, of the same shape.

        ``mask`` (B, Q + T) is 0 at padding, which nothing attends to. ``tokens`` (B, N, 256) are the photo's, which
        queries need.
        """
        hidden: Tensor = self.dropout(self.layernorm(embedded))
        attended = None if mask is None else mask.bool()[:, None, None]
        for layer in self.layers:
            hidden = layer(hidden, query_length, attended, tokens)
        return hidden


class _Layer(nn.Module):
    def __init__(self, looks: bool) -> None:
        """``looks``: its queries attend to a photo's tokens."""
        super().__init__()
        self.attention = _Attention(HIDDEN_SIZE)
        self.crossattention = _Attention(TOKEN_SIZE) if looks else None
        self.intermediate, self.output = _Widening(), _Residual(_FEED_FORWARD_SIZE)
        self.intermediate_query, self.output_query = _Widening(), _Residual(_FEED_FORWARD_SIZE)

    def forward(self, hidden: Tensor, query_length: int, attended: Tensor | None, tokens: Tensor | None) -> Tensor:
        hidden = self.attention(hidden, hidden, attended)
        queries, words = hidden[:, :query_length], hidden[:, query_length:]
        parts = []
        if query_length:
            if self.crossattention is not None:
                queries = self.crossattention(queries, tokens)
            parts.append(self.output_query(self.intermediate_query(queries), queries))
        if words.shape[1]:
            parts.append(self.output(self.intermediate(words), words))
        return torch.cat(parts, dim=1)


class _Attention(nn.Module):
    def __init__(self, source_size: int) -> None:
        """``source_size``: width of what is attended to."""
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "query": nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE),
                "key": nn.Linear(source_size, HIDDEN_SIZE),
                "value": nn.Linear(source_size, HIDDEN_SIZE),
            }
        )
        self.output = _Residual(HIDDEN_SIZE)

    def forward(self, hidden: Tensor, source: Tensor, attended: Tensor | None = None) -> Tensor:
        query, key, value = (
            self.attention[name](states).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for name, states in (("query", hidden), ("key", source), ("value", source))
        )
        found = F.scaled_dot_product_attention(query, key, value, attended)
        residual: Tensor = self.output(found.transpose(1, 2).flatten(2), hidden)
        return residual


class _Widening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(HIDDEN_SIZE, _FEED_FORWARD_SIZE)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))


class _Residual(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, HIDDEN_SIZE)
        self.dropout = nn.Dropout(_DROPOUT)
        self.LayerNorm = nn.LayerNorm(HIDDEN_SIZE, eps=_NORM_EPSILON)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        normalised: Tensor = self.LayerNorm(self.dropout(self.dense(hidden)) + residual)
        return normalised


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=_INITIAL_DEVIATION)
        nn.init.zeros_(module.bias)
