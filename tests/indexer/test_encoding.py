"""The encoder's thread, also as it works beside a GPU: a batch ahead of what it returns."""

import queue
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from indexer._encoding import Encoded, EncoderThread, ModelFailed
from indexer.model import ImageFeatures, Model, restored


class Elsewhere:
    """The compact model, as if it ran on a GPU."""

    device = "cuda"

    def __init__(self, model: Model, broken_at: int) -> None:
        self._model = model
        self._left = broken_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("CUDA error")
        return self._model.encode_images(pixels)


def photos(model: Model, count: int) -> list[np.ndarray]:
    size = model.image_size
    return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_every_batch_comes_back_once_and_in_order(model: Model, elsewhere: bool) -> None:
    pixels = photos(model, 6)
    batches = [pixels[:1], pixels[1:3], pixels[3:4], pixels[4:]]
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with EncoderThread(Elsewhere(model, -1) if elsewhere else model, events) as encoder:
        for number, batch in enumerate(batches):
            encoder.submit(tuple(f"{number}-{place}" for place in range(len(batch))), batch)
    exact = model.encode_images(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    place = 0
    for number, batch in enumerate(batches):
        event = events.get_nowait()
        assert isinstance(event, Encoded)
        assert event.digests == tuple(f"{number}-{place}" for place in range(len(batch)))
        expected = slice(place, place + len(batch))
        assert event.embeddings.dtype == np.float16
        np.testing.assert_allclose(event.embeddings, exact.embeddings[expected], atol=1e-3)
        error = (restored(event.tokens, "cpu") - exact.tokens[expected]).abs().amax(dim=1)
        assert (error <= exact.tokens[expected].abs().amax(dim=1) / 127 * 0.51).all()
        place += len(batch)
    assert events.empty()


def test_a_model_that_fails_is_told(model: Model) -> None:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with EncoderThread(Elsewhere(model, 3), events) as encoder:
        for number, each in enumerate(photos(model, 4)):
            encoder.submit((str(number),), [each])
    told = [events.get_nowait() for _ in range(events.qsize())]
    assert isinstance(told[-1], ModelFailed)
    assert str(told[-1].error) == "CUDA error"
    assert all(isinstance(event, Encoded) for event in told[:-1])
