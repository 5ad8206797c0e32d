"""One writer at a time: a lock of the operating system, which is gone when its process is, however it ended."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from indexer.errors import LibraryError, LibraryLocked


@contextlib.contextmanager
def writer_lock(directory: Path, wait: float = 0) -> Iterator[None]:
    """Hold the library for writing.

    Raises LibraryLocked, with the number of the process that holds it, after ``wait`` seconds of trying.
    """
    lock = FileLock(directory / "writer.lock", thread_local=False)
    # Beside the lock, not in it: Windows lets nobody read a locked file.
    holder = directory / "writer.pid"
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise LibraryLocked(f"{_name(holder)} is writing to the library {directory}. Wait until it is done.") from None
    except OSError as error:
        raise LibraryError(f"The library {directory} cannot be written to: {error.strerror or error}.") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds, only the message will not say whose it is
            holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def _name(holder: Path) -> str:
    try:
        return f"Process {int(holder.read_text())}"
    except (OSError, ValueError):
        return "Another process"
