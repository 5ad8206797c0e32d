"""How the tokens that the matching head attends to are kept: in 8 bits, with one scale a channel.

The model makes and reads them and the library keeps them; neither imports the other, so the form stands here.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class QuantisedTokens:
    """N tokens of width D of one photo: ``values * scales``."""

    values: NDArray[np.int8]
    """(N, D), from -127 to 127."""
    scales: NDArray[np.float32]
    """(D,), at least 0; 0 for a channel that is 0 in every token."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        count, width = self.values.shape
        return count, width
