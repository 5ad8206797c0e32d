"""Ids of single vectors: numbers that tell the query tokens of all pictures apart."""

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import QUERY_TOKENS


def vector_ids(content_ids: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the vectors of these pictures' query tokens, 0…31 (shapes that broadcast): content_id · 32 + token."""
    return content_ids * QUERY_TOKENS + tokens
