"""The app's one connection to the search service, and what is remembered of its answers."""

import functools
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import streamlit as st

from indexer.errors import PhotoUnreadable, ServiceError
from indexer.photos import open_rgb
from ui.client import Client, Facets, Photo, Results, Search

_PREVIEW_SIDE = 1600


class Pictures:
    """Pictures of photos as bytes that a browser can show, the latest kept in memory."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(8, "thumbnails")
        # The size is part of the key, so that an edited file is fetched again.
        self._thumbnail = functools.lru_cache(2000)(lambda photo_id, _size: client.thumbnail(photo_id))
        self._preview = functools.lru_cache(32)(lambda photo_id, _size: _browser_picture(client.file(photo_id)))

    def thumbnails(self, photos: Sequence[Photo]) -> list[bytes | None]:
        """Small pictures; None for one that the service cannot give."""
        return list(self._threads.map(self.thumbnail, photos))

    def thumbnail(self, photo: Photo) -> bytes | None:
        """A small picture, None if the service cannot give it."""
        try:
            return self._thumbnail(photo.id, photo.size)
        except ServiceError:
            return None

    def preview(self, photo: Photo) -> bytes:
        """A large picture from the original file. Raises NotFound when that is gone."""
        return self._preview(photo.id, photo.size)


@st.cache_resource(show_spinner=False)
def client() -> Client:
    """The connection, shared by all sessions."""
    return Client.from_environment()


@st.cache_resource(show_spinner=False)
def pictures() -> Pictures:
    """The picture store, shared by all sessions."""
    return Pictures(client())


@st.cache_data(ttl=60, max_entries=100, show_spinner=False)
def results(search: Search) -> Results:
    """The answer to a search; for a minute the same one, so that opening a photo does not search again."""
    return client().search(search)


@st.cache_data(ttl=10, show_spinner=False)
def facets() -> Facets:
    """What the library can be filtered by."""
    return client().facets()


def forget_answers() -> None:
    """The library changed: ask again."""
    results.clear()
    facets.clear()


@st.cache_data(max_entries=20, show_spinner=False)
def small_picture(file: bytes) -> bytes | None:
    """A small copy of an uploaded picture; None if it cannot be read, which the search will say."""
    try:
        return _browser_picture(file, 160)
    except PhotoUnreadable:
        return None


def _browser_picture(file: bytes, side: int = _PREVIEW_SIDE) -> bytes:
    picture = open_rgb(io.BytesIO(file), at_least=side)
    picture.thumbnail((side, side))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=88)
    return jpeg.getvalue()
