"""The encoders' threads, also as they work beside a GPU: a batch ahead of what is returned."""

import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from indexer._encoded import Encoded
from indexer._encoding import Encoders, Loaded, ModelFailed
from indexer.errors import CheckpointInvalid
from indexer.library import Library
from indexer.model import ImageFeatures, Model, load_model, restored
from indexer.pipeline import index_folders
from indexer.profile import Stopwatch
from tests.indexer.model.blip2_checkpoint import save_checkpoint


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
    with Encoders(lambda: [Elsewhere(model, -1) if elsewhere else model], events, Stopwatch()) as encoder:
        for number, batch in enumerate(batches):
            encoder.submit(tuple(f"{number}-{place}" for place in range(len(batch))), batch)
    exact = model.encode_images(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    assert events.get_nowait() == Loaded(("cuda" if elsewhere else "cpu",), model.batch_size)
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


def test_several_devices_share_the_batches(model: Model) -> None:
    pixels = photos(model, 12)
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    models = [model, model.replica("cpu"), Elsewhere(model.replica("cpu"), -1)]
    with Encoders(lambda: models, events, Stopwatch()) as encoders:
        for number, each in enumerate(pixels):
            encoders.submit((str(number),), [each])
    exact = model.encode_images(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).embeddings
    assert events.get_nowait() == Loaded(("cpu", "cpu", "cuda"), model.batch_size)
    seen = set()
    for _ in pixels:
        event = events.get_nowait()
        assert isinstance(event, Encoded)
        (digest,) = event.digests
        np.testing.assert_allclose(event.embeddings[0], exact[int(digest)], atol=1e-3)
        seen.add(digest)
    assert events.empty()
    assert len(seen) == len(pixels)


def test_a_device_that_waits_for_work_keeps_nothing_back(model: Model) -> None:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with Encoders(lambda: [Elsewhere(model, -1), Elsewhere(model, -1)], events, Stopwatch()) as encoders:
        for number, each in enumerate(photos(model, 5)):
            encoders.submit((str(number),), [each])
        told = [events.get(timeout=60) for _ in range(6)]
    assert {event.digests[0] for event in told if isinstance(event, Encoded)} == set("01234")


def test_a_model_that_fails_is_told(model: Model) -> None:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with Encoders(lambda: [Elsewhere(model, 3)], events, Stopwatch()) as encoder:
        for number, each in enumerate(photos(model, 4)):
            encoder.submit((str(number),), [each])
    told = [events.get_nowait() for _ in range(events.qsize())]
    assert isinstance(told[-1], ModelFailed)
    assert str(told[-1].error) == "CUDA error"
    assert all(isinstance(event, Encoded) for event in told[1:-1])


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    def load() -> list[Model]:
        raise CheckpointInvalid("changed")

    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with Encoders(load, events, Stopwatch()) as encoders:
        encoders.submit(("a",), [])
    (told,) = [events.get_nowait() for _ in range(events.qsize())]
    assert isinstance(told, ModelFailed)
    assert isinstance(told.error, CheckpointInvalid)


def test_an_indexing_run_on_two_devices_gives_the_same_library(tmp_path: Path) -> None:
    checkpoint = load_model(str(save_checkpoint(tmp_path / "checkpoint", image_size=56)), "cpu")
    folder = tmp_path / "photos"
    folder.mkdir()
    count = 2 * checkpoint.batch_size + 1
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    held = []
    for devices in ([], ["cpu"]):
        with Library.create(tmp_path / f"library{len(devices)}") as library:
            summary = index_folders(library, checkpoint, [folder], workers=1, devices=devices)
            assert summary.embedded == count
            hits = library.nearest(np.eye(1, 256, dtype=np.float32)[0], count)
            files = library.photos_of([hit.content_id for hit in hits])
            held.append({files[hit.content_id][0].path: hit.similarity for hit in hits})
    assert held[0].keys() == held[1].keys()
    assert list(held[0].values()) == pytest.approx([held[1][path] for path in held[0]], abs=1e-3)
