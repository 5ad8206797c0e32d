"""vectors.faiss: an index, followed by what it was made of.

The file is the index (what ``faiss.write_index`` writes, for an exact one), then content ids and checksums (n
little-endian int64 each), a JSON object, and a trailer: length of the JSON (uint32), CRC-32 of all that precedes it but
for the codes (uint32), and 8 bytes of magic. The codes of a compressed index come first, and have a CRC-32 of their own
in the JSON: they are mapped, not read, and of a damaged one no more can come than that a picture is not found.
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
from indexer.library._blocks import BLOCK_BYTES, Blocks
from indexer.library._codes import Code, Subspace
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


def load_vectors(path: Path, origin: Origin, codes_too: bool = False) -> tuple[PictureIndex, list[int] | None]:
    """The index, and the fingerprint of the catalog that it equals. Raises VectorsUnusable unless the file is whole and
    of this origin; whether the codes are right is only looked at with ``codes_too``.
    """
    try:
        with path.open("rb") as file:
            about, end = _checked(file)
            if codes_too and _checksum(file, 0, _codes_bytes(about)) != about.get("codes", 0):
                raise VectorsDamaged("damaged: the checksum of its codes differs")
            return _read(file, about, end, origin)
    except FileNotFoundError:
        raise VectorsUnusable("missing") from None
    except OSError as error:
        raise VectorsDamaged(f"unreadable: {error.strerror or error}") from error


def describe_vectors(path: Path) -> Widths | None:
    """What a search by this file looks at, and its recall, unchecked; None for no compressed index."""
    try:
        with path.open("rb") as file:
            widths = _described(file)[0].get("compressed")
            return None if widths is None else Widths(**widths)
    except (OSError, VectorsUnusable, TypeError):
        return None


def saved_at(path: Path, origin: Origin) -> tuple[int, int, bool] | None:
    """Revision of the catalog that the file equals, number of pictures, and whether its index is a compressed one.

    None if the file says none, or is missing, damaged or of another origin. Reads it, but makes no index of it.
    """
    try:
        with path.open("rb") as file:
            about, _ = _checked(file)
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

    about: dict[str, object] = {
        "library": origin.library,
        "model": dataclasses.asdict(origin.model),
        "contents": len(index),
        "fingerprint": fingerprint,
    }
    if isinstance(index, VectorIndex):
        faiss.write_index(index.faiss, faiss.PyCallbackIOWriter(write, _CHUNK))
    else:
        for start in range(0, len(index), _ROWS):
            write(index.blocks.take(np.arange(start, min(start + _ROWS, len(index)))).tobytes())
        about |= {
            "compressed": dataclasses.asdict(index.widths), "probes": len(index.probes.queries), "codes": checksum
        }  # fmt: skip
        checksum = 0
        for part in (index.means, index.code.scanner):
            faiss.write_index(part, faiss.PyCallbackIOWriter(write, _CHUNK))
        for values, (dtype, _) in zip(_arrays(index), _layout(len(index.probes.queries)), strict=True):
            write(values.astype(dtype, copy=False).tobytes())
    write(index.content_ids.astype("<i8").tobytes())
    write(index.checksums.astype("<i8").tobytes())
    # JSON in ASCII: a model's name may be a path, and a path may be no UTF-8.
    description = json.dumps(about).encode("ascii")
    write(description)
    write(_LENGTH.pack(len(description)))
    file.write(_TRAILER.pack(len(description), checksum, _MAGIC)[_LENGTH.size :])


def _described(file: BinaryIO) -> tuple[dict[str, Any], int, int]:
    """The JSON object, as it stands there, where it begins, and the checksum of the file. Raises VectorsUnusable."""
    size = os.fstat(file.fileno()).st_size
    if size < _TRAILER.size:
        raise VectorsDamaged("damaged: too short")
    file.seek(size - _TRAILER.size)
    length, checksum, magic = _TRAILER.unpack(file.read(_TRAILER.size))
    if magic != _MAGIC and magic[:-1] == _MAGIC[:-1]:
        raise VectorsUnusable("of another version")
    if magic != _MAGIC:
        raise VectorsDamaged("damaged: its end is not there")
    begin = size - _TRAILER.size - length
    try:
        file.seek(begin)
        about = json.loads(file.read(length))
        codes = _codes_bytes(about)
    except (ValueError, TypeError, KeyError):
        raise VectorsDamaged("damaged: its description cannot be read") from None
    if not 0 <= codes <= begin:
        raise VectorsDamaged("damaged: its length is wrong")
    return about, begin, checksum


def _codes_bytes(about: dict[str, Any]) -> int:
    return BLOCK_BYTES * int(about["contents"]) if "compressed" in about else 0


def _checked(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The JSON object and where it begins, all but the codes being right. Raises VectorsUnusable."""
    # Before FAISS sees a byte of it: reading a damaged index can bring the whole process down.
    about, begin, expected = _described(file)
    end = os.fstat(file.fileno()).st_size - _TRAILER.size + _LENGTH.size
    if _checksum(file, _codes_bytes(about), end) != expected:
        raise VectorsDamaged("damaged: its checksum differs")
    return about, begin


def _checksum(file: BinaryIO, start: int, end: int) -> int:
    file.seek(start)
    left, checksum = end - start, 0
    while left and (data := file.read(min(_CHUNK, left))):
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    return checksum


def _arrays(index: CompressedIndex) -> list[NDArray[np.generic]]:
    vectors, means, probes = index.code.subspace, index.mean_subspace, index.probes
    return [
        vectors.centre, vectors.projection, means.centre, means.projection,
        probes.queries, probes.content_ids, probes.similarities, probes.floors,
    ]  # fmt: skip


def _layout(probes: int) -> list[tuple[str, tuple[int, ...]]]:
    """Types and shapes of the arrays above."""
    return [
        ("<f4", (EMBEDDING_SIZE,)), ("<f4", (EMBEDDING_SIZE, EMBEDDING_SIZE)),
        ("<f4", (EMBEDDING_SIZE,)), ("<f4", (MEAN_DIMENSIONS, EMBEDDING_SIZE)),
        ("<f4", (probes, EMBEDDING_SIZE)), ("<i8", (probes, KEPT)), ("<f4", (probes, KEPT)), ("<f4", (probes,)),
    ]  # fmt: skip


def _read(file: BinaryIO, about: dict[str, Any], end: int, origin: Origin) -> tuple[PictureIndex, list[int] | None]:
    if about["library"] != origin.library:
        raise VectorsUnusable("of another library")
    if ModelIdentity(**about["model"]) != origin.model:
        raise VectorsUnusable("of another model")
    count = about["contents"]
    file.seek(end - 16 * count)
    content_ids = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
    checksums = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
    pictures = (content_ids, checksums)
    if "compressed" in about:
        return _read_compressed(file, about, pictures), about["fingerprint"]
    file.seek(0)
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
    # Copy-on-write: what changes in memory does not change the file, which is only ever replaced as a whole.
    rows = (about["contents"], BLOCK_BYTES)
    codes = np.memmap(file, np.uint8, "c", 0, rows) if rows[0] else np.empty(rows, np.uint8)
    file.seek(_codes_bytes(about))
    means, scanner = (faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK)) for _ in range(2))
    if not isinstance(means, faiss.IndexIVFPQFastScan) or not isinstance(scanner, faiss.IndexPQFastScan):
        raise VectorsUnusable("of another kind")
    arrays = []
    for dtype, shape in _layout(about["probes"]):
        values = np.empty(shape, dtype)
        file.readinto(values.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        arrays.append(values)
    centre, projection, mean_centre, mean_projection, queries, best, similarities, floors = arrays
    return CompressedIndex(
        Code(Subspace(centre, projection), scanner),
        Subspace(mean_centre, mean_projection),
        means,
        Probes(queries, best, similarities, floors),
        Widths(**about["compressed"]),
        Blocks(codes),
        *pictures,
    )
