"""What an indexing run has to read."""

import dataclasses
from pathlib import Path

from indexer.library import KnownFile


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A file to read."""

    path: Path
    folder_id: int = 0
    relative_path: str = ""
    before: KnownFile | None = None
    """What the catalog knows of it."""
    only_picture: str | None = None
    """A digest: the file is recorded already, and its picture is to get vectors of another model."""
