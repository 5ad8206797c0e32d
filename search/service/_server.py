import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import uvicorn

from search.service._app import create_app
from search.service._service import Service
from search.service._settings import ServiceSettings


def serve(settings: ServiceSettings) -> None:
    """Run the service until SIGTERM or Ctrl-C; requests in flight are finished, and a running job is saved.

    Raises LibraryTooNew or LibraryDamaged.
    """
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # Addresses of requests hold what people search for.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )
    _Server(config, app.state.service).run()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Now, not after the last connection has closed: those that watch the job close when it ends.
        self._service.jobs.stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like the original, but a signal that was obeyed is not raised again afterwards: the process exits with 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
