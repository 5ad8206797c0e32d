"""What a library must answer, read with plain SQL and NumPy from what docs/library-format.md says of it."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import sqlite3
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.library import Library, Neighbour

_PRESENT = """
SELECT folder.path || '/' || photo.relative_path, content.id, content.digest, embedding.vectors
FROM photo JOIN folder ON folder.id = photo.folder_id JOIN content ON content.id = photo.content_id
JOIN embedding ON embedding.content_id = content.id JOIN model ON model.id = embedding.model_id AND model.active
WHERE photo.missing_since IS NULL AND photo.failure IS NULL AND content.failure IS NULL
"""
_RECORDED = """
SELECT folder.path, photo.relative_path, coalesce(photo.failure, content.failure)
FROM photo JOIN folder ON folder.id = photo.folder_id LEFT JOIN content ON content.id = photo.content_id
WHERE photo.missing_since IS NULL
"""
_CLOSE = 1e-5
"""Two similarities that differ by less may come in either order: sums of products, taken in another order."""


@dataclasses.dataclass(frozen=True)
class CatalogState:
    """The photos that a catalog says are there and indexed."""

    digests: dict[str, str]
    """Of the picture, by path."""
    rows: int
    """More than paths if a photo is there twice."""
    embeddings: dict[int, NDArray[np.float32]]
    """(32, 256) by content id."""
    digests_by_id: dict[int, str]

    def by_digest(self) -> dict[str, NDArray[np.float32]]:
        """(32, 256) by digest."""
        return {digest: self.embeddings[content_id] for content_id, digest in self.digests_by_id.items()}


def read_catalog(directory: Path) -> CatalogState:
    """Read it while nobody writes. A directory without a catalog has no photos."""
    catalog = directory / "catalog.sqlite"
    if not catalog.exists():
        return CatalogState({}, 0, {}, {})
    with contextlib.closing(sqlite3.connect(catalog)) as connection:
        rows = connection.execute(_PRESENT).fetchall()
    return CatalogState(
        digests={path: digest for path, _, digest, _ in rows},
        rows=len(rows),
        embeddings={
            content_id: np.frombuffer(vectors, "<f2").reshape(32, 256).astype(np.float32)
            for _, content_id, _, vectors in rows
        },
        digests_by_id={content_id: digest for _, content_id, digest, _ in rows},
    )


def accounted(directory: Path) -> tuple[set[bytes], dict[bytes, str]]:
    """Paths of the files that are indexed, and of those that failed with their reasons."""
    indexed: set[bytes] = set()
    failures: dict[bytes, str] = {}
    with contextlib.closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        for folder, relative, failure in connection.execute(_RECORDED):
            path = os.fsencode(f"{_unescaped(folder)}/{_unescaped(relative)}")
            if failure is None:
                indexed.add(path)
            else:
                failures[path] = failure
    return indexed, failures


def display(path: bytes) -> str:
    """For a line of text."""
    return path.decode(errors="replace").encode("unicode_escape").decode("ascii")


def _unescaped(text: str) -> str:
    return re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)


def digest_of(path: Path) -> str | None:
    """The digest that a file's picture is known by; None if it is not there."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except FileNotFoundError:
        return None


def wrong_answers(library: Library, state: CatalogState, queries: NDArray[np.float32]) -> list[str]:
    """How searches over (n, 256) queries differ from looking at every vector."""
    return [problem for query in queries if (problem := _wrong(library, state, query)) is not None]


def _wrong(library: Library, state: CatalogState, query: NDArray[np.float32]) -> str | None:
    found = library.nearest(query, len(state.embeddings) + 10)
    expected = {content_id: float((vectors @ query).max()) for content_id, vectors in state.embeddings.items()}
    if sorted(each.content_id for each in found) != sorted(expected):
        return f"found {len(found)} pictures, the catalog has {len(expected)}"
    return None if _in_order(found, expected) else "not in the order of brute force"


def _in_order(found: list[Neighbour], expected: dict[int, float]) -> bool:
    similarities = [expected[each.content_id] for each in found]
    close = all(abs(each.similarity - right) < _CLOSE for each, right in zip(found, similarities, strict=True))
    return close and all(before > after - _CLOSE for before, after in itertools.pairwise(similarities))
