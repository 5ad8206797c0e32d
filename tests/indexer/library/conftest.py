from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.library import Library


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """A new library."""
    with Library.create(tmp_path / "library") as created:
        yield created


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder
