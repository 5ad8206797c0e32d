"""A decoder process: reads a file once, says what its digest is, and decodes it if that is wanted."""

import hashlib
import os
import signal
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from indexer.errors import PhotoUnreadable
from indexer.photos._decode import DecodedPhoto, decode
from indexer.photos._memory import limit_memory
from indexer.photos._open import read_regular
from indexer.photos._pillow import decoding

_DIGEST_BYTES = 16
_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 0.2


class Read(NamedTuple):
    """A file was read: these are its bytes' digest and its state, of one moment."""

    digest: str
    """BLAKE2b-128, hexadecimal."""
    size: int
    mtime_ns: int


class Gone(NamedTuple):
    """There is no file of that name any more."""


class Unreadable(NamedTuple):
    """The file cannot be read, or not be decoded."""

    reason: str


def work(connection: Connection, image_size: int, memory_limit: int) -> None:
    """Serve one connection until it closes, in no more than so many bytes of memory beyond what the process has now.

    For each path received: send `Read`, `Gone` or `Unreadable`; after `Read`, receive whether to decode, and if so
    send a `DecodedPhoto` or `Unreadable`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pipeline decides when to stop
    os.environ["OMP_NUM_THREADS"] = "1"  # LibRaw's; there is a process for every core already
    warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
    limit_memory(memory_limit)
    _silence_libraries()
    try:
        connection.send(None)
        while True:
            _serve_one(connection, Path(connection.recv()), image_size)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _silence_libraries() -> None:
    """Keep what C libraries print about broken files off the terminal: each failure has its reason on record."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _serve_one(connection: Connection, path: Path, image_size: int) -> None:
    try:
        data, read = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return connection.send(Gone())
    except Exception as error:
        return connection.send(Unreadable(_why_unread(error)))
    connection.send(read)
    if connection.recv():
        connection.send(_decoded(data, path.suffix.lower(), image_size))
    return None


def _decoded(data: bytes, suffix: str, image_size: int) -> DecodedPhoto | Unreadable:
    try:
        with decoding():
            return decode(data, suffix, image_size)
    except PhotoUnreadable as error:
        return Unreadable(str(error))


def _read(path: Path) -> tuple[bytes, Read]:
    """The bytes of a file that stood still while they were read."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
        data, before = read_regular(path)
        after = path.stat()
        if len(data) == before.st_size and _state(before) == _state(after):
            digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
            return data, Read(digest, before.st_size, before.st_mtime_ns)
    raise PhotoUnreadable("the file kept changing while it was read; it is read again in the next run")


def _why_unread(error: Exception) -> str:
    match error:
        case PhotoUnreadable():
            return str(error)
        case MemoryError():
            return "not enough memory to read the file"
        case OSError(strerror=str(reason)):
            return f"cannot be read: {reason}"
        case _:
            return f"cannot be read: {str(error) or type(error).__name__}"


def _state(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_size, state.st_mtime_ns
