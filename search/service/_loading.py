"""The model, loaded once, in the background."""

import dataclasses
import logging
import threading
import time
from typing import TYPE_CHECKING, Literal

from indexer.errors import PhotoSeekError
from indexer.library import Library
from search.decoding import Decoding
from search.service._errors import RequestRefused
from search.service._logs import log_event
from search.service._settings import ServiceSettings

if TYPE_CHECKING:
    from indexer.model import Model
    from search.engine import SearchEngine

LoadState = Literal["loading", "ready", "failed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and the engine that searches with it."""

    model: "Model"
    engine: "SearchEngine"


class Loading:
    """The model on its way from disk to memory."""

    def __init__(self, library: Library, decoding: Decoding, settings: ServiceSettings) -> None:
        self._library = library
        self._decoding = decoding
        self._settings = settings
        self._thread = threading.Thread(target=self._load, name="load-model", daemon=True)
        self._loaded: Loaded | None = None
        self.error: str | None = None
        """Why it failed."""

    def start(self) -> None:
        """Start to load."""
        self._thread.start()

    def wait(self) -> None:
        """Return when loading has ended, well or not."""
        self._thread.join()

    @property
    def state(self) -> LoadState:
        if self._loaded is not None:
            return "ready"
        return "loading" if self.error is None else "failed"

    @property
    def device(self) -> str | None:
        """Where the model runs, once it is loaded."""
        return None if self._loaded is None else self._loaded.model.device

    def get(self) -> Loaded:
        """The model; RequestRefused (503) while it loads, or when it could not be loaded."""
        if self._loaded is not None:
            return self._loaded
        if self.error is not None:
            raise RequestRefused(503, "model_unavailable", self.error)
        raise RequestRefused(503, "model_loading", "The model is loading. Try again.", {"Retry-After": "2"})

    def _load(self) -> None:
        # Here, because importing them takes seconds, in which the service answers already.
        from indexer.model import load_model  # noqa: PLC0415
        from search.engine import SearchEngine  # noqa: PLC0415

        started = time.monotonic()
        try:
            active = self._library.active_model()
            name = self._settings.model or (active.name if active is not None else "compact")
            model = load_model(name, self._settings.device, self._settings.keep_loaded)
            self._loaded = Loaded(model, SearchEngine(self._library, model, self._decoding.pixels))
            seconds = round(time.monotonic() - started, 3)
            log_event("model loaded", model=model.identity.name, device=model.device, seconds=seconds)
        except PhotoSeekError as error:
            self.error = str(error)
            log_event("model not loaded", level=logging.ERROR, reason=self.error)
        except Exception as error:
            self.error = "The model could not be loaded; the service's log says why."
            log_event("model not loaded", level=logging.ERROR, error=error)
