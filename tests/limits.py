"""Limits that a machine sets on a process, for a while."""

import contextlib
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def room_for_files(spare: int) -> Iterator[None]:
    """This process may open ``spare`` more files."""
    probes = [os.open(os.devnull, os.O_RDONLY) for _ in range(spare + 1)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probes[-1], before[1]))
    for probe in probes:
        os.close(probe)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
