"""What the last run of a process left behind, so that the next need not find it out again."""

import dataclasses
from pathlib import Path

from indexer.embedding import ModelIdentity
from indexer.scan import FolderChanges, FolderScan

CatalogVersion = tuple[str, int]
"""As `indexer.library.Writer.version` says it."""


@dataclasses.dataclass(slots=True)
class LastRun:
    """Folders in which there was nothing to do, and whether any picture lacked vectors.

    As long as the catalog has not changed since, a folder that looks as it did has no changes either: what a scan
    found is compared with what it found before, not with the catalog. Only a hash is kept of it.
    """

    _quiet: dict[Path, tuple[CatalogVersion, int, FolderChanges]] = dataclasses.field(default_factory=dict)
    complete: tuple[CatalogVersion, ModelIdentity] | None = None
    """The catalog in which every present picture had vectors of that model."""

    def changes(self, root: Path, version: CatalogVersion, scan: FolderScan) -> FolderChanges | None:
        """What a folder's scan means, if nothing has changed; None if that must be found out."""
        if root not in self._quiet:
            return None
        then, found, changes = self._quiet[root]
        return changes if (then, found) == (version, hash(scan)) else None

    def remember(self, root: Path, version: CatalogVersion, scan: FolderScan, changes: FolderChanges) -> None:
        """Keep what the scan meant with the catalog of that version."""
        if changes.nothing:
            self._quiet[root] = (version, hash(scan), changes)
        else:
            self._quiet.pop(root, None)
