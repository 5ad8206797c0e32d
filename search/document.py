"""The JSON document of a search: what ``photoseek search --json`` prints and ``GET /v1/search`` answers."""

import os
from pathlib import Path
from typing import Any

from indexer.library import PhotoRecord
from search.query import SearchResponse, SearchResult


def search_document(response: SearchResponse) -> dict[str, Any]:
    """The whole answer, of JSON types only."""
    return {
        "query": response.query.text,
        "took_ms": {stage: round(milliseconds, 2) for stage, milliseconds in response.took_ms.items()},
        "considered": response.considered,
        "total": response.total,
        "results": [_result(result) for result in response.results],
    }


def photo_document(photo: PhotoRecord) -> dict[str, Any]:
    """What is known about one photo file, of JSON types only."""
    facts = photo.facts
    return {
        "id": photo.id,
        "path": printable(photo.path),
        "taken_at": None if facts.taken_at is None else facts.taken_at.isoformat(),
        "camera": facts.camera,
        "latitude": facts.latitude,
        "longitude": facts.longitude,
        "width": facts.width,
        "height": facts.height,
        "size": photo.size,
        "format": facts.format,
    }


def printable(path: Path | str) -> str:
    """A path, or text with one in it, as text that can be encoded: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def _result(result: SearchResult) -> dict[str, Any]:
    photo = photo_document(result.photo)
    return {
        "rank": result.rank,
        "id": photo.pop("id"),
        "path": photo.pop("path"),
        "match": None if result.match is None else round(result.match, 6),
        "similarity": round(result.similarity, 6),
        **photo,
        "copies": [printable(copy) for copy in result.copies],
    }
