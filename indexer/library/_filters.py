"""Which photos pass the filters of a search."""

import datetime
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from sqlalchemy import ColumnElement, and_, false, func, literal, or_, select
from sqlalchemy.orm import Session

from indexer.library._folders import canonical, prefix
from indexer.library._records import Filters, Near
from indexer.library._tables import Content, Photo

PRESENT = (Photo.missing_since.is_(None), Photo.failure.is_(None), Content.failure.is_(None))
"""Conditions on a photo and its content: the file is there and is indexed."""
INDEXED = and_(
    Photo.missing_since.is_(None),
    Photo.failure.is_(None),
    Photo.content_id.is_not(None),
    Photo.content_id.not_in(select(Content.id).where(Content.failure.is_not(None))),
)
"""The same of a photo alone: no look at the content of each."""

_EARTH_RADIUS_KM = 6371.0088


def conditions(session: Session, filters: Filters, roots: Mapping[int, Path]) -> list[ColumnElement[bool]]:
    """Conditions on a present photo and its content. They say of ``near`` only that the photo has a place.

    roots: the outermost indexed folders.
    """
    found: list[ColumnElement[bool]] = list(PRESENT)
    if filters.folder is not None:
        found.append(_below(canonical(filters.folder), roots))
    if filters.after is not None:
        found.append(Content.taken_at >= datetime.datetime.combine(filters.after, datetime.time.min))
    if filters.before is not None:
        found.append(Content.taken_at <= datetime.datetime.combine(filters.before, datetime.time.max))
    if filters.camera is not None:
        found.append(Content.camera.in_(_cameras(session, filters.camera)))
    if filters.formats:
        found.append(Content.format.in_([name.upper() for name in filters.formats]))
    if filters.near is not None:
        found += [Content.latitude.is_not(None), Content.longitude.is_not(None)]
    return found


def within(near: Near, latitude: float, longitude: float) -> bool:
    """Whether a place lies in the circle, by the haversine formula."""
    there, here = math.radians(latitude), math.radians(near.latitude)
    half = math.radians(longitude - near.longitude) / 2
    chord = math.sin((there - here) / 2) ** 2 + math.cos(there) * math.cos(here) * math.sin(half) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord))) <= near.km


def _below(folder: Path, roots: Mapping[int, Path]) -> ColumnElement[bool]:
    return or_(false(), *_parts_below(folder, roots))


def _parts_below(folder: Path, roots: Mapping[int, Path]) -> Iterable[ColumnElement[bool]]:
    for folder_id, root in roots.items():
        if root.is_relative_to(folder):
            yield Photo.folder_id == folder_id
        elif folder.is_relative_to(root):
            yield (Photo.folder_id == folder_id) & starts_with(prefix(root, folder))


def starts_with(start: str) -> ColumnElement[bool]:
    """Condition on a photo's relative path. LIKE would take "A/" for "a/" in SQLite."""
    length = func.length(_escaped(start))
    return func.substr(Photo.relative_path, 1, length) == _escaped(start)


def _escaped(text: str) -> ColumnElement[str]:
    return literal(text, Photo.relative_path.type)


def _cameras(session: Session, part: str) -> list[str]:
    # In Python: lower() of SQLite knows only ASCII.
    known = session.scalars(select(Content.camera).distinct().where(Content.camera.is_not(None)))
    return [camera for camera in known if camera is not None and part.casefold() in camera.casefold()]
