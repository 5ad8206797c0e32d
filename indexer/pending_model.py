"""The shipped model, loaded only once there is something to look at.

Importing PyTorch and loading a model takes seconds; a run that finds nothing new needs only to know which model it is.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.embedding import ModelIdentity
from indexer.errors import CheckpointInvalid

if TYPE_CHECKING:
    from indexer.model import Model

_SHIPPED = "compact"
_SHIPPED_IMAGE_SIZE = 224
_CHECKPOINT = Path(__file__).parent / "model" / "checkpoints" / _SHIPPED


@dataclasses.dataclass(frozen=True, slots=True)
class PendingModel:
    """A model of which nothing is known so far but what a run begins with."""

    identity: ModelIdentity
    image_size: int
    """As `indexer.model.Model.image_size`: photos are decoded before it is loaded."""
    _load: Callable[[], "Model"]

    def load(self) -> "Model":
        """The model itself; loaded once.

        Raises as `indexer.model.load_model`, and CheckpointInvalid if it is another by now.
        """
        model = self._load()
        if (model.identity, model.image_size) != (self.identity, self.image_size):
            raise CheckpointInvalid(f"The model {self.identity.name} has changed since the run began. Start again.")
        return model


def model_when_needed(name: str, device: str, *, compiled: bool = False) -> "Model | PendingModel":
    """As `indexer.model.load_model`, but the shipped model is loaded later unless it is to run on a certain GPU, which
    may not be there. Raises as it does.
    """

    @functools.cache
    def load() -> "Model":
        from indexer.model import load_model  # noqa: PLC0415 - imports PyTorch

        return load_model(name, device, compiled=compiled)

    return (
        PendingModel(shipped_identity(), _SHIPPED_IMAGE_SIZE, load)
        if name == _SHIPPED and device in ("auto", "cpu")
        else load()
    )


def shipped_identity() -> ModelIdentity:
    """Which model the shipped checkpoint is. Raises CheckpointInvalid."""
    try:
        revision = str(json.loads((_CHECKPOINT / "config.json").read_text(encoding="utf-8"))["revision"])
        with (_CHECKPOINT / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointInvalid(f"The checkpoint in {_CHECKPOINT} cannot be read: {error}") from error
    return ModelIdentity(_SHIPPED, revision, digest)
