"""Files of codes in a library's directory: that of the compressed index, and what a killed process left."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from uuid import uuid4

_PATTERN = f"vectors-{'[0-9a-f]' * 8}.codes"


def new_codes_file(directory: Path) -> Path:
    """A path that no file of codes has had before."""
    return directory / f"vectors-{uuid4().hex[:8]}.codes"


def is_codes_file(name: str) -> bool:
    """Whether a file of this name would be one."""
    return fnmatchcase(name, _PATTERN)


def codes_files(directory: Path) -> Iterator[Path]:
    """Those there are."""
    return directory.glob(_PATTERN)
