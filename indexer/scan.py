"""Which photo files a folder holds, and how that differs from what the catalog knows of it."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from indexer.library import KnownFile
from indexer.photos import SUPPORTED


@dataclasses.dataclass(frozen=True, slots=True)
class FoundFile:
    """A photo file on disk, not opened yet."""

    relative_path: str
    """Below the folder, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int


@dataclasses.dataclass(frozen=True, slots=True)
class FolderScan:
    """What is in a folder now."""

    files: tuple[FoundFile, ...]
    """In the order of their paths, folder by folder."""
    unlistable: tuple[str, ...]
    """Folders that could not be listed, relative with forward slashes; "" is the folder itself. What is in them is
    unknown, which is not the same as gone."""
    leading_out: int = 0
    """Links to photo files outside the folder, which are left out."""


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


def outermost(folders: Sequence[Path]) -> list[Path]:
    """The folders with links resolved, without those that lie in another of them."""
    real = dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders)
    return [folder for folder in real if not any(folder != other and folder.is_relative_to(other) for other in real)]


def scan_folder(
    folder: Path, library: Path, on_progress: Callable[[int, str], None] = lambda _files, _folder: None
) -> FolderScan:
    """Find the photo files below a folder.

    Hidden files and folders are left out, and so is whatever lies behind a link to a folder, or to a file outside the
    folder: links can lead anywhere and round in circles. So is the ``library`` directory, which has thumbnails.
    ``on_progress`` gets the number of files so far and the folder being listed.
    """
    library = Path(os.path.realpath(library))
    files: list[FoundFile] = []
    leading_out = 0
    unlistable: list[str] = []
    pending = [""]
    while pending:
        inside = pending.pop()
        on_progress(len(files), display_path(folder / inside))
        try:
            with os.scandir(folder / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            unlistable.append(inside)
            continue
        below = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir(follow_symlinks=False):
                if folder / path != library:
                    below.append(path)
            elif (found := _photo_file(entry, path)) is not None:
                if entry.is_symlink() and not lies_inside(Path(entry.path), folder):
                    leading_out += 1
                else:
                    files.append(found)
        pending.extend(reversed(below))
    return FolderScan(tuple(files), tuple(unlistable), leading_out)


def lies_inside(path: Path, folder: Path) -> bool:
    """Whether what is at ``path``, with links followed, is in the folder or below it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def compare(scan: FolderScan, known: Mapping[str, KnownFile]) -> FolderChanges:
    """What has changed in a folder since it was last recorded."""
    to_read: list[tuple[FoundFile, KnownFile | None]] = []
    returned: list[tuple[FoundFile, KnownFile]] = []
    unchanged = still_failed = 0
    for file in scan.files:
        before = known.get(file.relative_path)
        if before is None or before.digest is None or (before.size, before.mtime_ns) != (file.size, file.mtime_ns):
            to_read.append((file, before))
        elif before.missing:
            returned.append((file, before))
        elif before.failed:
            still_failed += 1
        else:
            unchanged += 1
    there = {file.relative_path for file in scan.files}
    vanished = tuple(
        file
        for path, file in known.items()
        if path not in there and not file.missing and not _is_below(path, scan.unlistable)
    )
    present = sum(not file.missing for file in known.values())
    return FolderChanges(tuple(to_read), tuple(returned), unchanged, still_failed, vanished, present)


def display_path(path: Path) -> str:
    """The path as text that can be printed and sent; names that are not UTF-8 get replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")


def _photo_file(entry: os.DirEntry[str], path: str) -> FoundFile | None:
    if os.path.splitext(entry.name)[1].lower() not in SUPPORTED:  # noqa: PTH122  half the time of a Path
        return None
    try:
        if not entry.is_file():  # follows a link to a file; a FIFO, socket or device is none
            return None
        state = entry.stat()
    except OSError:  # gone since it was listed, or a link in a circle
        return None
    return FoundFile(path, state.st_size, state.st_mtime_ns)


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(not folder or path.startswith(f"{folder}/") for folder in folders)
