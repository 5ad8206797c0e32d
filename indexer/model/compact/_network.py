"""The compact model's network: BLIP-2's first stage in miniature, with the encoder's own class beliefs built in.

A photo's 256-dimensional embeddings have two halves. One is learned by the Q-Former. The other carries the image
encoder's belief: the average of ImageNet's class names, as sentence embeddings, weighted by how probable the encoder
finds each class. The text embedding has the same halves: a projection of ``[CLS]``, and the mean-pooled
sentence embedding. A text gives its halves fixed lengths; a query token has a gate that shifts its length towards
naming or describing. An embedding stays one unit-length vector, and a similarity one dot product per query token.

The ITM head learns what the ITC similarity lacks: its logits are added to ones that the similarity gives, and to ones
from the alignment of words and places: for each word the place of the photo that is most like it (late interaction, as
in FILIP, arXiv 2111.07783). From a few thousand photos alone the head would not even learn what these know.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.model._interface import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.model.compact._encoder import (
    CHANNELS,
    CLASSES,
    COLOUR_CHANNELS,
    DETAIL_CHANNELS,
    FEATURE_SIZE,
    GRID,
    ImageEncoder,
)
from indexer.model.compact._qformer import HIDDEN_SIZE, TOKEN_SIZE, QFormer, TextEmbeddings

TOKENS = GRID * GRID + 1
"""Tokens of one photo: its feature map, and its belief."""
BELIEF_SIZE = 128
"""Dimensions of an embedding that carry the belief; the others are learned."""
# Tokens are layer-normalised, so about this long; the belief, of unit length, is stretched to stand beside them.
_TOKEN_LENGTH = math.sqrt(TOKEN_SIZE)
_ALIGNMENT_SIZE = 128
# Flatter than the classifier's own softmax: photos show more than one thing, and ImageNet labels name only one.
_BELIEF_TEMPERATURE = 2.0


class CompactNetwork(nn.Module):
    """Frozen image encoder, token projection, Q-Former and the heads for ITC and ITM."""

    class_embeddings: Tensor
    """(1000, 384): unit-length sentence embeddings of ImageNet's class names."""
    text_belief_share: Tensor
    """(): how much of a text's squared length its belief half has; one half while the network is trained."""

    def __init__(self, vocabulary: int) -> None:
        """``vocabulary`` is how many tokens the tokenizer knows."""
        super().__init__()
        self.encoder = ImageEncoder()
        self.feature_norm = nn.LayerNorm(CHANNELS)
        self.detail_norm = nn.LayerNorm(DETAIL_CHANNELS)
        self.feature_projection = nn.Linear(FEATURE_SIZE, TOKEN_SIZE)
        self.position_embeddings = nn.Parameter(torch.zeros(GRID * GRID, TOKEN_SIZE))
        self.token_norm = nn.LayerNorm(TOKEN_SIZE)
        self.query_tokens = nn.Parameter(torch.zeros(1, QUERY_TOKENS, HIDDEN_SIZE))
        self.text_embeddings = TextEmbeddings(vocabulary)
        self.qformer = QFormer()
        self.vision_projection = nn.Linear(HIDDEN_SIZE, EMBEDDING_SIZE - BELIEF_SIZE)
        self.text_projection = nn.Linear(HIDDEN_SIZE, EMBEDDING_SIZE - BELIEF_SIZE)
        self.belief_projection = nn.Linear(HIDDEN_SIZE, BELIEF_SIZE)
        self.query_gate = nn.Parameter(torch.zeros(QUERY_TOKENS))
        self.itm_head = nn.Linear(HIDDEN_SIZE, 2)
        self.similarity_head = nn.Linear(1, 2)
        self.word_projection = nn.Linear(HIDDEN_SIZE, _ALIGNMENT_SIZE)
        self.word_weight = nn.Linear(HIDDEN_SIZE, 1)
        self.place_projection = nn.Linear(TOKEN_SIZE, _ALIGNMENT_SIZE)
        self.alignment_head = nn.Linear(1, 2)
        self.register_buffer("class_embeddings", torch.zeros(CLASSES, HIDDEN_SIZE))
        self.register_buffer("text_belief_share", torch.tensor(0.5))

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 224, 224) uint8 pixels -> tokens (B, 50, 256) and embeddings (B, 32, 256).

        encode_images.onnx holds the operations of this, and is to be made again when they change.
        """
        features = self.encoder((pixels.float() - 127) / 128)
        tokens = self.tokens(features, self.belief(self.encoder.classify(features)))
        return tokens, self.embed_images(tokens)

    def belief(self, logits: Tensor) -> Tensor:
        """(B, 1000) class logits -> (B, 384): the class names' embeddings, averaged by probability."""
        probabilities = (logits.float() / _BELIEF_TEMPERATURE).softmax(dim=-1)
        return probabilities @ self.class_embeddings

    def tokens(self, features: Tensor, belief: Tensor) -> Tensor:
        """(B, 49, 1808) features and (B, 384) beliefs -> (B, 50, 256): all that is kept of a photo.

        The last token holds the belief's half of the embeddings, padded with zeros.
        """
        seen, details, colours = torch.split(features, [CHANNELS, DETAIL_CHANNELS, COLOUR_CHANNELS], dim=-1)
        parts = torch.cat([self.feature_norm(seen), self.detail_norm(details), colours], dim=-1)
        spatial = self.feature_projection(parts) + self.position_embeddings
        normalised: Tensor = self.token_norm(spatial)
        named = F.normalize(self.belief_projection(belief).float(), dim=-1) * _TOKEN_LENGTH
        padded = F.pad(named, (0, TOKEN_SIZE - BELIEF_SIZE))[:, None]
        return torch.cat([normalised, padded.to(normalised.dtype)], dim=1)

    def embed_images(self, tokens: Tensor) -> Tensor:
        """(B, N, 256) tokens -> (B, 32, 256) unit-length embeddings."""
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        hidden = self.qformer(queries, QUERY_TOKENS, tokens=tokens)
        learned = F.normalize(self.vision_projection(hidden).float(), dim=-1)
        named = F.normalize(tokens[:, -1:, :BELIEF_SIZE].float(), dim=-1).expand(-1, QUERY_TOKENS, -1)
        share = torch.sigmoid(self.query_gate)[:, None]
        return torch.cat([learned * torch.sqrt(1 - share), named * torch.sqrt(share)], dim=-1)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids and their attention mask -> (B, 256) unit-length embeddings."""
        return self.embed_text_hidden(self.text_hidden(ids, mask), mask)

    def embed_text_hidden(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, 384) hidden states of texts and their mask -> (B, 256) unit-length embeddings."""
        learned = F.normalize(self.text_projection(hidden[:, 0]).float(), dim=-1)
        sentence = F.normalize(mean_pooled(hidden, mask).float(), dim=-1)
        named = F.normalize(self.belief_projection(sentence).float(), dim=-1)
        share = self.text_belief_share
        return torch.cat([learned * torch.sqrt(1 - share), named * torch.sqrt(share)], dim=-1)

    def text_hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, 384): the text half of the Q-Former, alone."""
        hidden: Tensor = self.qformer(self.text_embeddings(ids), 0, mask)
        return hidden

    def match(self, tokens: Tensor, embeddings: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, N, 256) tokens and (B, 32, 256) embeddings of photos, (B, T) token ids and mask -> (B, 2) logits."""
        # A search matches many photos with one text, whose words are read alone once for all of them.
        distinct, rows = torch.unique(torch.stack([ids, mask], dim=-1), dim=0, return_inverse=True)
        distinct_ids, distinct_mask = distinct.unbind(dim=-1)
        hidden = self.text_hidden(distinct_ids, distinct_mask)
        texts = self.embed_text_hidden(hidden, distinct_mask)[rows]
        similarity = (embeddings * texts[:, None]).sum(dim=-1).amax(dim=1)
        vectors, weights = self.words(hidden, distinct_mask)
        alignment = self.alignment((vectors[rows], weights[rows]), self.places(tokens))
        aligned: Tensor = self.alignment_head(alignment[:, None]).float()
        return self.match_given(similarity, tokens, ids, mask) + aligned

    def words(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 384) hidden states of texts and their mask -> (B, T, 128) unit vectors, (B, T) weights of sum 1."""
        weights = self.word_weight(hidden).squeeze(-1).float().masked_fill(mask == 0, -torch.inf)
        return F.normalize(self.word_projection(hidden).float(), dim=-1), weights.softmax(dim=-1)

    def places(self, tokens: Tensor) -> Tensor:
        """(B, N, 256) tokens -> (B, N, 128) unit vectors."""
        return F.normalize(self.place_projection(tokens).float(), dim=-1)

    @staticmethod
    def alignment(words: tuple[Tensor, Tensor], places: Tensor) -> Tensor:
        """``words`` of B texts, ``places`` of B photos -> (B,): the weighted mean, over words, of the best cosine."""
        vectors, weights = words
        best = (vectors @ places.transpose(1, 2)).amax(dim=-1)
        return (best * weights).sum(dim=-1)

    def match_given(self, similarity: Tensor, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """``match`` without the alignment, where the (B,) similarities are at hand."""
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        embedded = self.text_embeddings(ids, queries)
        attended = torch.cat([mask.new_ones(len(mask), QUERY_TOKENS), mask], dim=1)
        hidden = self.qformer(embedded, QUERY_TOKENS, attended, tokens)
        looked: Tensor = self.itm_head(hidden[:, :QUERY_TOKENS]).float().mean(dim=1)
        known: Tensor = self.similarity_head(similarity[:, None]).float()
        return looked + known


def mean_pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, T, D) hidden states -> (B, D): their mean over the tokens that are not padding."""
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
