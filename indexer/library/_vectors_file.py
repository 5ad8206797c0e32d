"""vectors.faiss: a FAISS index, followed by what it was made of.

The file is what ``faiss.write_index`` writes, then content ids and checksums (n little-endian int64 each), a JSON
object, and a trailer: length of the JSON (uint32), CRC-32 of all that precedes it (uint32), and 8 bytes of magic.
FAISS reads its part and ignores the rest.
"""

import dataclasses
import json
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import faiss
import numpy as np

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.library._vectors import VectorIndex

_MAGIC = b"PSvec\r\n1"
_LENGTH = struct.Struct("<I")
_TRAILER = struct.Struct("<II8s")
_CHUNK = 1 << 23


class VectorsUnusable(Exception):
    """The file is missing, damaged or of something else; the message says which."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What vectors are of."""

    library: str
    """The catalog's own id."""
    model: ModelIdentity


def save_vectors(path: Path, index: VectorIndex, origin: Origin) -> None:
    """Write the file anew: whoever reads it at any instant finds the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, index, origin)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_vectors(path: Path, origin: Origin) -> VectorIndex:
    """Read the file. Raises VectorsUnusable unless it is whole and of this origin."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _checked(file, size)
            return _read(file, size - _TRAILER.size - length, length, origin)
    except FileNotFoundError:
        raise VectorsUnusable("missing") from None
    except OSError as error:
        raise VectorsUnusable(f"unreadable: {error}") from error


def _write(file: BinaryIO, index: VectorIndex, origin: Origin) -> None:
    checksum = 0

    def write(data: bytes) -> int:
        nonlocal checksum
        checksum = zlib.crc32(data, checksum)
        return file.write(data)

    faiss.write_index(index.faiss, faiss.PyCallbackIOWriter(write, _CHUNK))
    write(index.content_ids.astype("<i8").tobytes())
    write(index.checksums.astype("<i8").tobytes())
    about = {
        "library": origin.library,
        "model": dataclasses.asdict(origin.model),
        "contents": len(index),
    }
    # JSON in ASCII: a model's name may be a path, and a path may be no UTF-8.
    description = json.dumps(about).encode("ascii")
    write(description)
    write(_LENGTH.pack(len(description)))
    file.write(_TRAILER.pack(len(description), checksum, _MAGIC)[_LENGTH.size :])


def _checked(file: BinaryIO, size: int) -> int:
    # Before FAISS sees a byte of it: reading a damaged index can bring the whole process down.
    if size < _TRAILER.size:
        raise VectorsUnusable("damaged: too short")
    file.seek(size - _TRAILER.size)
    length, expected, magic = _TRAILER.unpack(file.read(_TRAILER.size))
    if magic != _MAGIC:
        raise VectorsUnusable("damaged: its end is not there")
    file.seek(0)
    left, checksum = size - _TRAILER.size + _LENGTH.size, 0
    while left and (data := file.read(min(_CHUNK, left))):
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    if left or checksum != expected or length > size - _TRAILER.size:
        raise VectorsUnusable("damaged: its checksum differs")
    return int(length)


def _read(file: BinaryIO, description_at: int, length: int, origin: Origin) -> VectorIndex:
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
    index = faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK))
    if not isinstance(index, faiss.IndexIDMap) or index.d != EMBEDDING_SIZE or index.ntotal != QUERY_TOKENS * count:
        raise VectorsUnusable("of another kind")
    return VectorIndex(index, (content_ids, checksums))
