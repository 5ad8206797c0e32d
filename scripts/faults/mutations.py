"""What happens to picture files: cards fail, copies break off, names are wrong, and some are made to do harm."""

import random
import struct
import zlib
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

_HUGE = 60_000
_SUFFIXES = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp", ".heic", ".avif", ".nef", ".cr2", ".dng", ".raf", ".x3f")


def truncated(data: bytes, chance: random.Random) -> bytes:
    """Ends too early; sometimes at once."""
    return data[: chance.choice((0, 1, 12, chance.randrange(len(data)), chance.randrange(len(data)), len(data) - 1))]


def bits_flipped(data: bytes, chance: random.Random) -> bytes:
    """A few bits are wrong, as often as not in the header."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 20, 200))):
        changed[chance.randrange(min(len(data), chance.choice((64, 512, len(data)))))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def zeroed(data: bytes, chance: random.Random) -> bytes:
    """A part, or all, is zeros: what a disk gives for a block that it has lost."""
    start, end = sorted(chance.choices(range(len(data) + 1), k=2))
    if chance.random() < 0.2:
        start, end = 0, len(data)
    return data[:start] + bytes(end - start) + data[end:]


def replaced(data: bytes, chance: random.Random) -> bytes:
    """A part is of something else."""
    start = chance.randrange(len(data))
    junk = chance.randbytes(chance.choice((4, 100, 5000)))
    return data[:start] + junk + data[start + len(junk) :]


def repeated(data: bytes, chance: random.Random) -> bytes:
    """A part is there twice, or the whole many times."""
    start = chance.randrange(len(data))
    return data * 20 if chance.random() < 0.3 else data[:start] + data[start // 2 :]


def numbers_changed(data: bytes, chance: random.Random) -> bytes:
    """Lengths, offsets and counts in the header are absurd."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(max(1, min(len(data), 400) - 4))
        changed[at : at + 4] = struct.pack(
            chance.choice("<>") + "I", chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, chance.getrandbits(32)))
        )
    return bytes(changed)


def claims_to_be_huge(data: bytes, _: random.Random) -> bytes:
    """The header says 60,000 × 60,000 pixels, or as many as the format can say."""
    for magic, enlarge in _ENLARGE.items():
        if data.startswith(magic):
            return enlarge(data)
    return _enlarged_heif(data)


def _enlarged_png(data: bytes) -> bytes:
    header = b"IHDR" + struct.pack(">II", _HUGE, _HUGE) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def _enlarged_jpeg(data: bytes) -> bytes:
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[: at + 5] + struct.pack(">HH", _HUGE, _HUGE) + data[at + 9 :]


def _enlarged_webp(data: bytes) -> bytes:
    kind, at = data[12:16], 20
    if kind == b"VP8 ":
        return data[: at + 6] + struct.pack("<HH", 16383, 16383) + data[at + 10 :]
    if kind == b"VP8L":
        return data[: at + 1] + b"\xff" * 3 + b"\x0f" + data[at + 5 :]
    return data[: at + 4] + (_HUGE - 1).to_bytes(3, "little") * 2 + data[at + 10 :]


def _enlarged_tiff(data: bytes) -> bytes:
    order = "<" if data.startswith(b"II") else ">"
    # Where the first offset is; offset, count of entries; size of an entry: of BigTIFF, and of TIFF.
    first, offset, count, entry_bytes = (8, "Q", "Q", 20) if data[2] == 43 else (4, "I", "H", 12)
    changed = bytearray(data)
    (at,) = struct.unpack_from(order + offset, data, first)
    (entries,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(order + count)
    for entry in range(at, at + entry_bytes * entries, entry_bytes):
        if struct.unpack_from(f"{order}H", data, entry)[0] in (256, 257):
            struct.pack_into(f"{order}H{offset}I", changed, entry + 2, 4, 1, _HUGE)
    return bytes(changed)


def _enlarged_heif(data: bytes) -> bytes:
    changed, at = bytearray(data), data.find(b"ispe")
    while at >= 0:
        struct.pack_into(">II", changed, at + 8, _HUGE, _HUGE)
        at = data.find(b"ispe", at + 4)
    return bytes(changed)


_ENLARGE: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x89PNG": _enlarged_png,
    b"\xff\xd8": _enlarged_jpeg,
    b"GIF8": lambda data: data[:6] + struct.pack("<HH", _HUGE, _HUGE) + data[10:],
    b"RIFF": _enlarged_webp,
    b"II*\0": _enlarged_tiff,
    b"MM\0*": _enlarged_tiff,
    b"II+\0": _enlarged_tiff,
    b"BM": lambda data: data[:18] + struct.pack("<ii", _HUGE, _HUGE) + data[26:],
    b"(\0\0\0": lambda data: data[:4] + struct.pack("<ii", _HUGE, _HUGE) + data[12:],
}
"""By the first bytes of a file."""

MUTATIONS: tuple[Mutation, ...] = (
    truncated,
    bits_flipped,
    zeroed,
    replaced,
    repeated,
    numbers_changed,
    claims_to_be_huge,
)


def wrong_suffix(right: str, chance: random.Random) -> str:
    """That of another format."""
    return chance.choice([suffix for suffix in _SUFFIXES if suffix != right])
