"""What the embeddings of a photo look like, and which model made them.

The model makes them and the library keeps them; neither imports the other, so what both must agree on stands here.
"""

import dataclasses

QUERY_TOKENS = 32
"""Learned queries of the Q-Former: embeddings of one photo."""
EMBEDDING_SIZE = 256
"""Width of an embedding."""


@dataclasses.dataclass(frozen=True)
class ModelIdentity:
    """Which model made a vector. Vectors of two identities are never compared."""

    name: str
    """What ``load_model`` was asked for: a known name, or the absolute path of a directory."""
    revision: str
    """Version of a shipped checkpoint, commit of a Hub one, "local" of a directory."""
    digest: str
    """SHA-256 of the weights, hexadecimal."""
