import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response, StreamingResponse

from indexer.errors import PhotoNotFound, PhotoUnreadable
from indexer.library import Library, PhotoRecord
from indexer.photos import open_regular
from search._originals import unchanged
from search.document import photo_document, printable
from search.query import DEPTH, SearchQuery
from search.service._schemas import MAX_ID, MAX_TOP, PhotoAnswer, SearchAnswer, errors
from search.service._service import CurrentService, Service, addresses

router = APIRouter(prefix="/v1/photos/{photo_id}", tags=["photos"], responses=errors(404, 422))

PhotoId = Annotated[int, PathParameter(ge=1, le=MAX_ID, description="Id of a photo, as results give it.")]

_SHOWN_BY_BROWSERS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}
_CHUNK = 1 << 18


@router.get("", summary="What is known about a photo")
def photo(service: CurrentService, photo_id: PhotoId) -> PhotoAnswer:
    """Its file, its EXIF facts, and other files of the same picture."""
    record = service.library.photo(photo_id)
    files = service.library.photos_of([record.content_id]).get(record.content_id, [])
    copies = [printable(file.path) for file in files if file.id != record.id]
    return PhotoAnswer.model_validate(
        {
            **photo_document(record),
            **addresses(record.id),
            "copies": copies,
            "folder": printable(record.folder),
            "modified_at": record.modified_at,
        }
    )


@router.get(
    "/thumbnail",
    summary="A small picture of it",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}, 304: {"description": "Not changed."}},
)
async def thumbnail(service: CurrentService, request: Request, photo_id: PhotoId) -> Response:
    """A WebP, its longest side at most 512 pixels."""
    webp = await service.pictures.run(lambda: _thumbnail(service, photo_id))
    headers = {
        "ETag": f'"{hashlib.blake2b(webp, digest_size=16).hexdigest()}"',
        "Cache-Control": "private, max-age=300",
    }
    if _known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(webp, media_type="image/webp", headers=headers)


@router.get(
    "/file",
    summary="The photo in full size",
    response_class=Response,
    responses={200: {"content": {"image/*": {}, "application/octet-stream": {}}}, 304: {"description": "Not changed."}},
)
async def file(
    service: CurrentService,
    request: Request,
    photo_id: PhotoId,
    original: Annotated[bool, Query(description="The very bytes of the file, as a download.")] = False,
) -> Response:
    """A picture that a browser can show: the file itself, or a JPEG made of it where browsers lack the format. It comes
    whole, whatever part is asked for.
    """
    record, etag = await service.pictures.run(lambda: _present(service.library, photo_id))
    headers = {
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if _known(request, etag):
        return Response(status_code=304, headers=headers)
    media_type = _SHOWN_BY_BROWSERS.get(record.facts.format)
    if original:
        media_type = "application/octet-stream"
        name = quote(printable(Path(record.path.name)), safe="")
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    if media_type is None:
        jpeg = await service.pictures.run(lambda: service.decoding.jpeg(record.path))
        return Response(jpeg, media_type="image/jpeg", headers=headers)
    stream, size = await service.pictures.run(lambda: _opened(record))
    headers["Content-Length"] = str(size)
    return StreamingResponse(_chunks(stream, size), media_type=media_type, headers=headers)


@router.get("/similar", summary="Photos that resemble it", responses=errors(409))
async def similar(
    service: CurrentService,
    photo_id: PhotoId,
    top: Annotated[int, Query(ge=1, le=MAX_TOP, description="Results of one page.")] = 20,
    offset: Annotated[int, Query(ge=0, le=DEPTH, description="Results to skip.")] = 0,
) -> SearchAnswer:
    """The most similar first, without the photo itself and its copies."""
    return await service.search(lambda: SearchQuery(like_photo=photo_id, top=top, offset=offset))


def _present(library: Library, photo_id: int) -> tuple[PhotoRecord, str]:
    """The photo, whose file is still the one that was indexed, and an ETag of its bytes."""
    record = library.photo(photo_id)
    name = printable(record.path)
    try:
        same = unchanged(record)
    except OSError:
        raise _gone(record) from None
    if not same:
        raise PhotoNotFound(f"{name} has changed. Index its folder again to see it as it is now.")
    if not os.access(record.path, os.R_OK):
        raise PhotoUnreadable(f"{name} cannot be read: the service lacks permission.")
    return record, f'"{record.modified_at.timestamp():.6f}-{record.size:x}"'


def _gone(record: PhotoRecord) -> PhotoNotFound:
    return PhotoNotFound(f"The file {printable(record.path)} is gone. Index its folder again to update the library.")


def _opened(record: PhotoRecord) -> tuple[BinaryIO, int]:
    """The photo's file, and its bytes. Raises PhotoNotFound if it went since it was looked at, and PhotoUnreadable."""
    try:
        file, state = open_regular(record.path)
    except (FileNotFoundError, NotADirectoryError):
        raise _gone(record) from None
    except OSError as error:
        raise PhotoUnreadable(f"{printable(record.path)} cannot be read: {error.strerror or error}.") from error
    return file, state.st_size


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """``size`` bytes, and no more should the file grow meanwhile. Closes it."""
    with file:
        while data := file.read(min(_CHUNK, size)):
            size -= len(data)
            yield data


def _thumbnail(service: Service, photo_id: int) -> bytes:
    library = service.library
    cached = library.thumbnail(library.photo(photo_id).content_id)
    if cached is not None:
        return cached
    record, _ = _present(library, photo_id)
    webp = service.decoding.thumbnail(record.path)
    library.add_thumbnail(record.content_id, webp)
    service.tell_damage()
    return webp


def _known(request: Request, etag: str) -> bool:
    """Whether the client has that version already."""
    asked = request.headers.get("if-none-match", "")
    return etag in (known.strip().removeprefix("W/") for known in asked.split(","))
