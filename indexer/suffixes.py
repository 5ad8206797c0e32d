"""Which files are photos, by their names: all that a scan needs to know, so that it need not wait for Pillow."""

from pathlib import PurePath

RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip

SUPPORTED = RAW_SUFFIXES | frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".heic", ".heif",
    ".hif", ".avif",
})  # fmt: skip
"""Suffixes of photo files, in lower case, with the dot."""


def is_supported(name: str | PurePath) -> bool:
    """Whether a file of that name is a photo, by its suffix."""
    return PurePath(name).suffix.lower() in SUPPORTED
