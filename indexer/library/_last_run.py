"""folders.unchanged: what a run without anything to do found, so that the next need not find it out again.

A JSON object in ASCII, in a file like those of the caches. It is never needed: where there is none, or none whole, or
where it cannot be written, a run looks into the catalog.
"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from indexer.embedding import ModelIdentity
from indexer.library._caches import read_whole, sealed

FILE_NAME = "folders.unchanged"
_VERSION = 1
"""Another whenever a run may find something to do in a folder that looks as it did."""


@dataclasses.dataclass(frozen=True, slots=True)
class UnchangedFolder:
    """A folder in which there was nothing to do."""

    scan: str
    """Digest of what was in it, hexadecimal."""
    indexed: int
    """Its files that are indexed."""
    failed: int
    """Its files that could not be indexed, and would fail again."""
    present: int
    """Files that the catalog has as present, those included that cannot be listed."""


@dataclasses.dataclass(frozen=True, slots=True)
class LastRun:
    """What was found of the catalog of that id and revision, and holds as long as it has these."""

    catalog: tuple[str, int]
    complete: ModelIdentity | None = None
    """The model of which every present picture had vectors."""
    folders: Mapping[str, UnchangedFolder] = dataclasses.field(default_factory=dict)
    """By path."""


def load_last_run(library: Path, catalog: tuple[str, int]) -> LastRun:
    """What the file in the library's directory says of the catalog; nothing if it is damaged or says nothing."""
    with contextlib.suppress(OSError):
        data = read_whole(library / FILE_NAME)
        document = {} if data is None else json.loads(data)
        if document.get("version") == _VERSION and document["catalog"] == list(catalog):
            model = document["complete"]
            folders = {name: UnchangedFolder(**folder) for name, folder in document["folders"].items()}
            return LastRun(catalog, None if model is None else ModelIdentity(**model), folders)
    return LastRun(catalog)


def save_last_run(library: Path, found: LastRun) -> None:
    """Replace the file as a whole; where that cannot be done, it stays as it is."""
    document = {"version": _VERSION, **dataclasses.asdict(found)}
    temporary = library / f"{FILE_NAME}.tmp"
    with contextlib.suppress(OSError):
        temporary.write_bytes(sealed(json.dumps(document).encode("ascii")))
        temporary.replace(library / FILE_NAME)
