import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from search.service._errors import busy

T = TypeVar("T")


class Workers:
    """A few threads with a short queue: what exceeds both is refused, so that a rush ends in 503s, not in a collapse.

    Used from the event loop only.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = threads + waiting

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; RequestRefused (503) when too much waits already."""
        if self._room == 0:
            raise busy("Too many requests at once. Try again.")
        self._room -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._room += 1

    def close(self) -> None:
        """Let running work end; drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)
