"""Which folders may be indexed over HTTP."""

import os
from collections.abc import Sequence
from pathlib import Path

from indexer.errors import FolderNotFound
from indexer.library import Library
from search.document import printable
from search.service._errors import RequestRefused


class AllowedFolders:
    """The folders that the service was started with and those that its library has, each with all below it."""

    def __init__(self, library: Library, allowed: Sequence[Path]) -> None:
        self._library = library
        self._allowed = tuple(_real(folder) for folder in allowed)

    def resolve(self, asked: str) -> Path:
        """The folder that is asked for, with links resolved.

        Raises RequestRefused (403) when it may not be indexed, whether it exists or not: what else is on the disk is
        nobody's business. Raises FolderNotFound when it is no whole path, or allowed and no folder; a folder that the
        library has may be gone: indexing it tells what that means.
        """
        folder = _expanded(asked)
        if not folder.is_absolute() or "\0" in asked:
            raise FolderNotFound(f"{asked} is not a whole path. Give it from the root, such as /home/ada/Pictures.")
        real = _real(folder)
        indexed = self._library.folders()
        if not any(real.is_relative_to(each) for each in (*self._allowed, *indexed)):
            raise RequestRefused(
                403,
                "folder_not_allowed",
                f"{printable(folder)} is not among the folders that may be indexed from here. Index it on the "
                f"service's machine with photoseek index, or start the service with --allow-folder.",
            )
        if real not in indexed and not os.path.isdir(real):  # noqa: PTH112  Path.is_dir raises where a folder above cannot be entered
            raise FolderNotFound(f"There is no folder {printable(folder)} on the service's machine. Check the path.")
        return real


def _expanded(asked: str) -> Path:
    # Not "~ada": whether there is such a user is nobody's business either.
    try:
        return Path(asked).expanduser() if asked == "~" or asked.startswith("~/") else Path(asked)
    except RuntimeError:  # its user has no home
        return Path(asked)


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))
