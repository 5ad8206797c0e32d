"""What can be told of a compact model's checkpoint without PyTorch, which takes seconds to import."""

import hashlib
import json
from pathlib import Path

from indexer.embedding import ModelIdentity
from indexer.errors import CheckpointInvalid

SHIPPED = Path(__file__).parent / "model" / "checkpoints" / "compact"
"""The directory of the one that PhotoSeek comes with."""
IMAGE_SIZE = 224
"""Pixels on either side of the squares that a compact model looks at."""


def checkpoint_identity(directory: Path, name: str) -> ModelIdentity:
    """Which model the checkpoint in a directory is, under that name. Raises CheckpointInvalid if it cannot be read."""
    try:
        revision = str(json.loads((directory / "config.json").read_text(encoding="utf-8"))["revision"])
        with (directory / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"The checkpoint in {directory} cannot be read: {error}") from error
    return ModelIdentity(name, revision, digest)
