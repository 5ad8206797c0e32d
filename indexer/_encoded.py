"""What a model made of a batch of photos."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from indexer.tokens import QuantisedTokens


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """One batch, encoded."""

    digests: tuple[str, ...]
    embeddings: NDArray[np.float16]
    """(B, 32, 256)."""
    tokens: list[QuantisedTokens]
