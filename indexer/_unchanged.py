"""Folders that look as they did to a run before, so that none need find out again that there is nothing to do."""

from pathlib import Path

from indexer.embedding import ModelIdentity
from indexer.library import LastRun, UnchangedFolder, Writer
from indexer.scan import FolderChanges, FolderScan


class UnchangedFolders:
    """What the runs before found in a catalog that has not changed since, and what this one finds.

    As long as the catalog has not changed, a folder that looks as it did has no changes either: what a scan finds is
    compared with the digest of what one found before, not with the catalog.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._before = writer.last_run()
        self._complete = self._before.complete
        self._folders = dict(self._before.folders)

    def changes(self, root: Path, scan: FolderScan) -> FolderChanges | None:
        """What a folder's scan means, if nothing has changed; None if that must be found out."""
        known = self._folders.get(str(root))
        if known is None or not self._holds() or known.scan != scan.digest():
            return None
        return FolderChanges((), (), known.indexed, known.failed, (), known.present)

    def remember(self, root: Path, scan: FolderScan, changes: FolderChanges) -> None:
        """Note what the scan meant."""
        if changes.nothing:
            self._folders[str(root)] = UnchangedFolder(
                scan.digest(), changes.unchanged, changes.still_failed, changes.present
            )
        else:
            self._folders.pop(str(root), None)

    def complete(self, model: ModelIdentity) -> bool:
        """Whether every present picture is known to have vectors of the model."""
        return self._complete == model and self._holds()

    def remember_complete(self, model: ModelIdentity | None) -> None:
        """Note the model of which every present picture has vectors, if there is one."""
        self._complete = model

    def keep(self) -> None:
        """Leave it to the next run, unless this one has changed the catalog."""
        found = LastRun(self._before.catalog, self._complete, self._folders)
        if found != self._before and self._holds():
            self._writer.keep_last_run(found)

    def _holds(self) -> bool:
        return self._writer.version() == self._before.catalog
