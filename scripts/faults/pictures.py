"""Valid picture files in every format and mode that PhotoSeek reads."""

import functools
import io
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, TiffTags

import indexer.photos  # noqa: F401  registers HEIF with Pillow
from scripts.faults.handmade import bmp_16, bmp_rle, png
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


def _pixels(make: Callable[[NDArray[np.uint8]], bytes], mode: str) -> Maker:
    """Of the levels (h, w, channels) in a mode that has channels."""

    def made(picture: Image.Image, _: random.Random) -> bytes:
        levels = np.asarray(in_mode(picture, mode))
        return make(levels.reshape(*levels.shape[:2], -1))

    return made


def _tiff(levels: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, levels, **options)
    return stream.getvalue()


def _tiff_16(levels: NDArray[np.uint8]) -> bytes:
    return _tiff(levels.astype(np.uint16) * 257, photometric="rgb")


def _tiff_planar(levels: NDArray[np.uint8]) -> bytes:
    return _tiff(np.moveaxis(levels, 2, 0), photometric="rgb", planarconfig="separate")


def _tiff_exif(size: int) -> Maker:
    """As `_exif`, which Pillow does not write into TIFF."""

    def make(picture: Image.Image, chance: random.Random) -> bytes:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[ExifTags.IFD.Exif] = TiffTags.LONG
        tags[ExifTags.IFD.Exif] = 0
        tags[ExifTags.IFD.Exif] = len(saved(picture, "TIFF", tiffinfo=tags))
        return saved(picture, "TIFF", tiffinfo=tags) + chance.randbytes(size)

    return make


def _heif_10(levels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    height, width, _ = levels.shape
    pillow_heif.encode("RGB;16", (width, height), (levels.astype(np.uint16) * 257).tobytes(), stream)
    return stream.getvalue()


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
    **{f"png-{bits}-bit-palette": (".png", _plain("PNG", "P", bits=bits)) for bits in (1, 2, 4)},
    **{f"png-{bits}-bit-grey": (".png", _pixels(functools.partial(png, depth=bits), "L")) for bits in (2, 4)},
    **{
        f"png-16-bit-{mode}": (".png", _pixels(functools.partial(png, depth=16), mode))
        for mode in ("LA", "RGB", "RGBA")
    },
    **{
        f"png-interlaced-{bits}-bit": (".png", _pixels(functools.partial(png, depth=bits, interlaced=True), mode))
        for bits, mode in ((1, "L"), (8, "RGBA"), (16, "RGB"))
    },
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
    "tiff-big": (".tif", _plain("TIFF", "RGB", big_tiff=True)),
    "tiff-16-bit-colour": (".tif", _pixels(_tiff_16, "RGB")),
    "tiff-planar": (".tif", _pixels(_tiff_planar, "RGB")),
    **{f"bmp-{mode}": (".bmp", _plain("BMP", mode)) for mode in ("1", "L", "P", "RGB", "RGBA")},
    "bmp-without-header": (".dib", _plain("DIB", "RGB")),
    "bmp-555": (".bmp", _pixels(functools.partial(bmp_16, masks=None), "RGB")),
    "bmp-565": (".bmp", _pixels(functools.partial(bmp_16, masks=(0xF800, 0x7E0, 0x1F)), "RGB")),
    **{f"bmp-rle-{bits}": (".bmp", _pixels(functools.partial(bmp_rle, bits=bits), "L")) for bits in (4, 8)},
    **{f"heif-{mode}": (".heic", _plain("HEIF", mode)) for mode in ("L", "RGB", "RGBA", "I;16")},
    "heif-10-bit": (".heif", _pixels(_heif_10, "RGB")),
    "heif-images": (".hif", _several("HEIF")),
    **{f"avif-{mode}": (".avif", _plain("AVIF", mode)) for mode in ("L", "RGB", "RGBA")},
    "avif-animated": (".avif", _several("AVIF")),
    "raw": (".dng", _dng),
    **{
        f"{kind.lower()}-{name}": (suffix, maker)
        for kind, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("HEIF", ".heic"), ("AVIF", ".avif"))
        for name, maker in (
            ("turned", _turned(kind)),
            ("broken-exif", _exif(kind, 500)),
            ("giant-exif", _exif(kind, 60_000 if kind == "JPEG" else 1_000_000)),
            ("broken-icc", _icc(kind)),
        )
    },
    "tiff-turned": (".tif", _turned("TIFF")),
    "tiff-broken-exif": (".tif", _tiff_exif(500)),
    "tiff-giant-exif": (".tif", _tiff_exif(1_000_000)),
    "tiff-broken-icc": (".tif", _icc("TIFF")),
}
"""Suffix and maker by a name that begins with the family of the format, and goes on with what is special."""

SIZES = ((97, 61), (320, 240), (1, 1), (3000, 2), (2, 3000), (60_000, 1), (1, 60_000))
_MOST = {"heif": 300, "avif": 300, "webp": 16_383}
"""Longest side, where it is not 60,000: the most that the format can have, or that its encoder does soon."""


def family(kind: str) -> str:
    """The family of formats that a kind belongs to."""
    return kind.partition("-")[0]


@functools.cache
def example(kind: str, size: int, variant: int) -> bytes:
    """A valid file of a kind: always the same for the same numbers. ``size`` is the place of one in `SIZES`."""
    chance = random.Random(f"{kind} {size} {variant}")
    width, height = (min(side, _MOST.get(family(kind), side)) for side in SIZES[size])
    coarse = np.random.default_rng(chance.getrandbits(64)).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    with warnings.catch_warnings(action="ignore"):  # Pillow remarks on the broken EXIF that it is told to write
        return KINDS[kind][1](picture, chance)
