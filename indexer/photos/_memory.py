"""How much memory a decoder process may take.

Limited only on Linux: Windows knows no such limit, and macOS does not keep to it.
"""

import contextlib
import os
import re
import sys
from pathlib import Path

MOST = 4 << 30
"""Bytes that the largest pictures need: they have a gigabyte of pixels in Pillow, and there are up to three copies of
them on the way to upright RGB."""
LEAST = 3 << 29
"""Bytes that a picture of 100 megapixels needs; a HEIC and a PNG with transparency take nearly as many."""


def decoder_memory(processes: int) -> int:
    """Bytes that each of so many decoder processes may take, beyond what it has when it starts.

    Together no more than half of `usable_memory`, unless that were less than `LEAST` for each.
    """
    return max(LEAST, min(MOST, usable_memory() // 2 // processes))


def limit_memory(more: int) -> None:
    """Let this process take so many bytes of address space beyond what it has now, but no more than it was allowed."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415  not on every system

    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + more
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = size if most == resource.RLIM_INFINITY else min(size, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, most))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of the machine, or of the least control group (cgroup v2) around this process, such as a container's; 0
    on a system where nothing is limited. ``root``: of the file system that says so.
    """
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return 0
    with contextlib.suppress(FileNotFoundError):
        for group in re.findall("^0::/(.*)$", (root / "proc/self/cgroup").read_text(), re.MULTILINE):
            own = root / "sys/fs/cgroup" / group
            limits += [limit for path in (own, *own.parents) if (limit := _limit(path / "memory.max")) is not None]
    return min(limits)


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:  # the outermost group has none; of a container, those around it are not seen
        return None
    return None if text == "max" else int(text)
