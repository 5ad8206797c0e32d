"""vectors.faiss: an index, followed by what it was made of.

The file is the index (what ``faiss.write_index`` writes, for an exact one), then content ids and checksums (n
little-endian int64 each), a JSON object, and a trailer: length of the JSON (uint32), CRC-32 of all that precedes it
(uint32), and 8 bytes of magic. FAISS reads its part and ignores the rest.
"""

import dataclasses
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.library._codes import BLOCK_BYTES, Code, Subspace
from indexer.library._compressed import MEAN_DIMENSIONS, CompressedIndex, Widths
from indexer.library._recall import KEPT, Probes
from indexer.library._vectors import VectorIndex

_MAGIC = b"PSvec\r\n2"
_LENGTH = struct.Struct("<I")
_TRAILER = struct.Struct("<II8s")
_CHUNK = 1 << 23
_ROWS = 8192


class VectorsUnusable(Exception):
    """The file is missing, damaged or of something else; the message says which."""


class VectorsDamaged(VectorsUnusable):
    """The file is not what was written, or cannot be read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What vectors are of."""

    library: str
    """The catalog's own id."""
    model: ModelIdentity


PictureIndex = VectorIndex | CompressedIndex


def save_vectors(path: Path, index: PictureIndex, origin: Origin, fingerprint: list[int] | None = None) -> None:
    """Write the file anew: whoever reads it at any instant finds the old one or the new one, whole.

    fingerprint: of the catalog, if the index equals it.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, index, origin, fingerprint)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_vectors(path: Path, origin: Origin) -> tuple[PictureIndex, list[int] | None]:
    """The index, and the fingerprint of the catalog that it equals. Raises VectorsUnusable unless the file is whole and
    of this origin.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _checked(file, size)
            return _read(file, size - _TRAILER.size - length, length, origin)
    except FileNotFoundError:
        raise VectorsUnusable("missing") from None
    except OSError as error:
        raise VectorsDamaged(f"unreadable: {error.strerror or error}") from error


def describe_vectors(path: Path) -> Widths | None:
    """What a search by this file looks at, and its recall, unchecked; None for no compressed index."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(size - _TRAILER.size)
            length, _, _ = _TRAILER.unpack(file.read(_TRAILER.size))
            file.seek(size - _TRAILER.size - length)
            widths = json.loads(file.read(length)).get("compressed")
            return None if widths is None else Widths(**widths)
    except (OSError, ValueError, TypeError, AttributeError, struct.error):
        return None


def saved_at(path: Path, origin: Origin) -> tuple[int, int, bool] | None:
    """Revision of the catalog that the file equals, number of pictures, and whether its index is a compressed one.

    None if the file says none, or is missing, damaged or of another origin. Reads it, but makes no index of it.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _checked(file, size)
            file.seek(size - _TRAILER.size - length)
            about = json.loads(file.read(length))
    except (OSError, VectorsUnusable):
        return None
    if (about["library"], ModelIdentity(**about["model"])) != (origin.library, origin.model):
        return None
    fingerprint = about.get("fingerprint")
    return None if fingerprint is None else (fingerprint[0], about["contents"], "compressed" in about)


def _write(file: BinaryIO, index: PictureIndex, origin: Origin, fingerprint: list[int] | None) -> None:
    checksum = 0

    def write(data: bytes) -> int:
        nonlocal checksum
        checksum = zlib.crc32(data, checksum)
        return file.write(data)

    if isinstance(index, VectorIndex):
        faiss.write_index(index.faiss, faiss.PyCallbackIOWriter(write, _CHUNK))
    else:
        for part in (index.means, index.code.scanner):
            faiss.write_index(part, faiss.PyCallbackIOWriter(write, _CHUNK))
        for values, (dtype, _) in zip(_arrays(index), _layout(len(index.probes.queries), len(index)), strict=True):
            for start in range(0, len(values), _ROWS):
                write(values[start : start + _ROWS].astype(dtype, copy=False).tobytes())
    write(index.content_ids.astype("<i8").tobytes())
    write(index.checksums.astype("<i8").tobytes())
    about = {
        "library": origin.library,
        "model": dataclasses.asdict(origin.model),
        "contents": len(index),
        "fingerprint": fingerprint,
    }
    if isinstance(index, CompressedIndex):
        about |= {"compressed": dataclasses.asdict(index.widths), "probes": len(index.probes.queries)}
    # JSON in ASCII: a model's name may be a path, and a path may be no UTF-8.
    description = json.dumps(about).encode("ascii")
    write(description)
    write(_LENGTH.pack(len(description)))
    file.write(_TRAILER.pack(len(description), checksum, _MAGIC)[_LENGTH.size :])


def _checked(file: BinaryIO, size: int) -> int:
    # Before FAISS sees a byte of it: reading a damaged index can bring the whole process down.
    if size < _TRAILER.size:
        raise VectorsDamaged("damaged: too short")
    file.seek(size - _TRAILER.size)
    length, expected, magic = _TRAILER.unpack(file.read(_TRAILER.size))
    if magic != _MAGIC and magic[:-1] == _MAGIC[:-1]:
        raise VectorsUnusable("of another version")
    if magic != _MAGIC:
        raise VectorsDamaged("damaged: its end is not there")
    file.seek(0)
    left, checksum = size - _TRAILER.size + _LENGTH.size, 0
    while left and (data := file.read(min(_CHUNK, left))):
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    if left or checksum != expected or length > size - _TRAILER.size:
        raise VectorsDamaged("damaged: its checksum differs")
    return int(length)


def _arrays(index: CompressedIndex) -> list[NDArray[np.generic]]:
    vectors, means, probes = index.code.subspace, index.mean_subspace, index.probes
    return [
        vectors.centre, vectors.projection, means.centre, means.projection,
        probes.queries, probes.content_ids, probes.similarities, probes.floors, index.blocks,
    ]  # fmt: skip


def _layout(probes: int, pictures: int) -> list[tuple[str, tuple[int, ...]]]:
    """Types and shapes of the arrays above."""
    return [
        ("<f4", (EMBEDDING_SIZE,)), ("<f4", (EMBEDDING_SIZE, EMBEDDING_SIZE)),
        ("<f4", (EMBEDDING_SIZE,)), ("<f4", (MEAN_DIMENSIONS, EMBEDDING_SIZE)),
        ("<f4", (probes, EMBEDDING_SIZE)), ("<i8", (probes, KEPT)), ("<f4", (probes, KEPT)), ("<f4", (probes,)),
        ("u1", (pictures, BLOCK_BYTES)),
    ]  # fmt: skip


def _read(file: BinaryIO, description_at: int, length: int, origin: Origin) -> tuple[PictureIndex, list[int] | None]:
    file.seek(description_at)
    about = json.loads(file.read(length))
    if about["library"] != origin.library:
        raise VectorsUnusable("of another library")
    if ModelIdentity(**about["model"]) != origin.model:
        raise VectorsUnusable("of another model")
    count = about["contents"]
    file.seek(description_at - 16 * count)
    content_ids = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
    checksums = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
    file.seek(0)
    pictures = (content_ids, checksums)
    if "compressed" in about:
        return _read_compressed(file, about, pictures), about["fingerprint"]
    return _read_exact(file, pictures), about.get("fingerprint")


def _read_exact(file: BinaryIO, pictures: tuple[NDArray[np.int64], NDArray[np.int64]]) -> VectorIndex:
    index = faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK))
    vectors = QUERY_TOKENS * len(pictures[0])
    if not isinstance(index, faiss.IndexIDMap) or index.d != EMBEDDING_SIZE or index.ntotal != vectors:
        raise VectorsUnusable("of another kind")
    return VectorIndex(index, pictures)


def _read_compressed(
    file: BinaryIO, about: dict[str, Any], pictures: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> CompressedIndex:
    means, scanner = (faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK)) for _ in range(2))
    if not isinstance(means, faiss.IndexIVFPQFastScan) or not isinstance(scanner, faiss.IndexPQFastScan):
        raise VectorsUnusable("of another kind")
    arrays = []
    for dtype, shape in _layout(about["probes"], about["contents"]):
        values = np.empty(shape, dtype)
        file.readinto(values.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        arrays.append(values)
    centre, projection, mean_centre, mean_projection, queries, best, similarities, floors, blocks = arrays
    return CompressedIndex(
        Code(Subspace(centre, projection), scanner),
        Subspace(mean_centre, mean_projection),
        means,
        Probes(queries, best, similarities, floors),
        Widths(**about["compressed"]),
        blocks,
        *pictures,
    )
