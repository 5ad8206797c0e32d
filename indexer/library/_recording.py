"""Writes files and pictures into the catalog."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from indexer.library import _catalog as catalog
from indexer.library._folders import homes
from indexer.library._records import IndexedFile, NewContent
from indexer.library._tables import Content, Embedding, Photo

_LARGEST = 2**63 - 1

_Place = tuple[int, str]


def record_contents(session: Session, contents: Sequence[NewContent], model_id: int | None) -> None:
    """Record pictures, or what is new about known ones. A later one of the same digest replaces an earlier."""
    by_digest = {content.digest: content for content in contents}
    known = content_ids(session, list(by_digest))
    added = [_content_row(content) for content in by_digest.values() if content.digest not in known]
    if added:
        session.execute(insert(Content), added)
    changed = [
        {"id": known[content.digest], **_content_row(content)}
        for content in by_digest.values()
        if content.digest in known and (content.facts is not None or content.failure is not None)
    ]
    if changed:
        session.execute(update(Content), changed)
    _record_embeddings(session, [content for content in by_digest.values() if content.embeddings is not None], model_id)


def record_files(session: Session, files: Sequence[IndexedFile]) -> None:
    """Record files; of two for one path, the later."""
    home = homes(catalog.folder_paths(session))
    placed: dict[_Place, IndexedFile] = {}
    for file in files:
        at = home[file.folder_id]
        placed[at.folder_id, at.prefix + file.relative_path] = file
    contents = content_ids(session, [file.digest for file in placed.values() if file.digest is not None])
    there = _rows_at(session, list(placed))
    before = _rows_before(session, placed, there)
    rows = [_photo_row(place, file, before.get(place), contents) for place, file in placed.items()]
    # Taken out and put back under their ids: files that exchanged their names would else stand in each other's way.
    stale = {row.id for row in there.values()} | {row.id for row in before.values()}
    session.expunge_all()
    for chunk in catalog.chunks(list(stale)):
        session.execute(delete(Photo).where(Photo.id.in_(chunk)).execution_options(synchronize_session=False))
    for with_id in (True, False):
        if some := [row for row in rows if ("id" in row) is with_id]:
            session.execute(insert(Photo), some)


def content_ids(session: Session, digests: Sequence[str]) -> dict[str, int]:
    """Ids of the pictures that the catalog knows, by digest."""
    found: dict[str, int] = {}
    for chunk in catalog.chunks(digests):
        found |= {
            row[0]: row[1]
            for row in session.execute(select(Content.digest, Content.id).where(Content.digest.in_(chunk)))
        }
    return found


def _content_row(content: NewContent) -> dict[str, Any]:
    facts = {} if content.facts is None else dataclasses.asdict(content.facts)
    row = {
        name: facts.get(name) for name in ("width", "height", "format", "taken_at", "camera", "latitude", "longitude")
    }
    return {"digest": content.digest, "failure": content.failure, **row}


def _record_embeddings(session: Session, contents: Sequence[NewContent], model_id: int | None) -> None:
    if not contents:
        return
    ids = content_ids(session, [content.digest for content in contents])
    rows = []
    for content in contents:
        assert content.embeddings is not None
        vectors, checksum = catalog.pack_embeddings(content.embeddings)
        rows.append({"content_id": ids[content.digest], "model_id": model_id, "checksum": checksum, "vectors": vectors})
    for chunk in catalog.chunks(list(ids.values())):
        session.execute(delete(Embedding).where(Embedding.model_id == model_id, Embedding.content_id.in_(chunk)))
    session.execute(insert(Embedding), rows)


def _rows_at(session: Session, places: Sequence[_Place]) -> dict[_Place, Photo]:
    found: dict[_Place, Photo] = {}
    for folder_id in {place[0] for place in places}:
        for chunk in catalog.chunks([path for folder, path in places if folder == folder_id]):
            at = select(Photo).where(Photo.folder_id == folder_id, Photo.relative_path.in_(chunk))
            found |= {(row.folder_id, row.relative_path): row for row in session.scalars(at)}
    return found


def _rows_before(
    session: Session, placed: Mapping[_Place, IndexedFile], there: Mapping[_Place, Photo]
) -> dict[_Place, Photo]:
    # The row that each file is: the row it names, else the row of its path unless another file names that one.
    named = {file.photo_id: place for place, file in placed.items() if file.photo_id is not None}
    by_id: dict[int, Photo] = {}
    for chunk in catalog.chunks(list(named)):
        by_id |= {row.id: row for row in session.scalars(select(Photo).where(Photo.id.in_(chunk)))}
    before = {named[photo_id]: row for photo_id, row in by_id.items()}
    for place, row in there.items():
        if row.id not in by_id:
            before.setdefault(place, row)
    return before


def _photo_row(place: _Place, file: IndexedFile, before: Photo | None, contents: Mapping[str, int]) -> dict[str, Any]:
    if file.digest is not None and file.digest not in contents:
        raise ValueError(f"no content of digest {file.digest} for {file.relative_path!r}: commit both together")
    if file.digest is not None:
        content_id: int | None = contents[file.digest]
    else:
        # Unreadable now, but it may be the same picture again tomorrow.
        content_id = None if before is None else before.content_id
    same = before is not None and (before.content_id, before.failure) == (content_id, file.failure)
    row = {
        "folder_id": place[0],
        "relative_path": place[1],
        "size": file.size,
        # Some file systems have times beyond 64 bits of nanoseconds.
        "mtime_ns": max(-_LARGEST, min(_LARGEST, file.mtime_ns)),
        "content_id": content_id,
        "failure": file.failure,
        "recorded_at": before.recorded_at if same and before is not None else datetime.datetime.now(datetime.UTC),
        "missing_since": None,
    }
    return row if before is None else {"id": before.id, **row}
