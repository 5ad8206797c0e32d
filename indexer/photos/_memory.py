"""How much address space a process may take.

Only on Linux: Windows knows no such limit, and macOS does not keep to it.
"""

import os
import sys
from pathlib import Path


def address_space() -> int:
    """Bytes that this process has taken; 0 where nothing is limited."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def limit_address_space(size: int) -> None:
    """Let this process take ``size`` bytes and no more, nor more than it was allowed before."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415  not on every system

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = size if most == resource.RLIM_INFINITY else min(size, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
