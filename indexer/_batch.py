"""A batch of photos on the device of a model. Imports PyTorch."""

import numpy as np
import torch
from numpy.typing import NDArray

from indexer._encoded import Encoded
from indexer.model import Fetch, Model, quantise
from indexer.tokens import QuantisedTokens


class Batch:
    """A batch that the device has been given."""

    def __init__(self, model: Model, digests: tuple[str, ...], pixels: list[NDArray[np.uint8]]) -> None:
        self._digests = digests
        features = model.encode_images(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous())
        self._fetch = Fetch(features.embeddings.half(), *quantise(features.tokens))

    def finish(self) -> Encoded:
        """Wait for the device."""
        embeddings, values, scales = self._fetch.wait()
        tokens = [QuantisedTokens(*photo) for photo in zip(values, scales, strict=True)]
        return Encoded(self._digests, embeddings, tokens)
