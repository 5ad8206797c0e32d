"""How many requests are taken at once, how large they may be together, and how long one may take to arrive."""

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.service._errors import busy, error_response
from search.service._settings import PROBES, ServiceSettings


class Admission:
    """ASGI middleware: refuses requests beyond so many at once, probes excepted, and ends those that never arrive.

    The length that a request gives for its body has been checked.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._room = settings.requests_at_once
        self._bytes = settings.bytes_at_once
        self._client_seconds = settings.client_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        length = int(Headers(scope=scope).get("content-length", "0"))
        if self._room == 0 or length > self._bytes:
            refusal = busy("Too many requests at once. Try again.")
            answer = error_response(refusal.status, refusal.code, str(refusal), refusal.headers)
            await answer(scope, receive, send)
            return
        self._room -= 1
        self._bytes -= length
        try:
            await self._app(scope, _in_time(receive, self._client_seconds), send)
        finally:
            self._room += 1
            self._bytes += length


def _in_time(receive: Receive, seconds: float) -> Receive:
    """As ``receive``, but HTTPException (408) when the request is not here ``seconds`` after it began."""
    deadline = asyncio.get_running_loop().time() + seconds
    arrived = False

    async def received() -> Message:
        nonlocal arrived
        if arrived:  # what follows is that the client leaves, some time
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"The request did not arrive within {seconds:g} seconds. Send it again.") from None
        arrived = not message.get("more_body", False)
        return message

    return received
