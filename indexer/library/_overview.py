"""Counts over the whole library."""

from collections import Counter
from pathlib import Path, PurePosixPath

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from indexer.library import _catalog as catalog
from indexer.library._filters import PRESENT
from indexer.library._records import Facet, Facets, FolderStatus, ModelRecord
from indexer.library._tables import Content, Embedding, ModelRow, Photo


def facets(session: Session) -> Facets:
    """What the present photos can be filtered by."""
    taken = session.execute(
        select(func.min(Content.taken_at), func.max(Content.taken_at))
        .join(Photo, Photo.content_id == Content.id)
        .where(*PRESENT)
    ).one()
    folders = _photos_below(session)
    return Facets(
        folders=tuple(Facet(str(path), folders[path]) for path in sorted(folders)),
        cameras=_counted(session, Content.camera),
        formats=_counted(session, Content.format),
        earliest=taken[0],
        latest=taken[1],
    )


def folder_statuses(session: Session) -> tuple[FolderStatus, ...]:
    """Every indexed folder, by path."""
    counts = _photos_below(session)
    return tuple(FolderStatus(path, counts[path]) for path in sorted(catalog.folder_paths(session).values()))


def counts(session: Session) -> dict[str, int]:
    """Photos, distinct pictures, failed and missing files."""
    photos, pictures = session.execute(
        select(func.count(), func.count(Photo.content_id.distinct()))
        .select_from(Photo)
        .join(Content, Content.id == Photo.content_id)
        .where(*PRESENT)
    ).one()
    return {
        "photos": photos,
        "pictures": pictures,
        "failed": _count_files(
            session, Photo.missing_since.is_(None), or_(Photo.failure.is_not(None), Content.failure.is_not(None))
        ),
        "missing": _count_files(session, Photo.missing_since.is_not(None)),
    }


def models(session: Session) -> list[ModelRecord]:
    """Every model that the library knows, and for how many pictures it has its vectors."""
    rows = session.execute(
        select(ModelRow, func.count(Embedding.content_id))
        .outerjoin(Embedding, Embedding.model_id == ModelRow.id)
        .group_by(ModelRow.id)
        .order_by(ModelRow.id)
    )
    return [ModelRecord(catalog.identity(model), model.active, embedded) for model, embedded in rows]


def _photos_below(session: Session) -> Counter[Path]:
    found: Counter[Path] = Counter()
    rows = session.execute(
        select(Photo.folder_id, Photo.relative_path).join(Content, Content.id == Photo.content_id).where(*PRESENT)
    )
    directories = Counter((row[0], row[1].rpartition("/")[0]) for row in rows)
    roots = catalog.root_paths(session)
    for (folder_id, directory), photos in directories.items():
        path = PurePosixPath(directory)
        for below in (path, *path.parents):
            found[roots[folder_id] / below] += photos
    return found


def _counted(session: Session, column: InstrumentedAttribute[str | None]) -> tuple[Facet, ...]:
    rows = session.execute(
        select(column, func.count())
        .join(Photo, Photo.content_id == Content.id)
        .where(column.is_not(None), *PRESENT)
        .group_by(column)
        .order_by(column)
    )
    return tuple(Facet(value, count) for value, count in rows if value is not None)


def _count_files(session: Session, *where: ColumnElement[bool]) -> int:
    files = select(func.count()).select_from(Photo).outerjoin(Content, Content.id == Photo.content_id).where(*where)
    return session.execute(files).scalar_one()
