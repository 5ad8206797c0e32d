"""vectors.faiss: an index, followed by what it was made of.

The file is what FAISS writes of the index, then content ids and checksums (n little-endian int64 each), a JSON object,
and a trailer: length of the JSON (uint32), CRC-32 of all that precedes it (uint32), and 8 bytes of magic. A compressed
index has its codes in a file of their own, of which the JSON object says the name.
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
from indexer.library._blocks import Blocks
from indexer.library._codes import Code, Subspace
from indexer.library._codes_files import discard_codes, is_codes_file
from indexer.library._compressed import CompressedIndex, Widths
from indexer.library._means import MEAN_DIMENSIONS, PARTS, Means
from indexer.library._recall import KEPT, Probes
from indexer.library._vectors import VectorIndex

_MAGIC = b"PSvec\r\n3"
_LENGTH = struct.Struct("<I")
_TRAILER = struct.Struct("<II8s")
_CHUNK = 1 << 23


class VectorsUnusable(Exception):
    """The file is missing, damaged or of something else; the message says which."""


class VectorsDamaged(VectorsUnusable):
    """The file is not what was written, or cannot be read."""


class _CodesMissing(VectorsDamaged):
    def __init__(self) -> None:
        super().__init__("damaged: its codes are missing, or cut short")


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What vectors are of."""

    library: str
    """The catalog's own id."""
    model: ModelIdentity


PictureIndex = VectorIndex | CompressedIndex


def save_vectors(path: Path, index: PictureIndex, origin: Origin, fingerprint: list[int] | None = None) -> None:
    """Write the file anew: whoever reads it at any instant finds the old one or the new one, whole. Raises OSError.

    fingerprint: of the catalog, if the index equals it.
    """
    codes = index.blocks.save(path.parent, index.content_ids) if isinstance(index, CompressedIndex) else None
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
    discard_codes(path.parent, but=codes)


def load_vectors(path: Path, origin: Origin) -> tuple[PictureIndex, list[int] | None]:
    """The index, and the fingerprint of the catalog that it equals. Raises VectorsUnusable unless the file is whole and
    of this origin. Whether its codes are right is not looked at.
    """
    try:
        return _loaded(path, origin)
    except _CodesMissing:
        # Between the two another writer may have put other ones in their place.
        return _loaded(path, origin)


def _loaded(path: Path, origin: Origin) -> tuple[PictureIndex, list[int] | None]:
    try:
        with path.open("rb") as file:
            about, end = _checked(file)
            return _read(file, path.parent, about, end, origin)
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
    if _origin(about) != origin:
        return None
    fingerprint = about["fingerprint"]
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
        assert index.blocks.path is not None
        about |= {
            "compressed": dataclasses.asdict(index.widths),
            "probes": len(index.probes.queries),
            "codes": index.blocks.path.name,
        }
        for part in (*index.means.parts, index.code.scanner):
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
        return json.loads(file.read(length)), begin, checksum
    except (ValueError, OSError):
        raise VectorsDamaged("damaged: its description cannot be read") from None


def _origin(about: dict[str, Any]) -> Origin:
    return Origin(about["library"], ModelIdentity(**about["model"]))


def _checked(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The JSON object and where it begins, all of the file being right. Raises VectorsUnusable."""
    # Before FAISS sees a byte of it: reading a damaged index can bring the whole process down.
    about, begin, expected = _described(file)
    end = os.fstat(file.fileno()).st_size - _TRAILER.size + _LENGTH.size
    if _checksum(file, end) != expected:
        raise VectorsDamaged("damaged: its checksum differs")
    return about, begin


def _checksum(file: BinaryIO, end: int) -> int:
    file.seek(0)
    left, checksum = end, 0
    while left and (data := file.read(min(_CHUNK, left))):
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    return checksum


def _arrays(index: CompressedIndex) -> list[NDArray[np.generic]]:
    vectors, means, probes = index.code.subspace, index.means, index.probes
    return [
        vectors.centre, vectors.projection, means.weights, means.subspace.centre, means.subspace.projection,
        probes.queries, probes.content_ids, probes.tokens, probes.similarities, probes.floors,
    ]  # fmt: skip


def _layout(probes: int) -> list[tuple[str, tuple[int, ...]]]:
    """Types and shapes of the arrays above."""
    return [
        ("<f4", (EMBEDDING_SIZE,)), ("<f4", (EMBEDDING_SIZE, EMBEDDING_SIZE)),
        ("<f4", (QUERY_TOKENS,)), ("<f4", (EMBEDDING_SIZE,)), ("<f4", (MEAN_DIMENSIONS, EMBEDDING_SIZE)),
        ("<f4", (probes, EMBEDDING_SIZE)), *[("<i8", (probes, KEPT))] * 2, ("<f4", (probes, KEPT)), ("<f4", (probes,)),
    ]  # fmt: skip


def _read(
    file: BinaryIO, directory: Path, about: dict[str, Any], end: int, origin: Origin
) -> tuple[PictureIndex, list[int] | None]:
    own = _origin(about)
    if own != origin:
        raise VectorsUnusable("of another library" if own.library != origin.library else "of another model")
    count = about["contents"]
    file.seek(end - 16 * count)
    content_ids = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
    checksums = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
    pictures = (content_ids, checksums)
    file.seek(0)
    if "compressed" in about:
        blocks = _blocks(directory, about, int(content_ids.max(initial=-1)))
        return _read_compressed(file, about, pictures, blocks), about["fingerprint"]
    return _read_exact(file, pictures), about["fingerprint"]


def _read_exact(file: BinaryIO, pictures: tuple[NDArray[np.int64], NDArray[np.int64]]) -> VectorIndex:
    index = faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK))
    vectors = QUERY_TOKENS * len(pictures[0])
    if not isinstance(index, faiss.IndexIDMap) or index.d != EMBEDDING_SIZE or index.ntotal != vectors:
        raise VectorsUnusable("of another kind")
    return VectorIndex(index, pictures)


def _blocks(directory: Path, about: dict[str, Any], last: int) -> Blocks:
    if not is_codes_file(about["codes"]):
        raise VectorsUnusable("of another kind")
    try:
        blocks = Blocks(directory / about["codes"])
    except FileNotFoundError:
        raise _CodesMissing from None
    if blocks.slots <= last:
        raise _CodesMissing
    return blocks


def _read_compressed(
    file: BinaryIO, about: dict[str, Any], pictures: tuple[NDArray[np.int64], NDArray[np.int64]], blocks: Blocks
) -> CompressedIndex:
    *means, scanner = (faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK)) for _ in range(PARTS + 1))
    kinds = [faiss.IndexIVFPQFastScan] * PARTS + [faiss.IndexPQFastScan]
    if not all(map(isinstance, (*means, scanner), kinds)):
        raise VectorsUnusable("of another kind")
    arrays = []
    for dtype, shape in _layout(about["probes"]):
        values = np.empty(shape, dtype)
        file.readinto(values.reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        arrays.append(values)
    centre, projection, weights, mean_centre, mean_projection, queries, best, tokens, similarities, floors = arrays
    return CompressedIndex(
        Code(Subspace(centre, projection), scanner),
        Means(weights, Subspace(mean_centre, mean_projection), means),
        Probes(queries, best, tokens, similarities, floors),
        Widths(**about["compressed"]),
        blocks,
        *pictures,
    )
