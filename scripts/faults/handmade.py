"""Valid picture files that PhotoSeek reads and that no library at hand writes."""

import itertools
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Interlaced PNG: first column, first row, and their steps, of each pass; from the PNG specification, section 8."""
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's number for grey, grey and alpha, RGB, and RGBA, by channels."""


def png(levels: NDArray[np.uint8], depth: int, interlaced: bool = False) -> bytes:
    """A PNG of levels (h, w, channels), of 1, 2, 4, 8 or 16 bits each; of 16, both bytes are the level."""
    height, width, channels = levels.shape
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    dropped = np.uint8(max(0, 8 - depth))
    rows = b"".join(_png_rows(levels[top::down, left::right] >> dropped, depth) for left, top, right, down in passes)
    return png_of_rows(width, height, depth, _COLOURS[channels], rows, interlaced)


def _png_rows(levels: NDArray[np.uint8], depth: int) -> bytes:
    if not levels.size:
        return b""
    if depth == 16:
        packed = np.repeat(levels.reshape(len(levels), -1), 2, axis=1)
    else:
        bits = np.unpackbits(levels[..., None], axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(len(levels), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def png_of_rows(
    width: int, height: int, depth: int, colour: int, rows: bytes, interlaced: bool = False, chunks: bytes = b""
) -> bytes:
    """A PNG of rows that each begin with their filter, and of ``chunks`` before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bmp_16(colours: NDArray[np.uint8], masks: tuple[int, int, int] | None) -> bytes:
    """A BMP of 16 bits a pixel from RGB (h, w, 3): 5 for each colour, or as many as each of three masks has."""
    height, width, _ = colours.shape
    levels = np.zeros((height, width), np.uint32)
    for channel, mask in enumerate(masks or (0x7C00, 0x3E0, 0x1F)):
        levels |= colours[..., channel].astype(np.uint32) * mask // 255 & mask
    rows = np.pad(levels[::-1].astype("<u2"), ((0, 0), (0, width % 2)))
    between = struct.pack("<3I", *masks) if masks else b""
    return _bmp(width, height, 16, 3 if masks else 0, between, rows.tobytes())


def bmp_rle(levels: NDArray[np.uint8], bits: int) -> bytes:
    """A run-length encoded BMP of 4 or 8 bits a pixel, from grey (h, w, 1)."""
    grey = np.arange(1 << bits, dtype=np.uint8) * (255 // ((1 << bits) - 1))
    palette = np.stack([grey, grey, grey, np.zeros_like(grey)], axis=1).tobytes()
    rows = [_runs(row.ravel() >> (8 - bits), bits) + b"\0\0" for row in levels[::-1]]
    return _bmp(levels.shape[1], len(levels), bits, 1 if bits == 8 else 2, palette, b"".join(rows)[:-2] + b"\0\1")


def _runs(row: NDArray[np.uint8], bits: int) -> bytes:
    found = bytearray()
    for level, same in itertools.groupby(row.tolist()):
        left = len(list(same))
        while left:
            found += bytes((min(left, 255), level if bits == 8 else level * 17))
            left -= min(left, 255)
    return bytes(found)


def _bmp(width: int, height: int, bits: int, compression: int, between: bytes, rows: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    start = 14 + len(header) + len(between)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + between + rows
