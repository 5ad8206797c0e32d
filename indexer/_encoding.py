"""A thread for each device: batches of pixels in, embeddings out, while the next photos are being decoded.

Importing this does not import PyTorch: the first photos are decoded while that, and the model, is loaded.
"""

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from indexer.profile import Stopwatch

if TYPE_CHECKING:
    from indexer.model import Model


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """The model is there."""

    devices: tuple[str, ...]
    """Where: each encodes a batch at a time."""
    batch_size: int
    """Photos that each encodes at once."""
    queries: NDArray[np.float32] | None = None
    """(q, 256), of the texts that were asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFailed:
    """It could not be loaded, or it raised; nothing more is encoded."""

    error: BaseException


class Encoders:
    """Encode batches on every device that has the model: one that is free takes the next batch.

    Leave it as a context manager: what was submitted is finished first.
    """

    def __init__(
        self,
        load: "Callable[[], Sequence[Model]]",
        events: "queue.SimpleQueue[object]",
        stopwatch: Stopwatch,
        texts: Sequence[str] = (),
    ) -> None:
        """``load`` returns the same checkpoint on each of several devices; it is called in a thread of its own. First
        `Loaded` is put into ``events``, with the embeddings of ``texts``, then every `Encoded`, in no certain order
        when there are several devices. After `ModelFailed` there is nothing more of that device.
        """
        self._events = events
        self._stopwatch = stopwatch
        self._batches: queue.SimpleQueue[tuple[tuple[str, ...], list[NDArray[np.uint8]]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loader = threading.Thread(target=self._load, args=(load, texts), name="photoseek-loader", daemon=True)
        self._loader.start()

    def submit(self, digests: tuple[str, ...], pixels: list[NDArray[np.uint8]]) -> None:
        """Encode photos of (S, S, 3) pixels."""
        self._batches.put((digests, pixels))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loader.join()
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()

    def _load(self, load: "Callable[[], Sequence[Model]]", texts: Sequence[str]) -> None:
        try:
            with self._stopwatch.timed("model", "load"):
                models = load()
                queries = models[0].encode_texts(texts).float().cpu().numpy() if texts else None
        except BaseException as error:  # raised again where the run waits for it
            self._events.put(ModelFailed(error))
            return
        batch_size = min(model.batch_size for model in models)
        self._events.put(Loaded(tuple(model.device for model in models), batch_size, queries))
        self._threads = [
            threading.Thread(target=self._run, args=(model,), name=f"photoseek-encoder-{number}", daemon=True)
            for number, model in enumerate(models)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, model: "Model") -> None:
        try:
            self._encode_all(model)
        except BaseException as error:  # as above
            self._events.put(ModelFailed(error))

    def _encode_all(self, model: "Model") -> None:
        from indexer._batch import Batch  # noqa: PLC0415 - imports PyTorch

        before: Batch | None = None
        ended = False
        while not ended:
            batch = None
            with contextlib.suppress(queue.Empty):
                batch = self._batches.get(block=before is None)
                ended = batch is None
            with self._stopwatch.timed("model", "encode"):
                now = None if batch is None else Batch(model, *batch)
                if before is not None:
                    self._events.put(before.finish())
                before = now
                # What a GPU returns is fetched while it works on the next batch, if there is one by then.
                if before is not None and model.device == "cpu":
                    self._events.put(before.finish())
                    before = None
