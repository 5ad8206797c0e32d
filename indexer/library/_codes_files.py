"""Files of codes in a library's directory: that of the compressed index, and what a killed process left."""

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


def codes_bytes(directory: Path) -> int:
    """What those there are take on the disk."""
    return sum(codes.stat().st_blocks * 512 for codes in directory.glob(_PATTERN))


def discard_codes(directory: Path, but: Path | None = None) -> None:
    """Delete those there are, ``but`` one. Raises OSError."""
    for other in directory.glob(_PATTERN):
        if other != but:
            other.unlink(missing_ok=True)
