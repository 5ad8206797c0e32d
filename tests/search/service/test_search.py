from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.library import Library
from indexer.model import Model
from search.document import search_document
from search.engine import SearchEngine
from search.query import MAX_TEXT, SearchQuery


def found(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [Path(result["path"]).name for result in response.json()["results"]]


def assert_refused(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    return str(error["message"])


def test_the_answer_is_the_engines(client: httpx.Client, directory: Path, model: Model) -> None:
    answer = client.get("/v1/search", params={"q": "a cup of coffee"}).json()
    with Library.open(directory) as library:
        expected = search_document(SearchEngine(library, model).search(SearchQuery(text="a cup of coffee")))
    for result in answer["results"]:
        assert result.pop("thumbnail") == f"/v1/photos/{result['id']}/thumbnail"
        assert result.pop("file") == f"/v1/photos/{result['id']}/file"
    assert [(each["rank"], each["id"], each["path"]) for each in answer["results"]] == [
        (each["rank"], each["id"], each["path"]) for each in expected["results"]
    ]
    assert answer["results"][0].keys() == expected["results"][0].keys()
    assert answer.keys() == expected.keys()
    assert (answer["query"], answer["considered"], answer["total"]) == ("a cup of coffee", 7, 7)
    assert answer["took_ms"].keys() == {"encode", "candidates", "rerank", "total"}


def test_get_json_and_form_ask_the_same(client: httpx.Client, photos: Path) -> None:
    fields: dict[str, Any] = {
        "q": "a photo of an animal",
        "not": ["a cup of coffee"],
        "folder": str(photos),
        "after": "2019-07-31",
        "before": "2019-07-31",
        "camera": "eos",
        "format": ["JPEG", "PNG"],
        "top": 3,
        "offset": 1,
        "rerank": 0,
    }
    by_get = client.get("/v1/search", params=fields)
    # Without a file httpx would send another type of form.
    as_form = [(name, (None, str(each))) for name, value in fields.items() for each in _listed(value)]
    assert found(by_get)
    for response in (client.post("/v1/search", json=fields), client.post("/v1/search", files=as_form)):
        assert found(response) == found(by_get)
        assert response.json()["considered"] == by_get.json()["considered"]
        assert response.json()["results"][0]["rank"] == 2
        assert response.json()["results"][0]["match"] is None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_search_by_an_uploaded_picture(client: httpx.Client, photos: Path) -> None:
    with (photos / "rocket.jpg").open("rb") as file:
        response = client.post("/v1/search", files={"image": ("x", file)})
    assert found(response)[0] == "rocket.jpg"
    assert response.json()["results"][0]["match"] is None
    assert response.json()["query"] is None


def test_similar_photos_do_not_include_the_photo(client: httpx.Client, photos: Path) -> None:
    results = client.get("/v1/search", params={"q": "a cat"}).json()["results"]
    cat = next(result["id"] for result in results if Path(result["path"]) == photos / "chelsea.jpg")
    similar = found(client.get(f"/v1/photos/{cat}/similar"))
    assert similar[0] == "cat.heic"
    assert "chelsea.jpg" not in similar
    assert found(client.get("/v1/search", params={"like": cat})) == similar
    assert found(client.get(f"/v1/photos/{cat}/similar", params={"top": 2, "offset": 1})) == similar[1:3]


def test_copies_are_told(client: httpx.Client, photos: Path) -> None:
    results = client.get("/v1/search", params={"q": "a cup of coffee"}).json()["results"]
    pairs = [{result["path"], *result["copies"]} for result in results if result["copies"]]
    assert pairs == [{str(photos / "coffee.jpg"), str(photos / "more" / "coffee again.jpg")}]


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({}, "query_invalid", "Say what to look for"),
        ({"q": "  "}, "query_invalid", "empty"),
        ({"q": "x" * (MAX_TEXT + 1)}, "request_invalid", "q:"),
        ({"q": "a cat", "not": ["a"] * 9}, "request_invalid", "not:"),
        ({"q": "a cat", "top": 201}, "request_invalid", "top:"),
        ({"q": "a cat", "top": "many"}, "request_invalid", "top:"),
        ({"q": "a cat", "rerank": 501}, "request_invalid", "rerank:"),
        ({"q": "a cat", "offset": -1}, "request_invalid", "offset:"),
        ({"q": "a cat", "min_match": 2}, "request_invalid", "min_match:"),
        ({"q": "a cat", "after": "yesterday"}, "request_invalid", "after:"),
        ({"q": "a cat", "after": "2020-01-02", "before": "2020-01-01"}, "query_invalid", "Swap"),
        ({"q": "a cat", "near": "Paris"}, "query_invalid", "LATITUDE,LONGITUDE,KM"),
        ({"q": "a cat", "near": "100,0,1"}, "query_invalid", "latitude"),
        ({"q": "a cat", "folder": "Pictures"}, "query_invalid", "whole path"),
        ({"q": "a cat", "folder": "/a\0b"}, "query_invalid", "NUL"),
        ({"q": "a cat", "like": 2**63}, "request_invalid", "like:"),
        ({"query": "a cat"}, "request_invalid", "query:"),
    ],
)
def test_bad_requests_say_why(client: httpx.Client, fields: dict[str, Any], code: str, message: str) -> None:
    assert message in assert_refused(client.get("/v1/search", params=fields), 422, code)
    assert message in assert_refused(client.post("/v1/search", json=fields), 422, code)


def test_bad_bodies_say_why(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert_refused(client.post("/v1/search", content=b"{", headers=headers), 422, "request_invalid")
    assert_refused(client.post("/v1/search", content=b"[]", headers=headers), 422, "request_invalid")
    assert_refused(client.post("/v1/search", content=b"q=a", headers={"Content-Type": "text/plain"}), 415, "media_type")
    broken = client.post("/v1/search", files={"image": b"no picture"})
    assert "not a picture" in assert_refused(broken, 422, "photo_unreadable")
    form = {"Content-Type": "multipart/form-data"}
    assert 400 <= client.post("/v1/search", content=b"x", headers=form).status_code < 500
    assert_refused(client.post("/v1/search", files={"image": (None, "text")}), 422, "request_invalid")


def test_unknown_photo_to_resemble(client: httpx.Client) -> None:
    assert_refused(client.get("/v1/search", params={"like": 10**6}), 404, "photo_not_found")
