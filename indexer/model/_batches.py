"""Batches that fit into the memory of the device."""

from collections.abc import Callable

import torch
from torch import Tensor

from indexer.errors import ModelError


class Batches:
    """How many rows go through a network at once: as many as were asked for, halved whenever memory does not suffice.

    Safe to use from several threads.
    """

    def __init__(self, size: int) -> None:
        """``size`` is what to try first."""
        self._size = size

    @property
    def size(self) -> int:
        """The most rows at once that have not been too many so far."""
        return self._size

    def run(self, network: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``network`` of all rows of ``inputs``, computed batch by batch and put together again.

        Raises ModelError when the memory does not suffice for a single row.
        """
        outputs: list[Tensor] = []
        start, rows = 0, len(inputs[0])
        # Once also without any row: the network knows the shape of what it returns.
        while start < rows or not outputs:
            size = self._size
            output = _fitting(network, [each[start : start + size] for each in inputs])
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


def _fitting(network: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor | None:
    try:
        return network(*inputs)
    except torch.OutOfMemoryError:
        pass
    # Only here is what the failed attempt had allocated no longer referred to.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
