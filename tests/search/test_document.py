import datetime
import json
import os
from pathlib import Path

from indexer.facts import PhotoFacts
from indexer.library import PhotoRecord
from search.document import search_document
from search.query import SearchQuery, SearchResponse, SearchResult

TAKEN = datetime.datetime(2019, 7, 31, 10, 0, 0)
FACTS = PhotoFacts(640, 480, "JPEG", TAKEN, "Canon EOS 5D", 48.86, 2.35)


def record(path: Path, facts: PhotoFacts = FACTS) -> PhotoRecord:
    return PhotoRecord(7, 3, path, path.parent, 1234, datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), facts)


def test_the_document_is_the_answer() -> None:
    path = Path("/photos/a.jpg")
    result = SearchResult(1, record(path), (Path("/photos/b.jpg"),), 0.41, 0.93)
    response = SearchResponse(SearchQuery(text="a cat"), (result,), 12, 34, {"encode": 1.23456, "total": 2.0})
    document = search_document(response)
    assert json.loads(json.dumps(document)) == document
    assert document == {
        "query": "a cat",
        "took_ms": {"encode": 1.23, "total": 2.0},
        "considered": 34,
        "total": 12,
        "results": [
            {
                "rank": 1,
                "id": 7,
                "path": str(path),
                "match": 0.93,
                "similarity": 0.41,
                "taken_at": "2019-07-31T10:00:00",
                "camera": "Canon EOS 5D",
                "latitude": 48.86,
                "longitude": 2.35,
                "width": 640,
                "height": 480,
                "size": 1234,
                "format": "JPEG",
                "copies": [str(Path("/photos/b.jpg"))],
            }
        ],
    }


def test_what_is_not_known_is_null_and_every_name_can_be_encoded() -> None:
    path = Path(os.fsdecode(b"/photos/caf\xe9.jpg"))
    result = SearchResult(1, record(path, PhotoFacts(1, 1, "PNG")), (path,), 0.1, None)
    query = SearchQuery(like_photo=1)
    document = search_document(SearchResponse(query, (result,), 1, 1, {}))
    assert json.dumps(document, ensure_ascii=False).encode()
    assert document["query"] is None
    row = document["results"][0]
    assert (row["match"], row["taken_at"], row["camera"], row["latitude"]) == (None, None, None, None)
    assert (row["path"], row["copies"]) == ("/photos/caf\ufffd.jpg", ["/photos/caf\ufffd.jpg"])
