"""Results from the device to the CPU, while the device works on."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class Fetch:
    """Tensors on their way to the CPU: from a GPU into pinned memory, at once where they are there already."""

    def __init__(self, *tensors: Tensor) -> None:
        """All of them on one device. Returns while they are still being computed."""
        self._arrived: torch.cuda.Event | None = None
        self._values = tensors
        if tensors[0].is_cuda:
            self._values = tuple(
                torch.empty(each.shape, dtype=each.dtype, pin_memory=True).copy_(each, non_blocking=True)
                for each in tensors
            )
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait(self) -> tuple[NDArray[Any], ...]:
        """Their values, once they have arrived. Raises what the device failed with meanwhile."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return tuple(each.numpy() for each in self._values)
