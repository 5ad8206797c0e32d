"""How many connections there may be at once, and how long a client may keep one waiting."""

import asyncio
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from search.service._settings import ServiceSettings


def connection_class(limits: ServiceSettings) -> type[H11Protocol]:
    """The protocol that Uvicorn speaks on each connection, within these limits."""

    class LimitedConnection(_Connection):
        settings = limits

    return LimitedConnection


class _Connection(H11Protocol):
    """HTTP/1.1, with two things that Uvicorn leaves to others.

    A client that sends no request, sends it too slowly, or does not read the answer is cut off: Uvicorn only ends
    connections on which nothing follows an answer. And where there are too many connections, the one that has gone
    longest without a request makes room: who only opens connections shuts out nobody but himself.
    """

    settings: ClassVar[ServiceSettings]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        """When it began to wait for a request; None while one is answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > self.settings.connections:
            self._longest_idle()._cut_off()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._idle_since is not None and self._is_answering():
            self._idle_since = None
            self._expect_nothing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering():  # the next request may have been here already
            self._await_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_answering():
            self._expect_nothing()
        else:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        self._idle_since = time.monotonic()
        self._expect()

    def _expect(self) -> None:
        """It is the client's turn, for so long."""
        self._expect_nothing()
        self._deadline = self.loop.call_later(self.settings.client_seconds, self._cut_off)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        self._idle_since = None
        self.transport.abort()

    def _longest_idle(self) -> "_Connection":
        idle = [each for each in self.connections if isinstance(each, _Connection) and each._idle_since is not None]
        return min(idle, key=lambda each: each._idle_since or 0, default=self)
