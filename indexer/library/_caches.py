"""Caches of what can be made again from the photos: thumbnails, and what the matching head needs of each photo.

One file a picture, named by the digest of the picture. A file ends with a checksum of itself, so that a damaged one is
a miss, and told; what precedes it is as it was given, so that a thumbnail is a WebP file that any viewer opens.
"""

import contextlib
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from indexer.embedding import ModelIdentity
from indexer.library._byte_budget import ByteBudget
from indexer.library._damage import Damage
from indexer.tokens import QuantisedTokens

_MAGIC = b"PSk1"
_TRAILER = struct.Struct("<I4s")
_SHAPE = struct.Struct("<II")
_TOKENS = ".tokens"


class FileCache:
    """Bytes by digest, in files. Safe to use from several threads and processes."""

    def __init__(self, directory: Path, suffix: str, kind: str, damage: Damage) -> None:
        """``kind``: what it holds, in the plural; ``damage`` is told of files that are not whole."""
        self.kind = kind
        self._directory = directory
        self._suffix = suffix
        self._damage = damage

    def get(self, digest: str) -> bytes | None:
        """What was put; None if there is nothing, or nothing whole, which is then dropped."""
        try:
            data = read_whole(self.path(digest))
        except OSError:
            return None
        if data is None:
            self.drop(digest)
        return data

    def drop(self, digest: str) -> None:
        """Remove, and tell of, a file that proved damaged."""
        self._damage.of_file(self.kind)
        self.remove(digest)

    def put(self, digest: str, data: bytes) -> None:
        """Keep, in place of what there was. Where nothing can be written, nothing is kept: it is only a cache."""
        with contextlib.suppress(OSError):
            _write_whole(self.path(digest), sealed(data))

    def remove(self, digest: str) -> None:
        """Forget."""
        with contextlib.suppress(OSError):
            self.path(digest).unlink()

    def files(self) -> Iterator[Path]:
        """Every file there is, whatever it is, and folders where a file should be."""
        return (path for path in self._directory.rglob("*") if path.is_file() or self.digest_of(path) is not None)

    def digest_of(self, path: Path) -> str | None:
        """The digest that a file of this cache is kept by; None for a file that is not one."""
        return path.stem if path.suffix == self._suffix and path == self.path(path.stem) else None

    def size(self) -> int:
        """Bytes on disk."""
        return sum(_size(path) for path in self.files())

    def path(self, digest: str) -> Path:
        """Where the file of a digest is."""
        # In 256 folders: some file systems and many tools are slow with 100,000 files in one.
        return self._directory / digest[:2] / f"{digest}{self._suffix}"


def sealed(data: bytes) -> bytes:
    """What a file of a cache holds, for `read_whole`."""
    return data + _TRAILER.pack(zlib.crc32(data), _MAGIC)


def read_whole(path: Path) -> bytes | None:
    """What was put into a file of a cache; None if it is damaged. Raises OSError if it cannot be read."""
    data = path.read_bytes()
    if len(data) < _TRAILER.size:
        return None
    checksum, magic = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    content = data[: -_TRAILER.size]
    return content if magic == _MAGIC and checksum == zlib.crc32(content) else None


def discard(path: Path) -> None:
    """Remove what is in the place of a file that can be made again, a folder with all that is in it too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pack_tokens(tokens: QuantisedTokens) -> bytes:
    """N and D in 32 bits each, then D float32 scales, then N x D int8 values; little-endian."""
    return _SHAPE.pack(*tokens.shape) + tokens.scales.astype("<f4", copy=False).tobytes() + tokens.values.tobytes()


def unpack_tokens(data: bytes) -> QuantisedTokens:
    """The inverse of ``pack_tokens``. Raises ValueError for anything else."""
    if len(data) < _SHAPE.size:
        raise ValueError("too short for tokens")
    count, width = _SHAPE.unpack_from(data)
    if len(data) != _SHAPE.size + 4 * width + count * width:
        raise ValueError("of another length than its tokens have")
    scales = np.frombuffer(data, "<f4", width, _SHAPE.size).astype(np.float32, copy=False)
    values = np.frombuffer(data, np.int8, offset=_SHAPE.size + 4 * width)
    return QuantisedTokens(values.reshape(count, width), scales)


def _write_whole(path: Path, data: bytes) -> None:
    # Two of them for every photo. A name of this thread's own, where looking for a free one takes as long as writing.
    temporary = f"{path.parent}/.{path.name}.{os.getpid()}.{threading.get_ident()}"
    try:
        with _created(temporary) as file:
            file.write(data)
        os.replace(temporary, path)  # noqa: PTH105 - as above
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _created(path: str) -> BinaryIO:
    """A new file that only its owner may read, open to be written; in place of what a killed process left."""
    try:
        return open(path, "wb", opener=_private)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return open(path, "wb", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


class Caches:
    """The caches of a library."""

    def __init__(self, directory: Path, damage: Damage) -> None:
        self._damage = damage
        self.thumbnails = FileCache(directory / "thumbnails", ".webp", "thumbnails", damage)
        self._features = directory / "features"
        self._room = ByteBudget(self._features)

    def features(self, model: ModelIdentity, digest: str) -> QuantisedTokens | None:
        """Match features of a picture by one model, which are then used last; None if there are none, or none whole."""
        cache = self.features_of(model)
        data = cache.get(digest)
        if data is None:
            return None
        self._room.used_now(cache.path(digest))
        try:
            return unpack_tokens(data)
        except ValueError:
            cache.drop(digest)
            return None

    def put_features(self, model: ModelIdentity, tokens: Mapping[str, QuantisedTokens], limit: int) -> None:
        """Keep match features by digest, and at most ``limit`` bytes of them: those used longest ago go."""
        cache = self.features_of(model)
        for digest, each in tokens.items():
            data = pack_tokens(each)
            if len(data) <= limit:
                cache.put(digest, data)
                self._room.written(len(data) + _TRAILER.size, limit)

    def limit_features(self, limit: int) -> None:
        """Delete the match features used longest ago, as if the last ones had just been kept."""
        self._room.keep_within(limit)

    def all(self) -> dict[str, list[FileCache]]:
        """Every cache there is, by what it holds."""
        models = sorted(path for path in self._features.glob("*") if path.is_dir())
        return {"thumbnails": [self.thumbnails], "match_features": [self._of_models(path) for path in models]}

    def forget(self, digest: str) -> None:
        """Remove all that is kept of a picture."""
        for caches in self.all().values():
            for cache in caches:
                cache.remove(digest)

    def features_of(self, model: ModelIdentity) -> FileCache:
        """The cache of match features by one model."""
        return self._of_models(self._features / model.digest[:16])

    def _of_models(self, directory: Path) -> FileCache:
        return FileCache(directory, _TOKENS, "match features", self._damage)
