"""Caches of what can be made again from the photos: thumbnails, and what the matching head needs of each photo.

One file a picture, named by the digest of the picture. A file ends with a checksum of itself, so that a damaged one is
a miss; what precedes it is as it was given, so that a thumbnail is a WebP file that any viewer opens.
"""

import contextlib
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import ModelIdentity

_MAGIC = b"PSk1"
_TRAILER = struct.Struct("<I4s")
_SHAPE = struct.Struct("<II")


class FileCache:
    """Bytes by digest, in files. Safe to use from several threads and processes."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self._directory = directory
        self._suffix = suffix

    def get(self, digest: str) -> bytes | None:
        """What was put; None if there is nothing, or nothing whole."""
        try:
            return _unsealed(self._path(digest).read_bytes())
        except OSError:
            return None

    def put(self, digest: str, data: bytes) -> None:
        """Keep, in place of what there was. Where nothing can be written, nothing is kept: it is only a cache."""
        with contextlib.suppress(OSError):
            _write_whole(self._path(digest), data + _TRAILER.pack(zlib.crc32(data), _MAGIC))

    def remove(self, digest: str) -> None:
        """Forget."""
        with contextlib.suppress(OSError):
            self._path(digest).unlink()

    def files(self) -> Iterator[Path]:
        """Every file there is, whatever it is."""
        return (path for path in self._directory.rglob("*") if path.is_file())

    def digest_of(self, path: Path) -> str | None:
        """The digest that a file of this cache is kept by; None for a file that is not one."""
        return path.stem if path.suffix == self._suffix and path == self._path(path.stem) else None

    def size(self) -> int:
        """Bytes on disk."""
        return sum(_size(path) for path in self.files())

    def _path(self, digest: str) -> Path:
        # In 256 folders: some file systems and many tools are slow with 100,000 files in one.
        return self._directory / digest[:2] / f"{digest}{self._suffix}"


def pack_tokens(tokens: NDArray[np.float16]) -> bytes:
    """(N, D) tokens as N and D in 32 bits each, then the little-endian values."""
    return _SHAPE.pack(*tokens.shape) + tokens.astype("<f2", copy=False).tobytes()


def unpack_tokens(data: bytes) -> NDArray[np.float16]:
    """The inverse of ``pack_tokens``. Raises ValueError for anything else."""
    if len(data) < _SHAPE.size:
        raise ValueError("too short for tokens")
    return (
        np.frombuffer(data, "<f2", offset=_SHAPE.size).reshape(_SHAPE.unpack_from(data)).astype(np.float16, copy=False)
    )


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _unsealed(data: bytes) -> bytes | None:
    if len(data) < _TRAILER.size:
        return None
    checksum, magic = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    content = data[: -_TRAILER.size]
    return content if magic == _MAGIC and checksum == zlib.crc32(content) else None


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


class Caches:
    """The caches of a library."""

    def __init__(self, directory: Path) -> None:
        self.thumbnails = FileCache(directory / "thumbnails", ".webp")
        self._features = directory / "features"

    def features(self, model: ModelIdentity) -> FileCache:
        """Match features by one model."""
        return FileCache(self._features / model.digest[:16], ".tokens")

    def all(self) -> dict[str, list[FileCache]]:
        """Every cache there is, by what it holds."""
        models = sorted(path for path in self._features.glob("*") if path.is_dir())
        return {"thumbnails": [self.thumbnails], "match_features": [FileCache(path, ".tokens") for path in models]}

    def forget(self, digest: str) -> None:
        """Remove all that is kept of a picture."""
        for caches in self.all().values():
            for cache in caches:
                cache.remove(digest)
