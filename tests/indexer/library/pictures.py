"""Pictures for library tests: made-up vectors, and the plain numpy way to search them."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.facts import PhotoFacts
from indexer.library import IndexedFile, NewContent, Writer

MODEL = ModelIdentity("compact", "1", "ab" * 32)
OTHER_MODEL = ModelIdentity("/models/\udcff", "local", "cd" * 32)
FACTS = PhotoFacts(width=640, height=480, format="JPEG")


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    scaled: NDArray[np.floating] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled.astype(np.float32)


def random_embeddings(rng: np.random.Generator, count: int) -> NDArray[np.float16]:
    return unit(rng.standard_normal((count, QUERY_TOKENS, EMBEDDING_SIZE))).astype(np.float16)


def embeddings_of(name: str) -> NDArray[np.float16]:
    """Always the same (32, 256) for the same name."""
    embeddings: NDArray[np.float16] = random_embeddings(np.random.default_rng(list(name.encode())), 1)[0]
    return embeddings


def query_for(name: str) -> NDArray[np.float32]:
    """A query that the picture of this name is nearest to."""
    return unit(embeddings_of(name)[7].astype(np.float32))


def picture(name: str, facts: PhotoFacts = FACTS) -> NewContent:
    """A picture whose digest is its name."""
    return NewContent(name, facts, embeddings=embeddings_of(name))


def file(
    folder_id: int, path: str, digest: str | None, *, photo_id: int | None = None, mtime_ns: int = 5
) -> IndexedFile:
    return IndexedFile(folder_id, path, size=100, mtime_ns=mtime_ns, digest=digest, photo_id=photo_id)


def add(writer: Writer, folder_id: int, names: Iterable[str]) -> None:
    """Commit pictures, each in one file called as it is."""
    names = list(names)
    writer.commit([file(folder_id, f"{name}.jpg", name) for name in names], [picture(name) for name in names])


def brute_force(
    query: NDArray[np.float32], embeddings: NDArray[np.float16], ids: Sequence[int], k: int
) -> list[tuple[int, float]]:
    """The best k of all (n, 32, 256) by max-similarity, equal ones by id."""
    similarities = np.array(
        [(each.astype(np.float64) @ query.astype(np.float64)).max() for each in embeddings], np.float32
    )
    order = sorted(range(len(ids)), key=lambda place: (-similarities[place], ids[place]))
    return [(ids[place], float(similarities[place])) for place in order[:k]]


def with_facts(facts: PhotoFacts = FACTS, **changes: object) -> PhotoFacts:
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]
