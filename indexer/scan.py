"""Which photo files a folder holds, and how that differs from what the catalog knows of it."""

import contextlib
import dataclasses
import hashlib
import marshal
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from indexer.library import KnownFile
from indexer.suffixes import SUPPORTED


class FoundFile(NamedTuple):
    """A photo file on disk, not opened yet."""

    relative_path: str
    """Below the folder, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int


@dataclasses.dataclass(frozen=True, slots=True)
class FolderScan:
    """What is in a folder now."""

    files: tuple[tuple[str, int, int], ...]
    """What a `FoundFile` says, as plain tuples: making 100,000 of anything else takes longer than asking for their
    sizes. In the order of their paths, folder by folder."""
    unlistable: tuple[str, ...]
    """Folders that could not be listed, relative with forward slashes; "" is the folder itself. What is in them is
    unknown, which is not the same as gone."""
    leading_out: int = 0
    """Links to photo files outside the folder, which are left out."""

    def digest(self) -> str:
        """Of which files there are, in which states: hexadecimal, the same in any process."""
        # Version 2 writes equal values alike, whichever objects they are, and lone surrogates as well; it takes a
        # quarter of the time of JSON. Should another Python write them otherwise, a run is longer, once.
        found = marshal.dumps((self.files, self.unlistable), 2)
        return hashlib.blake2b(found, digest_size=16).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class FolderChanges:
    """A scan compared with the catalog."""

    to_read: tuple[tuple[FoundFile, KnownFile | None], ...]
    """New and changed files, with what is known of the changed ones."""
    returned: tuple[tuple[FoundFile, KnownFile], ...]
    """Files that were recorded as missing and are there again, unchanged."""
    unchanged: int
    still_failed: int
    """Unchanged files that failed before: they would fail again, and are not read."""
    vanished: tuple[KnownFile, ...]
    """Files that are gone."""
    present: int
    """Files that were recorded as present, the vanished ones among them."""

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.to_read or self.returned or self.vanished)


def outermost(folders: Sequence[Path]) -> list[Path]:
    """The folders with links resolved, without those that lie in another of them."""
    real = dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders)
    return [folder for folder in real if not any(folder != other and folder.is_relative_to(other) for other in real)]


def scan_folder(
    folder: Path,
    library: Path,
    on_progress: Callable[[int, str], None] = lambda _files, _folder: None,
    stopped: Callable[[], bool] = lambda: False,
) -> FolderScan:
    """Find the photo files below a folder.

    Hidden files and folders are left out, and so is whatever lies behind a link to a folder, or to a file outside the
    folder: links can lead anywhere and round in circles. So is the ``library`` directory, which has thumbnails.
    ``on_progress`` gets the number of files so far and the folder being listed. Once ``stopped`` says so, no further
    folder is listed: what has not been found by then may be there all the same.
    """
    excluded = os.path.realpath(library)
    files: list[tuple[str, int, int]] = []
    leading_out = 0
    unlistable: list[str] = []
    pending = [""]
    while pending and not stopped():
        inside = pending.pop()
        path = _below(folder, inside)
        on_progress(len(files), display_path(path))
        try:
            folders, out = _list(folder, inside, files)
        except OSError:
            unlistable.append(inside)
            continue
        leading_out += out
        pending.extend(each for each in reversed(folders) if _below(folder, each) != excluded)
    return FolderScan(tuple(files), tuple(unlistable), leading_out)


def lies_inside(path: Path | str, folder: Path) -> bool:
    """Whether what is at ``path``, with links followed, is in the folder or below it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _list(folder: Path, inside: str, files: list[tuple[str, int, int]]) -> tuple[list[str], int]:
    """Add the photo files of one folder; return the paths of the folders in it, and how many links lead out."""
    prefix = f"{inside}/" if inside else ""
    folders, leading_out = [], 0
    with _entries(_below(folder, inside)) as entries:
        named = {entry.name: entry for entry in entries}
        for name in sorted(named):
            if name.startswith("."):
                continue
            entry = named[name]
            linked = not entry.is_file(follow_symlinks=False)
            if linked and entry.is_dir(follow_symlinks=False):
                folders.append(prefix + name)
            elif name[name.rfind(".") :].lower() in SUPPORTED:
                try:
                    # Only of a link it takes more to know what it is: of what it leads to.
                    if linked and not entry.is_file():  # a FIFO, socket or device, or a link to one, or to nothing
                        continue
                    state = entry.stat()
                except OSError:  # gone since it was listed, or a link in a circle
                    continue
                if linked and not lies_inside(_below(folder, prefix + name), folder):
                    leading_out += 1
                else:
                    files.append((prefix + name, state.st_size, state.st_mtime_ns))
    return folders, leading_out


def _below(folder: Path, inside: str) -> str:
    # Text, not a Path: there may be nearly as many folders as files.
    return os.path.join(folder, inside) if inside else os.fspath(folder)  # noqa: PTH118


@contextlib.contextmanager
def _entries(folder: str) -> Iterator[Iterable["os.DirEntry[str]"]]:
    if os.scandir not in os.supports_fd:
        with os.scandir(folder) as entries:
            yield entries
        return
    # The system then looks for each file in the open folder, not along the whole path again.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def compare(
    scan: FolderScan, indexed: AbstractSet[tuple[str, int, int]], known: Mapping[str, KnownFile]
) -> FolderChanges:
    """What has changed in a folder since it was last recorded.

    ``indexed`` has the (path, size, mtime_ns) of the files that are recorded as present and indexed; ``known``, by
    path, what is recorded of those of them that are not found in just that state, and of all that are recorded as
    missing or failed.
    """
    new = [state for state in scan.files if state not in indexed]
    to_read: list[tuple[FoundFile, KnownFile | None]] = []
    returned: list[tuple[FoundFile, KnownFile]] = []
    still_failed = 0
    for file in (FoundFile(*state) for state in new):
        before = known.get(file.relative_path)
        if before is None or before.digest is None or (before.size, before.mtime_ns) != (file.size, file.mtime_ns):
            to_read.append((file, before))
        elif before.missing:
            returned.append((file, before))
        else:
            still_failed += 1
    there = {path for path, _, _ in new}
    vanished = tuple(
        known[path]
        for path in sorted(known.keys() - there)
        if not known[path].missing and not _is_below(path, scan.unlistable)
    )
    unchanged = len(scan.files) - len(new)
    present = unchanged + sum(not file.missing for file in known.values())
    return FolderChanges(tuple(to_read), tuple(returned), unchanged, still_failed, vanished, present)


def display_path(path: Path | str) -> str:
    """The path as text that can be printed and sent; names that are not UTF-8 get replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(not folder or path.startswith(f"{folder}/") for folder in folders)
