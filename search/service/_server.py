import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from search.service._app import create_app
from search.service._connections import connection_class
from search.service._logs import LogLevel, log_event, logging_to_stderr
from search.service._service import Service
from search.service._settings import ServiceSettings

STOP_SECONDS = 30
"""Longest that requests in flight may take to end."""


def serve(settings: ServiceSettings, log_level: LogLevel = "info") -> None:
    """Run the service until SIGTERM or Ctrl-C; requests in flight are finished, and a running job is saved.

    Its log goes to standard error. Stopped while its model still loads, the service ends the process itself, with
    exit code 0. Raises LibraryTooNew or LibraryDamaged, and SystemExit when it cannot listen.
    """
    with logging_to_stderr(log_level):
        app = create_app(settings)
        service: Service = app.state.service
        try:
            _Server(uvicorn_config(app, settings), service).run()
        except SystemExit:
            service.loading.wait()
            raise
        log_event("stopped")
    if service.loading.state == "loading":
        # Its thread is deep in libraries that are only half imported: the interpreter cannot end around it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def uvicorn_config(app: FastAPI, settings: ServiceSettings) -> uvicorn.Config:
    """How Uvicorn is to serve the application."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=connection_class(settings),
        ws="none",
        log_config=None,
        # Addresses of requests hold what people search for.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                log_event("listening", address=listener.getsockname()[0], port=listener.getsockname()[1])

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
