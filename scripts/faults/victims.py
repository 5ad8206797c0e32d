"""The processes that are killed, forked from one that has imported all and loaded the model, so each starts at once.

The module is imported by multiprocessing's fork server, with one thread for PyTorch: a process that never started more
may be forked.
"""

import dataclasses
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from indexer.library import Library
from indexer.model import ImageFeatures, Model, load_model
from indexer.pipeline import index_folders
from search.service import ServiceSettings, serve

torch.set_num_threads(1)
_MODEL = load_model("compact", "cpu")


@dataclasses.dataclass
class _SmallBatches:
    """A model a few photos at a time, so that a few photos are many transactions."""

    model: Model
    batch_size: int = 4

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        return self.model.encode_images(pixels)


def index(said: Connection, directory: Path, folder: Path, prune: bool, exact_up_to: int) -> None:
    """Index; say each stage, and at last how many photos failed. Of more pictures than ``exact_up_to``, the index of
    vectors is compressed.
    """
    Library.create(directory).close()
    with Library.open(directory, exact_up_to) as library:
        summary = index_folders(
            library,
            _SmallBatches(_MODEL),
            [folder],
            on_progress=lambda progress: said.send(progress.stage),
            workers=1,
            prune=prune,
        )
    said.send(summary.failed)


def serve_library(directory: Path, port: int) -> None:
    """Serve until killed."""
    serve(ServiceSettings(library=directory, device="cpu", port=port))
