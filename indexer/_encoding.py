"""The model's own thread: batches of pixels in, embeddings out, while the next photos are being decoded."""

import dataclasses
import queue
import threading
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.model import Model, quantised
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
        while (batch := self._batches.get()) is not None:
            try:
                self._events.put(_encode(self._model, *batch))
            except BaseException as error:  # raised again where the run waits for it
                self._events.put(ModelFailed(error))
                return


def _encode(model: Model, digests: tuple[str, ...], pixels: list[NDArray[np.uint8]]) -> Encoded:
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    features = model.encode_images(batch)
    return Encoded(
        digests,
        features.embeddings.to("cpu", torch.float16).numpy(),
        quantised(features.tokens),
    )
