"""A thread for each device: batches of pixels in, embeddings out, while the next photos are being decoded."""

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.model import Fetch, Model, quantise
from indexer.profile import Stopwatch
from indexer.tokens import QuantisedTokens


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """One batch, encoded."""

    digests: tuple[str, ...]
    embeddings: NDArray[np.float16]
    """(B, 32, 256)."""
    tokens: list[QuantisedTokens]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFailed:
    """The model raised; nothing more is encoded."""

    error: BaseException


class Encoders:
    """Encode batches on every device that has the model: one that is free takes the next batch.

    Leave it as a context manager: what was submitted is finished first.
    """

    def __init__(self, models: Sequence[Model], events: "queue.SimpleQueue[object]", stopwatch: Stopwatch) -> None:
        """``models`` are the same checkpoint, each on a device of its own. Every `Encoded` and `ModelFailed` is put
        into ``events``, in no certain order when there are several.
        """
        self._events = events
        self._stopwatch = stopwatch
        self._batches: queue.SimpleQueue[tuple[tuple[str, ...], list[NDArray[np.uint8]]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(model,), name=f"photoseek-encoder-{number}", daemon=True)
            for number, model in enumerate(models)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, digests: tuple[str, ...], pixels: list[NDArray[np.uint8]]) -> None:
        """Encode photos of (S, S, 3) pixels."""
        self._batches.put((digests, pixels))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, model: Model) -> None:
        try:
            self._encode_all(model)
        except BaseException as error:  # raised again where the run waits for it
            self._events.put(ModelFailed(error))

    def _encode_all(self, model: Model) -> None:
        before: _UnderWay | None = None
        ended = False
        while not ended:
            batch = None
            with contextlib.suppress(queue.Empty):
                batch = self._batches.get(block=before is None)
                ended = batch is None
            with self._stopwatch.timed("model", "encode"):
                now = None if batch is None else _UnderWay(model, *batch)
                if before is not None:
                    self._events.put(before.finish())
                before = now
                # What a GPU returns is fetched while it works on the next batch, if there is one by then.
                if before is not None and model.device == "cpu":
                    self._events.put(before.finish())
                    before = None


class _UnderWay:
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
