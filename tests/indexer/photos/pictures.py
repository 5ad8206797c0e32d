"""Picture files made for the tests."""

import io
import struct
from pathlib import Path
from typing import Any

from PIL import Image

import indexer.photos  # noqa: F401  registers HEIF with Pillow

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 180, 40), (30, 50, 200), (220, 200, 40)


_Entry = tuple[int, str, list[int] | list[bytes]]
"""A TIFF tag: number, kind, values."""
_TYPES = {"B": 1, "s": 2, "H": 3, "L": 4, "R": 5, "r": 10}


def quadrants(width: int = 96, height: int = 64) -> Image.Image:
    """Red, green / blue, yellow: no rotation or reflection of it looks the same."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(YELLOW, (width // 2, height // 2, width, height))
    return picture


def corners(picture: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of each quadrant, row by row."""
    width, height = picture.size
    at = [(width // 4, height // 4), (3 * width // 4, height // 4)]
    at += [(x, 3 * height // 4) for x, _ in at]
    found = [picture.getpixel(place) for place in at]
    return [colour if isinstance(colour, tuple) else (int(colour or 0),) for colour in found]


def close(one: list[tuple[int, ...]], other: list[tuple[int, ...]], tolerance: int) -> bool:
    return all(abs(a - b) <= tolerance for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def save(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def dng(width: int = 128, height: int = 96, orientation: int = 1, preview: bytes | None = None) -> bytes:
    """A small valid DNG: an RGGB sensor that saw red on the left and blue on the right, and perhaps a JPEG preview."""
    left, right = {"R": 50000, "G": 4000, "B": 2000}, {"R": 2000, "G": 4000, "B": 50000}
    rows = [
        [(left if x < width // 2 else right)[("RG", "GB")[y % 2][x % 2]] for x in range(width)] for y in range(height)
    ]
    sensor = b"".join(struct.pack(f"<{width}H", *row) for row in rows)
    raw: list[_Entry] = [
        (254, "L", [0]),
        (256, "L", [width]),
        (257, "L", [height]),
        (258, "H", [16]),
        (259, "H", [1]),
        (262, "H", [32803]),
        (277, "H", [1]),
        (278, "L", [height]),
        (279, "L", [len(sensor)]),
        (33421, "H", [2, 2]),
        (33422, "B", [0, 1, 1, 2]),
        (50717, "L", [65535]),
    ]
    camera: list[_Entry] = [
        (271, "s", [b"PhotoSeek\0"]),
        (272, "s", [b"Test One\0"]),
        (274, "H", [orientation]),
        (306, "s", [b"2021:05:06 07:08:09\0"]),
        (50706, "B", [1, 4, 0, 0]),
        (50708, "s", [b"PhotoSeek Test One\0"]),
        (50721, "r", [1, 0, 0, 0, 1, 0, 0, 0, 1]),
        (50728, "R", [1, 1, 1]),
        (50778, "H", [21]),
    ]
    if preview is None:
        return _tiff([(sorted(raw + camera), sensor)])
    with Image.open(io.BytesIO(preview)) as picture:
        small: list[_Entry] = [
            (254, "L", [1]),
            (256, "L", [picture.width]),
            (257, "L", [picture.height]),
            (258, "H", [8, 8, 8]),
            (259, "H", [7]),
            (262, "H", [6]),
            (277, "H", [3]),
            (278, "L", [picture.height]),
            (279, "L", [len(preview)]),
        ]
    return _tiff([(sorted(raw + camera), sensor), (small, preview)])


def _tiff(directories: list[tuple[list[_Entry], bytes]]) -> bytes:
    """A TIFF of one directory, and of the others as sub-directories of it; each has one strip."""
    file = bytearray(b"II*\0\0\0\0\0")
    offsets: list[int] = []
    for entries, strip in reversed(directories):
        at = len(file)
        file += strip + b"\0" * (len(strip) % 2)
        tags: list[_Entry] = [*entries, (273, "L", [at])]
        if len(directories) > 1 and len(offsets) == len(directories) - 1:
            tags.append((330, "L", offsets))
        offsets.append(_directory(file, sorted(tags)))
    struct.pack_into("<L", file, 4, offsets[-1])
    return bytes(file)


def _directory(file: bytearray, entries: list[_Entry]) -> int:
    packed = []
    for tag, kind, values in entries:
        data = b"".join(_value(kind, value) for value in values)
        count = len(data) if kind == "s" else len(values)
        if len(data) > 4:
            data, at = data + b"\0" * (len(data) % 2), len(file)
            file += data
            data = struct.pack("<L", at)
        packed.append(struct.pack("<HHL4s", tag, _TYPES[kind], count, data))
    start = len(file)
    file += struct.pack("<H", len(packed)) + b"".join(packed) + b"\0\0\0\0"
    return start


def _value(kind: str, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return struct.pack("<lL" if kind == "r" else "<LL", value, 1) if kind in "rR" else struct.pack(f"<{kind}", value)
