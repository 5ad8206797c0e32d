"""What the routes share."""

import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from indexer.library import Library
from indexer.progress import Progress
from search.decoding import Decoding
from search.document import search_document
from search.query import SearchQuery, SearchResponse
from search.service._folders import AllowedFolders
from search.service._jobs import Jobs
from search.service._loading import Loading
from search.service._logs import log_event
from search.service._metrics import Metrics
from search.service._schemas import SearchAnswer
from search.service._settings import ServiceSettings
from search.service._workers import Workers

if TYPE_CHECKING:
    from PIL.Image import Image

    from indexer.pipeline import IndexSummary

VERSION = importlib.metadata.version("photoseek")


class Service:
    """One library, one model, and the threads that work for requests."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.library = Library.create(settings.library)
        self.decoding = Decoding(2, settings.max_upload_pixels, settings.decode_seconds)
        self.loading = Loading(self.library, self.decoding, settings)
        self.metrics = Metrics()
        self.searches = Workers("search", settings.search_threads, settings.waiting_searches)
        self.pictures = Workers("picture", 2, 64)
        self.folders = AllowedFolders(self.library, settings.indexable)
        self.jobs = Jobs(self._index, self.metrics)

    async def search(self, make_query: Callable[[], SearchQuery]) -> SearchAnswer:
        """Answer a query, made in the thread that answers it: decoding an upload takes a while."""
        engine = self.loading.get().engine
        asked = time.perf_counter()

        def answer() -> tuple[float, SearchResponse]:
            waited = time.perf_counter() - asked
            return waited, engine.search(make_query())

        waited, response = await self.searches.run(answer)
        self.tell_damage()
        self.metrics.time_search(waited, response.took_ms)
        document = search_document(response)
        for result in document["results"]:
            result.update(addresses(result["id"]))
        return SearchAnswer.model_validate(document)

    def decode_upload(self, data: bytes) -> "Image":
        """The picture in an uploaded file, as the engine takes it. Raises PhotoUnreadable."""
        return self.decoding.upload(data, self.loading.get().model.image_size)

    def tell_damage(self) -> None:
        """Log what proved damaged in the library's caches since this was last told."""
        for note in self.library.take_notes():
            log_event("cache damaged", level=logging.WARNING, note=note)

    async def close(self) -> None:
        """Let running work end, and save it. A model that still loads is left to itself."""
        await self.jobs.close()
        self.searches.close()
        self.pictures.close()
        self.decoding.close()
        self.library.close()

    def _index(
        self, folders: tuple[Path, ...], report: Callable[[Progress], None], cancelled: threading.Event
    ) -> "IndexSummary":
        from indexer.pipeline import index_folders  # noqa: PLC0415 - as heavy as the model: see Loading

        model = self.loading.get().model
        return index_folders(self.library, model, folders, on_progress=report, cancelled=cancelled)


def addresses(photo_id: int) -> dict[str, str]:
    """Where a photo's pictures are."""
    return {"thumbnail": f"/v1/photos/{photo_id}/thumbnail", "file": f"/v1/photos/{photo_id}/file"}


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


CurrentService = Annotated[Service, Depends(_service)]
