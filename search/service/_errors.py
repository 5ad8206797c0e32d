"""One shape for every answer that is not a success: ``{"error": {"code", "message"}}``."""

import http
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from indexer.errors import (
    FolderNotFound,
    LibraryError,
    LibraryLocked,
    ModelError,
    ModelMismatch,
    PhotoNotFound,
    PhotoSeekError,
    PhotoUnreadable,
    QueryInvalid,
    ServiceError,
)
from search.document import printable
from search.service._logs import log_event


class RequestRefused(ServiceError):
    """A request that is answered with an error of HTTP alone: not allowed, too large, too early."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def busy(message: str) -> RequestRefused:
    """The refusal (503) of what exceeds a limit of things at once: the same request may be answered in a moment."""
    return RequestRefused(503, "busy", message, {"Retry-After": "1"})


# The first class that fits decides, so the particular ones stand before their bases.
_ANSWERS: tuple[tuple[type[PhotoSeekError], int, str], ...] = (
    (QueryInvalid, 422, "query_invalid"),
    (PhotoNotFound, 404, "photo_not_found"),
    (PhotoUnreadable, 422, "photo_unreadable"),
    (FolderNotFound, 422, "folder_not_found"),
    (ModelMismatch, 409, "model_mismatch"),
    (ModelError, 503, "model_unavailable"),
    (LibraryLocked, 409, "library_locked"),
    (LibraryError, 500, "library_error"),
    (PhotoSeekError, 500, "error"),
)


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer in the one shape that errors have."""
    return JSONResponse({"error": {"code": code, "message": printable(message)}}, status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of ``app`` in that shape."""
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(PhotoSeekError, _failed)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRefused)
    return error_response(error.status, error.code, str(error), error.headers)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    status, code = next((status, code) for kind, status, code in _ANSWERS if isinstance(error, kind))
    if status >= 500:
        log_event("request failed", level=logging.ERROR, error=error, code=code)
    return error_response(status, code, str(error))


async def _not_valid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(422, "request_invalid", "; ".join(_sentence(problem) for problem in error.errors()))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return error_response(error.status_code, code, str(error.detail), error.headers)


async def _unexpected(_: Request, __: Exception) -> JSONResponse:
    message = "Something went wrong in the service; its log says what. Please report it."
    return error_response(500, "internal_error", message, {"X-Content-Type-Options": "nosniff"})


def _sentence(problem: Mapping[str, Any]) -> str:
    # The first part of the location says query, path or body; a person knows.
    where = ".".join(str(part) for part in problem["loc"][1:]) or "request"
    return f"{where}: {problem['msg']}"
