"""Deletes what a writer that was killed, or failed, left in the caches."""

import contextlib

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from indexer.library._caches import Caches
from indexer.library._tables import Content


def sweep(engine: Engine, caches: Caches) -> None:
    """Delete files that are half written, and those of pictures that were never recorded."""
    with Session(engine) as session:
        known = set(session.scalars(select(Content.digest)))
    for kind in caches.all().values():
        for cache in kind:
            for path in cache.files():
                if cache.digest_of(path) not in known:
                    with contextlib.suppress(OSError):
                        path.unlink()
