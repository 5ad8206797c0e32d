"""The library: what is known of the photos, in one directory. ``docs/library-format.md`` says what is in it."""

from indexer.library._last_run import LastRun, UnchangedFolder
from indexer.library._library import Library
from indexer.library._records import (
    Facet,
    Facets,
    FailureRecord,
    Filters,
    FolderStatus,
    IndexedFile,
    KnownContent,
    KnownFile,
    LibraryStatus,
    ModelRecord,
    Near,
    Neighbour,
    NewContent,
    PhotoRecord,
    Unembedded,
    VerifyReport,
)
from indexer.library._writer import Writer

__all__ = [
    "Facet",
    "Facets",
    "FailureRecord",
    "Filters",
    "FolderStatus",
    "IndexedFile",
    "KnownContent",
    "KnownFile",
    "LastRun",
    "Library",
    "LibraryStatus",
    "ModelRecord",
    "Near",
    "Neighbour",
    "NewContent",
    "PhotoRecord",
    "UnchangedFolder",
    "Unembedded",
    "VerifyReport",
    "Writer",
]
