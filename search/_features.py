"""Match features of pictures: what the ITM head attends to, from the cache or from the original photo."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.errors import PhotoUnreadable
from indexer.library import Library, PhotoRecord
from indexer.model import Model, quantised
from indexer.tokens import QuantisedTokens
from search._originals import unchanged

ReadPixels = Callable[[Path, int], NDArray[np.uint8]]
"""A photo as (S, S, 3) RGB, squashed to S pixels. Raises PhotoUnreadable."""


class MatchFeatures:
    """Tokens by picture. Those that the library's cache lacks are encoded again from the original, and cached."""

    def __init__(self, library: Library, model: Model, read: ReadPixels) -> None:
        """``read`` decodes originals."""
        self._library = library
        self._model = model
        self._read = read
        self._encoding = threading.Lock()

    def of(self, content_ids: Sequence[int]) -> dict[int, QuantisedTokens]:
        """Tokens (N, D) of each picture; a picture whose original is gone, or has changed, is not among them."""
        found = self._cached(content_ids)
        if len(found) == len(content_ids):
            return found
        # One at a time: searches that lack the same pictures would otherwise each encode them.
        with self._encoding:
            found |= self._cached([content_id for content_id in content_ids if content_id not in found])
            for tokens in self._encode([each for each in content_ids if each not in found]):
                self._library.add_match_features(self._model.identity, tokens)
                found |= tokens
        return found

    def _cached(self, content_ids: Sequence[int]) -> dict[int, QuantisedTokens]:
        cached = self._library.match_features(self._model.identity, content_ids)
        return {content_id: tokens for content_id, tokens in cached.items() if tokens.shape == self._model.token_shape}

    def _encode(self, content_ids: Sequence[int]) -> Iterator[dict[int, QuantisedTokens]]:
        """Tokens of the pictures that can be read, batch by batch."""
        files = self._library.photos_of(content_ids)
        for start in range(0, len(content_ids), self._model.batch_size):
            batch = content_ids[start : start + self._model.batch_size]
            pixels = {content_id: self._pixels(files.get(content_id, [])) for content_id in batch}
            readable = {content_id: array for content_id, array in pixels.items() if array is not None}
            if readable:
                images = torch.from_numpy(np.stack(list(readable.values()))).permute(0, 3, 1, 2)
                yield dict(zip(readable, quantised(self._model.encode_images(images).tokens), strict=True))

    def _pixels(self, files: Sequence[PhotoRecord]) -> NDArray[np.uint8] | None:
        for file in files:
            try:
                if unchanged(file):
                    return self._read(file.path, self._model.image_size)
            except (OSError, PhotoUnreadable):
                continue
        return None
