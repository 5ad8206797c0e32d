"""Opening one picture, whatever its format, as upright RGB."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from indexer.errors import PhotoUnreadable
from indexer.photos._pillow import Needed, Opened, open_pillow
from indexer.suffixes import RAW_SUFFIXES

MAX_BYTES = 1 << 30
"""The largest file that is read."""


def open_rgb(source: Path | BinaryIO, at_least: int | None = None) -> Image.Image:
    """Open a picture as upright 8-bit RGB: first frame, EXIF orientation applied, transparency on white.

    ``source`` is a file's path, or a stream positioned at the picture's first byte. ``at_least`` is how many pixels
    either side needs: JPEGs are then decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 that gives as many; a
    smaller picture comes as it is.

    Raises PhotoUnreadable: not a picture, truncated, empty, not a regular file, or more than `MAX_PIXELS`.
    """
    if isinstance(source, Path):
        data, suffix = read_bytes(source), source.suffix.lower()
    else:
        data, suffix = source.read(), ""
    return open_bytes(data, suffix, None if at_least is None else lambda _: (at_least, at_least)).image


def open_bytes(data: bytes, suffix: str, needed: Needed | None) -> Opened:
    """Open the picture in a file's bytes; ``suffix`` (lower case) tells RAW files, which look like TIFF, from TIFF.

    Raises PhotoUnreadable: as `open_rgb`.
    """
    if not data:
        raise PhotoUnreadable("the file is empty")
    if suffix in RAW_SUFFIXES:
        from indexer.photos._raw import open_raw  # noqa: PLC0415  LibRaw is large and seldom needed

        return open_raw(data, needed)
    return open_pillow(data, needed)


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular file.

    Raises PhotoUnreadable: absent, forbidden, not a regular file, or more than `MAX_BYTES`.
    """
    try:
        return read_regular(path)[0]
    except OSError as error:
        raise PhotoUnreadable(f"cannot be read: {error.strerror or error}") from error


def read_regular(path: Path) -> tuple[bytes, os.stat_result]:
    """All bytes of a regular file, and its state before they were read. Raises as `open_regular`."""
    file, state = open_regular(path)
    with file:
        # One more than there should be shows a file that has grown; Python takes memory for all that is asked for.
        return file.read(state.st_size + 1), state


def open_regular(path: Path) -> tuple[BinaryIO, os.stat_result]:
    """A regular file, opened to be read, and its state. One's own file keeps the time when it was last read.

    Raises PhotoUnreadable: not a regular file, or more than `MAX_BYTES`; OSError: the system cannot open it.
    """
    # Opening a FIFO waits for a writer, and opening a device may do anything: look before opening, and do not wait
    # should the file be replaced between the two.
    _refuse_irregular(path.stat())
    file = open(_descriptor(path), "rb")  # noqa: SIM115  the caller closes it
    try:
        state = os.fstat(file.fileno())
        _refuse_irregular(state)
    except BaseException:
        file.close()
        raise
    return file, state


def _descriptor(path: Path) -> int:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # also for a file of another user, which may be read, but not unseen
        return os.open(path, flags)


def _refuse_irregular(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise PhotoUnreadable("not a regular file")
    if state.st_size > MAX_BYTES:
        raise PhotoUnreadable(f"the file has {state.st_size:,} bytes; more than {MAX_BYTES:,} are not read")
