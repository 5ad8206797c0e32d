"""A decoder process: reads each file once, says what its digest is, and decodes it if that is wanted."""

import hashlib
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from indexer.errors import PhotoUnreadable
from indexer.photos._decode import DecodedPhoto, decode
from indexer.photos._open import read_regular
from indexer.photos._pillow import decoding
from indexer.photos._process import set_up_decoder

_DIGEST_BYTES = 16
_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 0.2
MOST_AHEAD = 32 << 20
"""Bytes of a file that is read while another waits to be decoded; of a larger one there is no more than one."""


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


class Later(NamedTuple):
    """The file is too large to be read ahead. Ask again when the one that was read is decoded."""


class Step(NamedTuple):
    """What a process is told: what to do with the file that it read last, and which to read next."""

    decode: bool
    then: str | None
    """A path. It is read first: whether it is wanted can be found out while the other is decoded."""


def work(connection: Connection, image_size: int, memory_limit: int) -> None:
    """Serve one connection until it closes, in no more than so many bytes of memory beyond what the process has now.

    For each `Step` received: for ``then``, send `Read`, `Gone`, `Unreadable` or `Later`; then, if told to ``decode``,
    a `DecodedPhoto` or `Unreadable` of the file that was `Read` in the step before.
    """
    set_up_decoder(memory_limit + MOST_AHEAD)
    held: _File | None = None
    try:
        connection.send(None)
        while True:
            step: Step = connection.recv()
            held = _take(connection, step, held if step.decode else None, image_size)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _File(NamedTuple):
    data: bytes
    suffix: str


def _take(connection: Connection, step: Step, wanted: _File | None, image_size: int) -> _File | None:
    """One step: reads a file, which is returned, and decodes the one before."""
    ahead = None if step.then is None else _serve(connection, Path(step.then), MOST_AHEAD if wanted else None)
    if wanted is not None:
        connection.send(_decoded(wanted, image_size))
    return ahead


def _serve(connection: Connection, path: Path, most: int | None) -> _File | None:
    """Read a file, unless it has more than so many bytes."""
    answer: Read | Later | Gone | Unreadable
    data = b""
    try:
        if most is not None and path.stat().st_size > most:
            answer = Later()
        else:
            data, answer = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        answer = Gone()
    except Exception as error:
        answer = Unreadable(_why_unread(error))
    connection.send(answer)
    return _File(data, path.suffix.lower()) if isinstance(answer, Read) else None


def _decoded(file: _File, image_size: int) -> DecodedPhoto | Unreadable:
    try:
        with decoding():
            return decode(file.data, file.suffix, image_size)
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
