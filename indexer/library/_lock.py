"""One writer at a time: a lock of the operating system, which is gone when its process is, however it ended."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from indexer.errors import LibraryError, LibraryLocked


@contextlib.contextmanager
def writer_lock(directory: Path, wait: float = 0) -> Iterator[bool]:
    """Hold the library for writing. Gives whether all was well when it was last held: see `ended_well`.

    Raises LibraryLocked, with the number of the process that holds it, after ``wait`` seconds of trying.
    """
    lock = FileLock(directory / "writer.lock", thread_local=False)
    holder = _holder(directory)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise LibraryLocked(f"{_name(holder)} is writing to the library {directory}. Wait until it is done.") from None
    except OSError as error:
        raise LibraryError(f"The library {directory} cannot be written to: {error.strerror or error}.") from error
    try:
        well = not holder.exists()
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only the message will not say whose it is
            holder.write_text(f"{os.getpid()}\n")
        yield well
    finally:
        lock.release()


def ended_well(directory: Path) -> None:
    """Say, while it is held, that everything is finished. Who is killed, or fails, has not said so."""
    with contextlib.suppress(OSError):
        _holder(directory).unlink()


def _holder(directory: Path) -> Path:
    # Beside the lock, not in it: Windows lets nobody read a locked file.
    return directory / "writer.pid"


def _name(holder: Path) -> str:
    try:
        return f"Process {int(holder.read_text())}"
    except (OSError, ValueError):
        return "Another process"
