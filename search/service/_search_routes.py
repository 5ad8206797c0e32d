import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from search.query import SearchQuery
from search.service._errors import RequestRefused
from search.service._schemas import SearchAnswer, SearchRequest, errors
from search.service._service import CurrentService, Service

router = APIRouter(prefix="/v1", tags=["search"], responses=errors(404, 409, 422))

_LISTS = ("not", "format")


def _request_body() -> dict[str, Any]:
    schema = SearchRequest.model_json_schema()
    image = {"type": "string", "format": "binary", "description": "A picture that results should resemble."}
    form = {**schema, "properties": {**schema["properties"], "image": image}}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}},
        }
    }


@router.get("/search", summary="Search by words, or by an indexed photo")
async def search(service: CurrentService, request: Annotated[SearchRequest, Query()]) -> SearchAnswer:
    """One page of the ranking, best first: reranked photos, then the others by similarity."""
    return await service.search(request.query)


@router.post(
    "/search",
    summary="Search, also by an uploaded picture",
    openapi_extra=_request_body(),
    responses=errors(400, 408, 411, 413, 415),
)
async def search_with_body(service: CurrentService, request: Request) -> SearchAnswer:
    """The same as GET, with the same fields: as JSON, or as a form, which may carry a picture."""
    match request.headers.get("content-type", "").partition(";")[0].strip().lower():
        case "application/json":
            asked = _validated(await request.body())
            return await service.search(asked.query)
        case "multipart/form-data":
            async with _form(request) as form:
                image, asked = _image(form), _validated(_fields(form))
                return await service.search(lambda: _query(service, asked, image))
    raise RequestRefused(415, "media_type", "Send application/json, or multipart/form-data with an image.")


@contextlib.asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """The fields of a form. Its picture is kept on the disk, but for a small one."""
    try:
        form = await request.form(max_files=1, max_fields=100, max_part_size=2**16)
    except OSError as error:
        raise RequestRefused(
            503,
            "no_room",
            f"The service cannot keep the picture while it arrives: {error.strerror or error}. Try again later, or "
            "free some space where its temporary files are ($TMPDIR).",
            {"Retry-After": "30"},
        ) from error
    try:
        yield form
    finally:
        await form.close()


def _validated(content: bytes | dict[str, Any]) -> SearchRequest:
    try:
        if isinstance(content, bytes):
            return SearchRequest.model_validate_json(content)
        return SearchRequest.model_validate(content)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None


def _fields(form: FormData) -> dict[str, Any]:
    return {name: form.getlist(name) if name in _LISTS else form[name] for name in form if name != "image"}


def _image(form: FormData) -> BinaryIO | None:
    part = form.get("image")
    if part is None:
        return None
    if not isinstance(part, UploadFile):
        raise RequestRefused(422, "request_invalid", "image: send it as a file.")
    return part.file


def _query(service: Service, asked: SearchRequest, image: BinaryIO | None) -> SearchQuery:
    return asked.query(None if image is None else service.decode_upload(image.read()))
