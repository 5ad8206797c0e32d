"""Processes that decode pictures for another: the spawning of one, and what it is set up with."""

import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from indexer.photos._memory import limit_memory

START_LIMIT = 120.0
"""Seconds from `spawn_decoder` until `set_up_decoder` has returned."""


def spawn_decoder(work: Callable[..., None], *arguments: object, name: str) -> tuple[SpawnProcess, Connection]:
    """A process that runs ``work(connection, *arguments)``, and this end of its connection. Raises OSError."""
    context = multiprocessing.get_context("spawn")  # never fork: torch and FAISS have threads in this process
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), name=name, daemon=True)
    with theirs:
        process.start()
    return process, ours


def set_up_decoder(memory: int) -> None:
    """Let this process decode quietly, with one thread, and in so many bytes of memory beyond what it has now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started it decides when to stop
    os.environ["OMP_NUM_THREADS"] = "1"  # LibRaw's; there is a process for every core already
    warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata…
    logging.disable()  # …and on odd TIFFs
    limit_memory(memory)
    _silence_libraries()


def _silence_libraries() -> None:
    """Keep what C libraries print about broken files off the terminal: each failure has its reason on record."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
