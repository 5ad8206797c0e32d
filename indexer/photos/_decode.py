"""From a photo file to what the model and the library want of it."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.facts import PhotoFacts
from indexer.photos._open import open_bytes, read_bytes
from indexer.photos._pillow import Opened

THUMBNAIL_SIDE = 512
"""Longest side of a thumbnail, in pixels."""
LEAST_THUMBNAIL_SIDE = 480
"""So small a thumbnail will do, where it takes less time to make than one of `THUMBNAIL_SIDE`: a JPEG of 12 megapixels,
which phones take, is decoded at an eighth of its size, 500 pixels wide: all in all 16 ms instead of 23."""
_THUMBNAIL_QUALITY = 78


@dataclasses.dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """One photo, read."""

    facts: PhotoFacts
    pixels: NDArray[np.uint8]
    """(S, S, 3) RGB, squashed to the model's square."""
    thumbnail: bytes | None
    """WebP, longest side at most `THUMBNAIL_SIDE`; None if none was asked for."""


def read_photo(path: Path, image_size: int, thumbnail: bool = True) -> DecodedPhoto:
    """Read a photo file, for a model that looks at squares of ``image_size`` (S) pixels.

    Raises PhotoUnreadable: the file cannot be read or decoded; the message is the reason.
    """
    return decode(read_bytes(path), path.suffix.lower(), image_size, thumbnail)


def read_pixels(path: Path, image_size: int) -> NDArray[np.uint8]:
    """Only the pixels of `read_photo`: (S, S, 3) RGB. Raises PhotoUnreadable."""
    return read_photo(path, image_size, thumbnail=False).pixels


def decode(data: bytes, suffix: str, image_size: int, thumbnail: bool = True) -> DecodedPhoto:
    """As `read_photo`, from the bytes of a file with that suffix (lower case, with the dot).

    Raises PhotoUnreadable: the bytes cannot be decoded; the message is the reason.
    """

    def needed(size: tuple[int, int]) -> tuple[int, int]:
        small = thumbnail_size(*size, LEAST_THUMBNAIL_SIDE) if thumbnail else (1, 1)
        return max(image_size, small[0]), max(image_size, small[1])

    opened = open_bytes(data, suffix, needed)
    return DecodedPhoto(
        facts=_facts(opened),
        pixels=squash(opened.image, image_size),
        thumbnail=_thumbnail(opened) if thumbnail else None,
    )


def squash(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """An RGB image as (S, S, 3): bicubic, the aspect ratio given up and nothing cropped, as BLIP-2's processor does."""
    return np.array(image.resize((image_size, image_size), Image.Resampling.BICUBIC))


def thumbnail_size(width: int, height: int, side: int = THUMBNAIL_SIDE) -> tuple[int, int]:
    """(width, height) of a thumbnail with that longest side: never larger than the picture, no side below one pixel."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _thumbnail(opened: Opened) -> bytes:
    size = thumbnail_size(opened.width, opened.height)
    # What was decoded may be smaller than the thumbnail, and so may a RAW file's preview; it is not enlarged.
    if size[0] > opened.image.width:
        size = thumbnail_size(*opened.image.size)
    # Else in two steps, the first a box: half the time of one over all pixels. Lanczos would take twice the time, and
    # differ from this by a quarter of what the compression does to it.
    small = _whole_steps(opened.image) or opened.image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    encoded = io.BytesIO()
    # The default method 4 takes four times the time, for a file a fifth smaller.
    small.save(encoded, "WEBP", quality=_THUMBNAIL_QUALITY, method=0)
    return encoded.getvalue()


def _whole_steps(image: Image.Image) -> Image.Image | None:
    """The image made smaller by a whole number, if that gives a thumbnail: each pixel is the mean of a square.

    Photos of 48 megapixels are decoded 1,000 pixels wide: half of that takes a sixth of the time in which a filter
    makes 512 pixels of it.
    """
    side = max(image.size)
    factor = -(-side // THUMBNAIL_SIDE)
    return image.reduce(factor) if factor > 1 and side >= factor * LEAST_THUMBNAIL_SIDE else None


def _facts(opened: Opened) -> PhotoFacts:
    return PhotoFacts(
        width=opened.width,
        height=opened.height,
        format=opened.format,
        taken_at=opened.exif.taken_at,
        camera=opened.exif.camera,
        latitude=opened.exif.latitude,
        longitude=opened.exif.longitude,
    )
