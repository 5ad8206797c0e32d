"""The three verbs on the parts of ``Blip2ForImageTextRetrieval``.

Its ``forward`` is never called: it runs the image encoder for every text, wants one photo per text, and changes the
meaning of its token ids with ``config.image_token_index``. Its parts called directly give the same numbers.
"""

import time
from collections.abc import Callable, Sequence
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Blip2ForImageTextRetrieval, Blip2VisionConfig, Blip2VisionModel

from indexer.errors import CheckpointInvalid
from indexer.model._batches import Batches
from indexer.model._interface import ImageFeatures, ModelIdentity
from indexer.model._text import tokenise
from indexer.model.blip2._image_encoder import ImageEncoder

# CLIP's statistics, which the image encoder was trained with.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

# Photos at once: what is begun with, and the most that is tried. So many are also decoded ahead, in the CPU's memory.
_PHOTOS_ON_GPU, _PHOTOS_ON_CPU = (32, 512), (4, 4)
_PAIRS_ON_GPU, _PAIRS_ON_CPU = 256, 32


class Blip2Model:
    """BLIP-2's first stage: ViT, 32-query Q-Former, ITC projections and ITM head.

    The image encoder runs in the dtype it is loaded in, and so do the keys and values that the Q-Former makes of its
    tokens. The rest of the Q-Former, the projections, the normalisation and the scores are float32; except that, where
    the encoder is float16, so is the Q-Former while it embeds photos: libraries keep embeddings in float16.

    Only ``encode_images`` needs the image encoder, so only there is it loaded. Several threads may call it. Photos and
    pairs beyond what the device has memory for go through in smaller batches. The first time that a GPU is given a
    whole batch of photos it is tried, for as long as some hundred photos take, whether larger ones are faster.
    """

    def __init__(
        self,
        network: Blip2ForImageTextRetrieval,
        encoder: ImageEncoder,
        tokenizer: Tokenizer,
        identity: ModelIdentity,
        device: str,
        load_on: "Callable[[str], Blip2Model]",
    ) -> None:
        """``network`` is all but the image encoder, on ``device``. ``tokenizer`` truncates, pads and adds [CLS] and
        [SEP] itself. ``load_on`` loads the same checkpoint on another device.
        """
        self._network = network
        self._encoder = encoder
        on_gpu = device.startswith("cuda")
        self._photos = Batches(*(_PHOTOS_ON_GPU if on_gpu else _PHOTOS_ON_CPU))
        self._pairs = Batches(_PAIRS_ON_GPU if on_gpu else _PAIRS_ON_CPU)
        self._tokenizer = tokenizer
        self._identity = identity
        self._device = device
        self._load_on = load_on
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
        return cast("int", self._vision_config.image_size)  # the checkpoint was refused otherwise

    @property
    def token_shape(self) -> tuple[int, int]:
        side = self.image_size // cast("int", self._vision_config.patch_size)
        return side * side + 1, self._vision_config.hidden_size

    @property
    def batch_size(self) -> int:
        return self._photos.size

    @property
    def match_batch_size(self) -> int:
        return self._pairs.size

    @property
    def parameters_loaded(self) -> int:
        """How many of its parameters are in memory."""
        return self._encoder.parameters + sum(each.numel() for each in self._network.parameters())

    @property
    def _vision_config(self) -> Blip2VisionConfig:
        return cast("Blip2VisionConfig", self._network.config.vision_config)

    @property
    def match_weight(self) -> float:
        return 1.0

    def replica(self, device: str) -> "Blip2Model":
        """The same checkpoint, loaded once more on another device. Raises CheckpointInvalid if it has changed."""
        other = self._load_on(device)
        if other.identity != self._identity:
            raise CheckpointInvalid(f"{self._identity.name} has changed since the model was loaded. Start again.")
        return other

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
        pixels = self._on_device(pixels)
        with self._encoder.in_use() as encoder:
            if len(pixels) >= self._photos.size:
                self._photos.grow(lambda count: self._seconds(encoder, count))
            tokens = self._photos.run(lambda some: self._look(encoder, some), pixels)
        return ImageFeatures(tokens, self._photos.run(self._embed, tokens))

    def _seconds(self, encoder: Blip2VisionModel, count: int) -> float:
        """How long black photos take, the second time: in the first, memory is allocated."""
        pixels = torch.zeros(count, 3, self.image_size, self.image_size, dtype=torch.uint8, device=self._device)
        started = 0.0
        for _ in range(2):
            self._wait()
            started = time.perf_counter()
            self._embed(self._look(encoder, pixels))
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)

    def _look(self, encoder: Blip2VisionModel, pixels: Tensor) -> Tensor:
        tokens: Tensor = encoder(pixel_values=(pixels.float() / 255 - self._mean) / self._std).last_hidden_state
        return tokens

    def _embed(self, tokens: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, torch.float16, enabled=tokens.dtype == torch.float16):
            hidden = self._network.qformer(
                query_embeds=self._queries(len(tokens)), encoder_hidden_states=tokens
            ).last_hidden_state
        return normalize(self._network.vision_projection(hidden.float()), dim=-1)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, 256) float32 of unit length: the Q-Former's [CLS] of the text alone, projected."""
        ids, mask = tokenise(self._tokenizer, texts, self._device)
        hidden = self._network.qformer(
            query_embeds=self._network.embeddings(input_ids=ids), query_length=0, attention_mask=mask
        ).last_hidden_state
        return normalize(self._network.text_projection(hidden[:, 0]), dim=-1)

    @torch.inference_mode()
    def match(self, tokens: Tensor, texts: Sequence[str], embeddings: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(B, N, D) tokens, B strings -> ITM logits (B, 2) float32, the mean over the 32 query tokens.

        They come of the tokens alone, whatever the ``embeddings``.
        """
        ids, mask = tokenise(self._tokenizer, texts, self._device)
        return self._pairs.run(self._match, self._on_device(tokens), ids, mask)

    def _match(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        queries = self._queries(len(tokens))
        hidden = self._network.qformer(
            query_embeds=self._network.embeddings(input_ids=ids, query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            encoder_hidden_states=tokens,
        ).last_hidden_state
        logits: Tensor = self._network.itm_head(hidden[:, : queries.shape[1]]).mean(dim=1)
        return logits

    def _on_device(self, values: Tensor) -> Tensor:
        """Pinned memory is copied while the GPU works on what it was given before."""
        if self._device.startswith("cuda") and values.device.type == "cpu":
            values = values.pin_memory()
        return values.to(self._device, non_blocking=True)

    def _queries(self, count: int) -> Tensor:
        return self._network.query_tokens.expand(count, -1, -1)
