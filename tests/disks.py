"""Disks that are full, or read-only."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path


def remount(disk: Path, options: str) -> None:
    """Change a disk of the fixture ``disk``."""
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def leave_room(disk: Path, size: int) -> None:
    """Make the disk so small that only ``size`` bytes are free."""
    state = os.statvfs(disk)
    remount(disk, f"size={(state.f_blocks - state.f_bfree) * state.f_frsize + size}")


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As if the disk were full for whoever writes a larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
