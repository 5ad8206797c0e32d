"""Opening one picture, whatever its format, as upright RGB."""

import contextlib
import dataclasses
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from indexer.errors import PhotoUnreadable
from indexer.photos._exif import ExifFacts, read_exif
from indexer.photos._formats import FORMAT_NAMES, OPENED_FORMATS, RAW_SUFFIXES
from indexer.photos._modes import to_rgb

MAX_PIXELS = 256_000_000
"""The largest picture that is decoded: more than the 201 megapixels of phones, less than fills a small machine."""
MAX_BYTES = 1 << 30
"""The largest file that is read."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow warns from here on, and we refuse

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes it upright. `ImageOps.exif_transpose` also rewrites the EXIF block and fails if that
is broken."""

Needed = Callable[[tuple[int, int]], tuple[int, int]]
"""From the (width, height) of a picture to the least (width, height) that must be decoded of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """An upright RGB picture and what its file says."""

    image: Image.Image
    """RGB, perhaps at reduced scale."""
    width: int
    """Of the picture in the file, upright."""
    height: int
    format: str
    exif: ExifFacts


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


def open_pillow(data: bytes, needed: Needed | None) -> Opened:
    """Open a picture of a format that Pillow reads.

    Raises PhotoUnreadable: as `open_rgb`.
    """
    with decoding(), Image.open(io.BytesIO(data), formats=OPENED_FORMATS) as image:
        width, height = image.size
        refuse_huge(width, height)
        if needed is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, needed(image.size))
        image.load()
        exif = read_exif(image)  # after load: only then does a TIFF say whether Pillow has turned it already
        rgb = upright(to_rgb(image), exif.orientation)
        if exif.orientation >= 5:
            width, height = height, width
        return Opened(rgb, width, height, FORMAT_NAMES[image.format or ""], exif)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as its EXIF orientation, 1…8, says it should be seen."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def refuse_huge(width: int, height: int) -> None:
    """Raise PhotoUnreadable for a picture of no pixels or of too many."""
    if width < 1 or height < 1:
        raise PhotoUnreadable(f"the picture has no pixels ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise PhotoUnreadable(
            f"the picture has {width}×{height} pixels; more than {MAX_PIXELS // 10**6} megapixels are not decoded"
        )


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever a decoder raises into PhotoUnreadable with a reason for a person."""
    try:
        yield
    except PhotoUnreadable:
        raise
    except UnidentifiedImageError:
        raise PhotoUnreadable("not a picture in a format that PhotoSeek reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoUnreadable(f"more than {MAX_PIXELS // 10**6} megapixels are not decoded") from None
    except MemoryError:
        raise PhotoUnreadable("not enough memory to decode the picture") from None
    except Exception as error:  # decoders fail with a dozen kinds of error, and all of them mean the same
        raise PhotoUnreadable(f"cannot be decoded: {str(error).strip() or type(error).__name__}") from error


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular file.

    Raises PhotoUnreadable: absent, forbidden, not a regular file, or more than `MAX_BYTES`.
    """
    try:
        return read_regular(path)[0]
    except OSError as error:
        raise PhotoUnreadable(f"cannot be read: {error.strerror or error}") from error


def read_regular(path: Path) -> tuple[bytes, os.stat_result]:
    """All bytes of a regular file, and its state before they were read.

    Raises PhotoUnreadable: not a regular file, or more than `MAX_BYTES`; OSError: the system cannot read it.
    """
    # Opening a FIFO waits for a writer, and opening a device may do anything: look before opening, and do not wait
    # should the file be replaced between the two.
    _refuse_irregular(path.stat())
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor, not a path
        state = os.fstat(descriptor)
        _refuse_irregular(state)
        return file.read(MAX_BYTES + 1), state


def _refuse_irregular(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise PhotoUnreadable("not a regular file")
    if state.st_size > MAX_BYTES:
        raise PhotoUnreadable(f"the file has {state.st_size:,} bytes; more than {MAX_BYTES:,} are not read")
