"""Every limit of a request, at its edge: the last that is answered, and the first that is not."""

import asyncio
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from search.query import DEPTH, MAX_TEXT, MAX_WITHOUT
from search.service import ServiceSettings
from search.service._errors import RequestRefused
from search.service._schemas import MAX_RERANK, MAX_TOP
from search.service._workers import Workers
from tests.disks import remount
from tests.search.service.conftest import running
from tests.search.service.test_search import assert_refused

LIMITS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"q": "x" * MAX_TEXT}, {"q": "x" * (MAX_TEXT + 1)}),
    ({"not": ["x" * MAX_TEXT]}, {"not": ["x" * (MAX_TEXT + 1)]}),
    ({"not": ["x"] * MAX_WITHOUT}, {"not": ["x"] * (MAX_WITHOUT + 1)}),
    ({"top": 1}, {"top": 0}),
    ({"top": MAX_TOP}, {"top": MAX_TOP + 1}),
    ({"offset": DEPTH}, {"offset": DEPTH + 1}),
    ({"rerank": MAX_RERANK}, {"rerank": MAX_RERANK + 1}),
    ({"folder": "/" + "x" * 4095}, {"folder": "/" + "x" * 4096}),
    ({"camera": "x" * 200}, {"camera": "x" * 201}),
    ({"format": ["x" * 20] * 20}, {"format": ["x"] * 21}),
    ({"min_match": 1}, {"min_match": 1.01}),
]


@pytest.fixture(scope="module")
def small(directory: Path) -> Iterator[httpx.Client]:
    """A service with low limits."""
    settings = ServiceSettings(
        library=directory,
        device="cpu",
        max_body_bytes=20_000,
        max_json_bytes=1000,
        max_upload_pixels=100 * 100,
    )
    with running(settings) as client:
        yield client


@pytest.mark.parametrize(("most", "more"), LIMITS, ids=lambda fields: next(iter(fields)))
def test_fields(client: httpx.Client, most: dict[str, Any], more: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"q": "a cat", "rerank": 1}
    assert client.post("/v1/search", json=fields | most).status_code == 200
    assert_refused(client.post("/v1/search", json=fields | more), 422, "request_invalid")
    assert_refused(client.get("/v1/search", params=fields | more), 422, "request_invalid")


def test_json_bodies(small: httpx.Client) -> None:
    def post(size: int) -> httpx.Response:
        body = json.dumps({"q": "a cat", "rerank": 0}).encode()
        content = body + b" " * (size - len(body))
        return small.post("/v1/search", content=content, headers={"Content-Type": "application/json"})

    assert post(1000).status_code == 200
    assert "1,000 bytes" in assert_refused(post(1001), 413, "too_large")


def test_forms(small: httpx.Client) -> None:
    head, tail = b'--x\r\nContent-Disposition: form-data; name="q"\r\n\r\n', b"\r\n--x--\r\n"

    def post(size: int) -> httpx.Response:
        content = head + b"a" * (size - len(head) - len(tail)) + tail
        return small.post("/v1/search", content=content, headers={"Content-Type": "multipart/form-data; boundary=x"})

    assert_refused(post(20_000), 422, "request_invalid")  # it was read: the text in it is too long
    assert_refused(post(20_001), 413, "too_large")


def test_pixels_of_an_upload(small: httpx.Client) -> None:
    def post(width: int, height: int) -> httpx.Response:
        data = BytesIO()
        Image.new("RGB", (width, height)).save(data, "PNG")
        return small.post("/v1/search", files={"image": data.getvalue()})

    assert post(100, 100).status_code == 200
    assert "0.01 megapixels" in assert_refused(post(100, 101), 422, "photo_unreadable")


def test_originals_are_decoded_within_the_same_limits(model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (3000, 3000)).save(tmp_path / "photos" / "large.png")  # takes far longer than 5 ms
    with Library.create(tmp_path / "library") as library:
        index_folders(library, model, [tmp_path / "photos"])
    shutil.rmtree(tmp_path / "library" / "features")  # so that reranking needs the original
    for seconds, matched in ((0.005, False), (60, True)):
        with running(ServiceSettings(library=tmp_path / "library", device="cpu", decode_seconds=seconds)) as client:
            (result,) = client.get("/v1/search", params={"q": "a cat"}).json()["results"]
        assert (result["match"] is not None) == matched


def test_a_full_disk_for_uploads(directory: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    upload = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (800, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(upload, "PNG")  # of 1.9 MB
    with running(ServiceSettings(library=directory, device="cpu")) as client:
        refused = client.post("/v1/search", files={"image": upload.getvalue()})
        assert "No space left on device" in assert_refused(refused, 503, "no_room")
        assert refused.headers["retry-after"] == "30"
        remount(disk, "size=10m")
        assert client.post("/v1/search", files={"image": upload.getvalue()}).status_code == 200
        assert list(disk.iterdir()) == []


def test_requests_at_once(directory: Path) -> None:
    settings = ServiceSettings(library=directory, device="cpu", requests_at_once=1)
    with running(settings, ready=False) as client:
        with _unfinished(client) as waiting:
            while (refused := client.get("/v1/status")).status_code == 200:  # until that request is there
                pass
            assert_refused(refused, 503, "busy")
            assert refused.headers["retry-after"] == "1"
            assert client.get("/healthz").status_code == 200
            waiting.sendall(b"{}")
            assert b"busy" not in waiting.recv(1000)
        while client.get("/v1/status").status_code == 503:  # until that request has left
            pass


def test_bytes_at_once(directory: Path) -> None:
    settings = ServiceSettings(library=directory, device="cpu", bytes_at_once=20)
    with running(settings) as client:
        with _unfinished(client):  # two bytes
            while client.post("/v1/index", content=b"x" * 19).status_code != 503:  # until that request is there
                pass
            assert client.post("/v1/index", content=b"x" * 18).status_code == 422
        while client.post("/v1/index", content=b"x" * 19).status_code == 503:  # until that request has left
            pass
        assert_refused(client.post("/v1/index", content=b"x" * 21), 503, "busy")


def test_a_request_that_never_arrives(directory: Path) -> None:
    settings = ServiceSettings(library=directory, device="cpu", client_seconds=0.5)
    with running(settings, ready=False) as client, _unfinished(client) as waiting:
        assert b" 408 " in waiting.recv(1000)
        assert client.get("/v1/status").status_code == 200


def _unfinished(client: httpx.Client) -> socket.socket:
    """A request whose body, two bytes long, is still to come."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    connection.sendall(
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    )
    return connection


def test_searches_at_once() -> None:
    async def fill() -> None:
        workers, go = Workers("test", threads=1, waiting=1), threading.Event()
        both = [asyncio.create_task(workers.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestRefused) as refused:
            await workers.run(go.wait)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        go.set()
        assert await asyncio.gather(*both) == [True, True]
        assert await workers.run(go.wait)
        workers.close()

    # In a thread of its own: after a browser test this one has Playwright's event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, fill()).result()
