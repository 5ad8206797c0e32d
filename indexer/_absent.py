"""Files that the catalog has and the disk has not: gone, moved, or only away with a disk that is not mounted."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from indexer._tally import Tally
from indexer.library import KnownFile, Writer
from indexer.scan import display_path

_LARGEST_SHARE = 0.2
"""A folder that lacks more of its photos than this share, all of a sudden, is taken for one that is not mounted…"""
_FEWEST = 2
"""…if it lacks so many. Of a few photos, one is soon a fifth: who deletes one of four means it."""


@dataclasses.dataclass(slots=True)
class _Folder:
    root: Path
    present: int
    """Photos that the catalog had as present before the run."""
    marked: int = 0
    """Of them: recorded as missing already."""
    held: set[int] = dataclasses.field(default_factory=set)
    """Of them: ids of those that are not there, nothing of which is recorded yet."""
    by_digest: dict[str | None, list[int]] = dataclasses.field(default_factory=dict)
    """The held ones."""

    def hold(self, file: KnownFile) -> None:
        self.held.add(file.photo_id)
        self.by_digest.setdefault(file.digest, []).append(file.photo_id)


class AbsentFiles:
    """Decides, folder by folder, whether photos that are not there are recorded as missing."""

    def __init__(self, writer: Writer, tally: Tally, prune: bool) -> None:
        """With ``prune``, whatever is not there is missing."""
        self._writer = writer
        self._tally = tally
        self.prune = prune
        self._folders: dict[int, _Folder] = {}

    def scanned(self, folder_id: int, root: Path, present: int, vanished: Sequence[KnownFile]) -> None:
        """Of ``present`` photos, these are not in the folder. A few are recorded as missing at once."""
        folder = self._folders[folder_id] = _Folder(root, present)
        for file in vanished:
            folder.hold(file)
        if not self._suspicious(folder):
            self._mark(folder)

    def vanished(self, folder_id: int, file: KnownFile) -> None:
        """A file was there when the folder was scanned, and is not any more."""
        self._folders[folder_id].hold(file)

    def claim(self, folder_id: int, digest: str) -> int | None:
        """Id of a photo of that picture that is not at its place: a new file in the folder is that photo, moved."""
        folder = self._folders[folder_id]
        if not folder.by_digest.get(digest):
            return None
        found = folder.by_digest[digest].pop()
        folder.held.discard(found)
        return found

    def settle(self) -> list[str]:
        """After all files were read: record as missing what is, and say what was left as it is."""
        notes = []
        for folder in self._folders.values():
            if self._suspicious(folder) or not (self.prune or folder.root.is_dir()):
                notes.append(_left_alone(folder))
            else:
                self._mark(folder)
        return [note for note in notes if note]

    def _suspicious(self, folder: _Folder) -> bool:
        lacking = folder.marked + len(folder.held)
        return not self.prune and lacking >= _FEWEST and lacking > _LARGEST_SHARE * folder.present

    def _mark(self, folder: _Folder) -> None:
        self._writer.mark_missing(sorted(folder.held))
        self._tally.removed.update(folder.held)
        folder.marked += len(folder.held)
        folder.held, folder.by_digest = set(), {}


def not_mounted(root: Path) -> str:
    """What to tell of a folder that is gone, or has no photo any more."""
    return (
        f"{display_path(root)} is gone or empty, like a disk that is not mounted; its photos were left as they are. "
        f"{_for_good(root)}"
    )


def _left_alone(folder: _Folder) -> str:
    if not folder.held:
        return ""
    return (
        f"{len(folder.held):,} of {folder.present:,} photos in {display_path(folder.root)} are not there, as if a disk "
        f"were not mounted; they were left as they are. {_for_good(folder.root)}"
    )


def _for_good(root: Path) -> str:
    return f"If they are gone for good: photoseek index --prune {display_path(root)}"
