"""The model's own thread: batches of pixels in, embeddings out, while the next photos are being decoded."""

import dataclasses
import queue
import threading
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.model import Fetch, Model, quantise
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


class EncoderThread:
    """Encodes batches one after the other. Leave it as a context manager: the batch it is at is finished first."""

    def __init__(self, model: Model, events: "queue.SimpleQueue[object]") -> None:
        """Every `Encoded` and `ModelFailed` is put into ``events``."""
        self._model = model
        self._events = events
        self._batches: queue.SimpleQueue[tuple[tuple[str, ...], list[NDArray[np.uint8]]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="photoseek-encoder", daemon=True)
        self._thread.start()

    def submit(self, digests: tuple[str, ...], pixels: list[NDArray[np.uint8]]) -> None:
        """Encode photos of (S, S, 3) pixels."""
        self._batches.put((digests, pixels))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._encode_all()
        except BaseException as error:  # raised again where the run waits for it
            self._events.put(ModelFailed(error))

    def _encode_all(self) -> None:
        # What a GPU returns is fetched while it works on the next batch, if there is one by then.
        ahead = self._model.device != "cpu"
        before: _UnderWay | None = None
        while (batch := self._batches.get()) is not None:
            now = _UnderWay(self._model, *batch)
            if before is not None:
                self._events.put(before.finish())
            before = now
            if not (ahead and self._batches.qsize()):
                self._events.put(before.finish())
                before = None
        if before is not None:
            self._events.put(before.finish())


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
