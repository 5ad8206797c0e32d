"""Batches that fit into the memory of the device, and are large enough to keep it busy."""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from indexer.errors import ModelError

_WORTH = 1.05
"""Rows a second that twice the batch must make, of those that the batch made."""

_NO_MEMORY = ("can't allocate memory", "STATUS_ALLOC_FAILED")
"""What a CPU's allocator, and cuBLAS and cuDNN, say of it, which raise nothing narrower than RuntimeError."""

_Result = TypeVar("_Result")


class Batches:
    """How many rows go through a network at once: found by trying, and halved whenever memory does not suffice.

    Safe to use from several threads.
    """

    def __init__(self, size: int, most: int = 0) -> None:
        """``size`` is what to begin with, ``most`` the largest that `grow` tries; by default it tries none."""
        self._size = size
        self._most = most
        self._growing = threading.Lock()

    @property
    def size(self) -> int:
        """The most rows at once that have not been too many so far."""
        return self._size

    def grow(self, seconds: Callable[[int], float]) -> None:
        """Double the size as long as that fits and makes 5 % more rows a second. Only the first call does anything.

        ``seconds`` runs a batch of so many rows and returns how long it took.
        """
        with self._growing:
            most, self._most = self._most, 0
            if 2 * self._size > most:
                return
            took = _fitting(seconds, self._size)
            while took is not None and 2 * self._size <= most:
                doubled = _fitting(seconds, 2 * self._size)
                if doubled is None or 2 * took < _WORTH * doubled:
                    return
                self._size, took = 2 * self._size, doubled

    def run(self, network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``network`` of all rows of ``inputs``, computed batch by batch and put together again.

        Raises ModelError when the memory does not suffice for a single row.
        """
        outputs: list[Tensor] = []
        start, rows = 0, len(inputs[0])
        # Once also without any row: the network knows the shape of what it returns.
        while start < rows or not outputs:
            size = self._size
            output = _fitting(network, *(each[start : start + size] for each in inputs))
            if output is None:
                self._halve(min(size, rows - start))
                continue
            outputs.append(output)
            start += size
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _halve(self, tried: int) -> None:
        if tried <= 1:
            raise ModelError(
                "The device has too little free memory for a single photo. End other programs that use it, or run the "
                "model elsewhere: --device cpu."
            )
        # Another thread may have halved it already.
        self._size = min(self._size, tried // 2)


def _fitting(work: Callable[..., _Result], *inputs: object) -> _Result | None:
    """What ``work`` makes of the inputs; None if memory does not suffice for it."""
    try:
        return work(*inputs)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in str(error) for sign in _NO_MEMORY):
            raise
    # Only here is what the failed attempt had allocated no longer referred to.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
