"""The three verbs on the parts of ``Blip2ForImageTextRetrieval``.

Its ``forward`` is never called: it runs the image encoder for every text, wants one photo per text, and changes the
meaning of its token ids with ``config.image_token_index``. Its parts called directly give the same numbers.
"""

from collections.abc import Sequence
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Blip2ForImageTextRetrieval

from indexer.model._interface import ImageFeatures, ModelIdentity
from indexer.model._text import tokenise

# CLIP's statistics, which the image encoder was trained with.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class Blip2Model:
    """BLIP-2's first stage: ViT, 32-query Q-Former, ITC projections and ITM head.

    The image encoder runs in the dtype it was loaded in; the Q-Former, the projections, the normalisation and the
    scores are float32. Nothing of it changes after loading, so several threads may call it.
    """

    def __init__(
        self, network: Blip2ForImageTextRetrieval, tokenizer: Tokenizer, identity: ModelIdentity, device: str
    ) -> None:
        """``tokenizer`` truncates, pads and adds [CLS] and [SEP] itself; ``network`` is on ``device``."""
        self._network = network
        self._tokenizer = tokenizer
        self._identity = identity
        self._device = device
        self._mean = torch.tensor(_MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(_STD, device=device).view(3, 1, 1)

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def device(self) -> str:
        return self._device

    @property
    def image_size(self) -> int:
        return cast("int", self._network.vision_model.config.image_size)  # the checkpoint was refused otherwise

    @property
    def token_shape(self) -> tuple[int, int]:
        _, count, width = self._network.vision_model.embeddings.position_embedding.shape
        return count, width

    @property
    def batch_size(self) -> int:
        return 64 if self._device.startswith("cuda") else 4

    @property
    def match_weight(self) -> float:
        return 1.0

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """(B, 3, S, S) uint8 -> tokens (B, N, D) in the encoder's dtype, embeddings (B, 32, 256) float32.

        Raises ValueError on pixels of another size or dtype: the ViT itself would take a smaller photo silently and
        give wrong features.
        """
        size = self.image_size
        if pixels.shape[1:] != (3, size, size) or pixels.dtype != torch.uint8:
            raise ValueError(
                f"This model takes uint8 pixels of shape (B, 3, {size}, {size}), "
                f"not {pixels.dtype} of shape {tuple(pixels.shape)}."
            )
        normalised = (pixels.to(self._device).float() / 255 - self._mean) / self._std
        tokens = self._network.vision_model(pixel_values=normalised).last_hidden_state
        hidden = self._network.qformer(
            query_embeds=self._queries(len(pixels)), encoder_hidden_states=tokens.float()
        ).last_hidden_state
        return ImageFeatures(tokens, normalize(self._network.vision_projection(hidden), dim=-1))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, 256) float32 of unit length: the Q-Former's [CLS] of the text alone, projected."""
        ids, mask = tokenise(self._tokenizer, texts, self._device)
        hidden = self._network.qformer(
            query_embeds=self._network.embeddings(input_ids=ids), query_length=0, attention_mask=mask
        ).last_hidden_state
        return normalize(self._network.text_projection(hidden[:, 0]), dim=-1)

    @torch.inference_mode()
    def match(self, tokens: Tensor, texts: Sequence[str]) -> Tensor:
        """(B, N, D) tokens, B strings -> ITM logits (B, 2) float32, the mean over the 32 query tokens."""
        queries = self._queries(len(texts))
        ids, mask = tokenise(self._tokenizer, texts, self._device)
        hidden = self._network.qformer(
            query_embeds=self._network.embeddings(input_ids=ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            encoder_hidden_states=tokens.to(self._device).float(),
        ).last_hidden_state
        logits: Tensor = self._network.itm_head(hidden[:, : queries.shape[1]]).mean(dim=1)
        return logits

    def _queries(self, count: int) -> Tensor:
        return self._network.query_tokens.expand(count, -1, -1)
