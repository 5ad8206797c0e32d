"""Photos and failures as they are read from the catalog."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from indexer.errors import PhotoNotFound
from indexer.facts import PhotoFacts
from indexer.library import _catalog as catalog
from indexer.library._filters import conditions, within
from indexer.library._records import FailureRecord, Filters, PhotoRecord
from indexer.library._tables import Content, Photo

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def photo(session: Session, photo_id: int) -> PhotoRecord:
    """Raises PhotoNotFound for an id that is not of a present, indexed photo."""
    row = session.execute(
        select(Photo, Content).outerjoin(Content, Content.id == Photo.content_id).where(Photo.id == photo_id)
    ).one_or_none()
    if row is None:
        raise PhotoNotFound(f"There is no photo {photo_id} in the library.")
    file, content = row
    roots = catalog.root_paths(session)
    path = roots[file.folder_id] / file.relative_path
    if file.missing_since is not None:
        raise PhotoNotFound(f"The file of photo {photo_id} is gone: {path}. If it is back, index its folder again.")
    if file.failure is not None or content is None or content.failure is not None:
        reason = file.failure or (content.failure if content is not None else None)
        raise PhotoNotFound(f"Photo {photo_id} could not be indexed: {path}: {reason}")
    return _record(file, content, roots[file.folder_id])


def photos_of(session: Session, content_ids: Sequence[int], filters: Filters) -> dict[int, list[PhotoRecord]]:
    """Present photos of each of the pictures that pass the filters, by path; no entry for a picture without any."""
    roots = catalog.root_paths(session)
    where = conditions(session, filters, roots)
    found: dict[int, list[PhotoRecord]] = {}
    for chunk in catalog.chunks(content_ids):
        rows = session.execute(
            select(Photo, Content)
            .join(Content, Content.id == Photo.content_id)
            .where(Content.id.in_(chunk), *where)
            .order_by(Photo.folder_id, Photo.relative_path)
        )
        for file, content in rows:
            if filters.near is None or within(filters.near, content.latitude or 0.0, content.longitude or 0.0):
                found.setdefault(content.id, []).append(_record(file, content, roots[file.folder_id]))
    return found


def failures(session: Session) -> list[FailureRecord]:
    """Present files that could not be indexed, by path."""
    roots = catalog.root_paths(session)
    rows = session.execute(
        select(Photo.folder_id, Photo.relative_path, func.coalesce(Photo.failure, Content.failure), Photo.recorded_at)
        .outerjoin(Content, Content.id == Photo.content_id)
        .where(Photo.missing_since.is_(None), or_(Photo.failure.is_not(None), Content.failure.is_not(None)))
    )
    return sorted(
        (FailureRecord(roots[row[0]] / row[1], row[2], row[3]) for row in rows), key=lambda failed: failed.path
    )


def _record(file: Photo, content: Content, folder: Path) -> PhotoRecord:
    return PhotoRecord(
        id=file.id,
        content_id=content.id,
        path=folder / file.relative_path,
        folder=folder,
        size=file.size,
        modified_at=_moment(file.mtime_ns),
        facts=PhotoFacts(
            width=content.width or 0,
            height=content.height or 0,
            format=content.format or "",
            taken_at=content.taken_at,
            camera=content.camera,
            latitude=content.latitude,
            longitude=content.longitude,
        ),
    )


def _moment(nanoseconds: int) -> datetime.datetime:
    try:
        return _EPOCH + datetime.timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:  # a broken clock or file system: beyond the year 9999, or before the year 1
        return _EPOCH
