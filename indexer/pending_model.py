"""The shipped model, loaded only once there is something to look at.

Importing PyTorch and loading a model takes seconds; a run that finds nothing new needs only to know which model it is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from indexer.compact_checkpoint import IMAGE_SIZE, SHIPPED, checkpoint_identity
from indexer.embedding import ModelIdentity
from indexer.errors import CheckpointInvalid

if TYPE_CHECKING:
    from indexer.model import Model

_SHIPPED = "compact"


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
        PendingModel(checkpoint_identity(SHIPPED, _SHIPPED), IMAGE_SIZE, load)
        if name == _SHIPPED and device in ("auto", "cpu")
        else load()
    )
