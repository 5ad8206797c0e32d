"""Valid picture files in every format and mode that PhotoSeek reads."""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageCms

import indexer.photos  # noqa: F401  registers HEIF with Pillow
from tests.indexer.photos.pictures import dng

Maker = Callable[[Image.Image, random.Random], bytes]
"""From a small RGB picture to the bytes of a file."""

_GREY_16 = ("I;16", "I;16B")


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """As a file of that kind."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in any mode of Pillow."""
    if mode in _GREY_16:
        levels = np.asarray(picture.convert("L")).astype(">u2" if mode.endswith("B") else "<u2") * 257
        return Image.frombytes(mode, picture.size, levels.tobytes())
    if mode in ("I", "F"):
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.int32 if mode == "I" else np.float32) * 100)
    if mode == "LAB":
        converted = ImageCms.profileToProfile(
            picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        assert converted is not None
        return converted
    if mode in ("RGBA", "LA"):
        changed = picture.convert(mode)
        changed.putalpha(picture.convert("L"))
        return changed
    return picture.convert(mode)


def _plain(kind: str, mode: str, **options: Any) -> Maker:
    return lambda picture, _: saved(in_mode(picture, mode), kind, **options)


def _several(kind: str, **options: Any) -> Maker:
    """Animated, or of several pages."""

    def make(picture: Image.Image, _: random.Random) -> bytes:
        others = [picture.transpose(Image.Transpose.ROTATE_180), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
        return saved(picture, kind, save_all=True, append_images=others, **options)

    return make


def _exif(kind: str, size: int) -> Maker:
    """With EXIF that begins like EXIF and goes on like nothing."""
    return lambda picture, chance: saved(picture, kind, exif=b"Exif\0\0II*\0\x08\0\0\0" + chance.randbytes(size))


def _icc(kind: str) -> Maker:
    return lambda picture, chance: saved(picture, kind, icc_profile=chance.randbytes(3000))


def _turned(kind: str) -> Maker:
    def make(picture: Image.Image, chance: random.Random) -> bytes:
        exif = Image.Exif()
        exif[0x0112], exif[0x0110], exif[0x0132] = chance.randint(0, 9), "Camera", "2020:02:30 25:61:61"
        return saved(picture, kind, exif=exif)

    return make


def _png_16(picture: Image.Image, _: random.Random) -> bytes:
    """RGB of 16 bits, which Pillow reads and does not write."""
    rows = (np.asarray(picture).astype(">u2") * 257).reshape(picture.height, -1)
    return png(*picture.size, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG of rows that each begin with their filter."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, *zip(*parts, strict=True)))


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _dng(picture: Image.Image, chance: random.Random) -> bytes:
    preview = saved(picture.resize((640, 480)), "JPEG") if chance.random() < 0.5 else None
    return dng(orientation=chance.choice((1, 3, 6, 8)), preview=preview)


_TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")

KINDS: dict[str, tuple[str, Maker]] = {
    **{f"jpeg-{mode}": (".jpg", _plain("JPEG", mode)) for mode in ("L", "RGB", "CMYK", "YCbCr")},
    "jpeg-progressive": (".jpeg", _plain("JPEG", "RGB", progressive=True)),
    "jpeg-444": (".jpe", _plain("JPEG", "RGB", subsampling=0, quality=95)),
    "jpeg-restarts": (".jfif", _plain("JPEG", "RGB", restart_marker_blocks=2)),
    "jpeg-multi-picture": (".jpg", _several("MPO")),
    **{f"png-{mode}": (".png", _plain("PNG", mode)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "png-16-bit-colour": (".png", _png_16),
    "png-transparent-colour": (".png", _plain("PNG", "P", transparency=3)),
    "png-animated": (".png", _several("PNG")),
    **{f"webp-{mode}": (".webp", _plain("WEBP", mode)) for mode in ("L", "RGB", "RGBA")},
    "webp-lossless": (".webp", _plain("WEBP", "RGBA", lossless=True)),
    "webp-animated": (".webp", _several("WEBP")),
    **{f"gif-{mode}": (".gif", _plain("GIF", mode)) for mode in ("1", "L", "P", "RGBA")},
    "gif-animated": (".gif", _several("GIF")),
    **{
        f"tiff-{mode}": (".tif", _plain("TIFF", mode))
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F")
    },
    **{f"tiff-{name}": (".tiff", _plain("TIFF", "RGB", compression=name)) for name in _TIFF_COMPRESSIONS},
    "tiff-fax": (".tiff", _plain("TIFF", "1", compression="group4")),
    "tiff-pages": (".tiff", _several("TIFF")),
    **{f"bmp-{mode}": (".bmp", _plain("BMP", mode)) for mode in ("1", "L", "P", "RGB", "RGBA")},
    "dib": (".dib", _plain("DIB", "RGB")),
    **{f"heif-{mode}": (".heic", _plain("HEIF", mode)) for mode in ("L", "RGB", "RGBA", "I;16")},
    "heif-images": (".hif", _several("HEIF")),
    **{f"avif-{mode}": (".avif", _plain("AVIF", mode)) for mode in ("L", "RGB", "RGBA")},
    "avif-animated": (".avif", _several("AVIF")),
    "raw": (".dng", _dng),
    **{
        f"{kind.lower()}-{name}": (suffix, maker)
        for kind, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"))
        for name, maker in (
            ("turned", _turned(kind)),
            ("broken-exif", _exif(kind, 500)),
            ("giant-exif", _exif(kind, 60_000 if kind == "JPEG" else 1_000_000)),
            ("broken-icc", _icc(kind)),
        )
    },
    "tiff-turned": (".tif", _turned("TIFF")),
    "tiff-broken-icc": (".tif", _icc("TIFF")),
}
"""Suffix and maker by a name that says format and mode."""

_SIZES = ((97, 61), (1, 1), (3000, 2), (2, 3000), (320, 240))


@functools.cache
def example(kind: str, size: int, variant: int) -> bytes:
    """A valid file of a kind: always the same for the same numbers. ``size`` is of `_SIZES`, by its place."""
    chance = random.Random(f"{kind} {size} {variant}")
    width, height = _SIZES[size % len(_SIZES)]
    if kind.startswith(("heif", "avif")):  # of any size, but their encoders take a second for what is long
        width, height = min(width, 300), min(height, 300)
    coarse = np.random.default_rng(chance.getrandbits(64)).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return KINDS[kind][1](picture, chance)
