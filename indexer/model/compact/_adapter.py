"""The three verbs on the compact model's network."""

import copy
import threading
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from indexer.compact_checkpoint import IMAGE_SIZE
from indexer.model._interface import ImageFeatures, ModelIdentity
from indexer.model._text import tokenise
from indexer.model.compact._image_graph import ImageGraph
from indexer.model.compact._network import TOKENS, CompactNetwork
from indexer.model.compact._qformer import TOKEN_SIZE


class CompactModel:
    """The compact model on one device, in float32: in PyTorch, and on a CPU photos in ONNX Runtime.

    Photos encoded on different devices may stand in one library: their embeddings differ by less than the float16
    that they are kept in. Several threads may call it.
    """

    def __init__(
        self,
        network: CompactNetwork,
        tokenizer: Tokenizer,
        identity: ModelIdentity,
        match_weight: float,
        device: str,
    ) -> None:
        """``tokenizer`` truncates, pads and adds [CLS] and [SEP] itself; ``network`` is on ``device``."""
        self._network = network
        self._tokenizer = tokenizer
        self._identity = identity
        self._match_weight = match_weight
        self._device = device
        self._image_graph: ImageGraph | None = None
        self._making_graph = threading.Lock()

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def device(self) -> str:
        return self._device

    @property
    def image_size(self) -> int:
        return IMAGE_SIZE

    @property
    def token_shape(self) -> tuple[int, int]:
        return TOKENS, TOKEN_SIZE

    @property
    def batch_size(self) -> int:
        return 256 if self._device.startswith("cuda") else 32

    @property
    def match_batch_size(self) -> int:
        return 256 if self._device.startswith("cuda") else 128

    @property
    def match_weight(self) -> float:
        return self._match_weight

    def replica(self, device: str) -> "CompactModel":
        """The same weights on another device."""
        network = copy.deepcopy(self._network).to(device)
        return CompactModel(network, self._tokenizer, self._identity, self._match_weight, device)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """(B, 3, 224, 224) uint8 -> tokens (B, 50, 256) and embeddings (B, 32, 256), both float32.

        Raises ValueError on pixels of another size or dtype, CheckpointInvalid when the installation is damaged.
        """
        if pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or pixels.dtype != torch.uint8:
            raise ValueError(
                f"This model takes uint8 pixels of shape (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), "
                f"not {pixels.dtype} of shape {tuple(pixels.shape)}."
            )
        encoder = self._graph() if self._device == "cpu" else self._network
        return ImageFeatures(*encoder.encode_images(pixels.to(self._device)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, 256) float32 of unit length."""
        return self._network.embed_texts(*tokenise(self._tokenizer, texts, self._device))

    @torch.inference_mode()
    def match(self, tokens: Tensor, texts: Sequence[str], embeddings: Tensor | None = None) -> Tensor:
        """(B, 50, 256) tokens, B strings -> ITM logits (B, 2) float32.

        Without the photos' ``embeddings`` (B, 32, 256) they are made again, which takes nearly half of the time.
        """
        tokens = tokens.to(self._device).float()
        known = self._network.embed_images(tokens) if embeddings is None else embeddings.to(self._device).float()
        return self._network.match(tokens, known, *tokenise(self._tokenizer, texts, self._device))

    def _graph(self) -> ImageGraph:
        """Made at the first photo: who only reads texts needs neither its time nor its memory."""
        with self._making_graph:
            if self._image_graph is None:
                self._image_graph = ImageGraph(self._network.state_dict())
            return self._image_graph
