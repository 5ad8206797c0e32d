"""Who may ask, checked before any route sees the request."""

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.service._errors import RequestRefused, error_response
from search.service._settings import PROBES, ServiceSettings, is_loopback

_OPEN_PATHS = (*PROBES, "/docs", "/openapi.json", "/static-offline-docs/")
"""Answered without a token: probes carry none, and the documentation page, where one is typed in, holds no photo."""
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Pages of other sites may not embed photos; the app, on another port of this machine, may.
    "Cross-Origin-Resource-Policy": "same-site",
}


class Guard:
    """ASGI middleware: refuses requests of strangers, and oversized ones; marks every answer."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings
        self._names = {name.lower() for name in (settings.host, *settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
        except RequestRefused as refusal:
            answer = error_response(refusal.status, refusal.code, str(refusal), refusal.headers)
            await answer(scope, receive, send_marked)
            return
        await self._app(scope, receive, send_marked)

    def _check(self, scope: Scope, headers: Headers) -> None:
        self._check_host(headers)
        if not scope["path"].startswith(_OPEN_PATHS):
            self._check_token(headers)
        if scope["method"] in _SAFE_METHODS:
            _check_reader(headers)
        else:
            _check_origin(headers, scope["scheme"])
        self._check_size(headers)

    def _check_host(self, headers: Headers) -> None:
        """Refuse foreign names.

        A web page can point its own name at 127.0.0.1 (DNS rebinding) and then read answers as its own; its requests
        still carry that name.
        """
        name = _host_name(headers.get("host", ""))
        if is_loopback(name) or name in self._names:
            return
        if not self._settings.on_loopback and _is_address(name):
            return
        raise RequestRefused(
            421,
            "host_unknown",
            "The service is not known by that name. Use its address, or start it with that name allowed.",
        )

    def _check_token(self, headers: Headers) -> None:
        if self._settings.token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._settings.token.strip().encode())
        if scheme.lower() != "bearer" or not right:
            message = "The service needs its token: send the header Authorization: Bearer TOKEN."
            raise RequestRefused(401, "token_invalid", message, {"WWW-Authenticate": "Bearer"})

    def _check_size(self, headers: Headers) -> None:
        if "transfer-encoding" in headers:
            raise RequestRefused(411, "length_required", "Send the request with a Content-Length.")
        length = headers.get("content-length", "0")
        form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        most = self._settings.max_body_bytes if form else self._settings.max_json_bytes
        if not length.isdecimal() or int(length) > most:
            raise RequestRefused(413, "too_large", f"The request is too large. Send at most {most:,} bytes.")


def _check_origin(headers: Headers, scheme: str) -> None:
    """Only pages of the service itself, and programs that are no browser, may change anything."""
    # A proxy with TLS need not say that it is one; where it does, no page that came in the clear may.
    own = [f"{each}://{headers.get('host')}" for each in {scheme, "https"}]
    if headers.get("origin", own[0]) not in own or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RequestRefused(403, "cross_origin", "A page of another site may not change anything here.")


def _check_reader(headers: Headers) -> None:
    """Pages of other sites may link here. They cannot read answers, nor may they make the service work for nothing."""
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        raise RequestRefused(403, "cross_origin", "A page of another site may not use this service.")


def _host_name(host: str) -> str:
    """Name or address of a Host header, in lower case, without port and brackets; empty when it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
