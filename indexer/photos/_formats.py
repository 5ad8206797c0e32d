"""Which files are photos, by their names, and what their formats are called."""

from pathlib import PurePath

import pillow_heif
from PIL import Image

RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip

SUPPORTED = RAW_SUFFIXES | frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".heic", ".heif",
    ".hif", ".avif",
})  # fmt: skip
"""Suffixes of photo files, in lower case, with the dot."""

FORMAT_NAMES = {
    "JPEG": "JPEG",
    "MPO": "JPEG",  # a JPEG with more pictures behind it: Pillow's name for most phone photos
    "PNG": "PNG",
    "WEBP": "WEBP",
    "GIF": "GIF",
    "TIFF": "TIFF",
    "BMP": "BMP",
    "DIB": "BMP",
    "HEIF": "HEIF",
    "AVIF": "AVIF",
}
"""What Pillow calls a format → what `PhotoFacts.format` calls it. No other format is opened, whatever Pillow knows."""

Image.init()  # Pillow loads the rarer formats only on a second look, which naming the formats skips
# Thumbnails inside a HEIC may be cropped, so they never stand in for the picture. One thread: workers fill the cores.
pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
OPENED_FORMATS = tuple(name for name in FORMAT_NAMES if name in Image.OPEN)
"""What to name when opening: an MPO is opened as the JPEG that it begins with."""


def is_supported(name: str | PurePath) -> bool:
    """Whether a file of that name is a photo, by its suffix."""
    return PurePath(name).suffix.lower() in SUPPORTED
