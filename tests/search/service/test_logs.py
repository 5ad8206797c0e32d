"""What the service logs while it is used, and what it never logs."""

import json
import logging
import shutil
import signal
import sqlite3
from pathlib import Path

import httpx
import pytest

from search.service._logs import JsonLines
from tests.search.service.conftest import events_in, running_process, wait_until_ready

TOKEN = "tokenvalue"
WORDS = "wordsofmine"
CAMERA = "cameraofmine"


def test_the_log_of_a_service(directory: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "library")
    command = ("-m", "ui.cli", "serve", "--library", tmp_path / "library", "--port", "0")
    log = tmp_path / "log"
    with running_process(*command, log=log, PHOTOSEEK_TOKEN=TOKEN) as (process, client):
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        _use(client, photos, tmp_path / "library")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

    events = events_in(log)
    assert all({"time", "level", "event"} <= event.keys() for event in events)
    assert {event["event"] for event in events} >= {
        "listening",
        "model loaded",
        "request",
        "job started",
        "job ended",
        "stopped",
    }
    requests = {(each["method"], each["route"], each["status"]) for each in events if each["event"] == "request"}
    assert requests >= {
        ("GET", "/v1/search", 200),
        ("GET", "none", 401),
        ("GET", "/v1/search", 500),
        ("POST", "/v1/search", 422),
        ("GET", "/v1/photos/{photo_id}/file", 200),
        ("GET", "none", 404),
    }
    (failed,) = (event for event in events if "error" in event)
    assert failed["level"] == "error"
    assert failed["at"]

    for secret in (TOKEN, WORDS, CAMERA, "rocket", "broken.jpg", "Canon", str(photos)):
        assert secret not in log.read_text()


def _use(client: httpx.Client, photos: Path, library: Path) -> None:
    wait_until_ready(client)
    assert client.get("/v1/search", params={"q": WORDS}, headers={"Authorization": "Bearer wrong"}).status_code == 401
    found = client.get("/v1/search", params={"q": WORDS, "rerank": 1}).json()["results"]
    assert client.get(found[0]["file"]).status_code == 200
    with (photos / "rocket.jpg").open("rb") as file:
        data = {"q": WORDS, "top": "0"}
        assert client.post("/v1/search", data=data, files={"image": (f"{WORDS}.jpg", file)}).status_code == 422
    assert client.get(f"/{WORDS}").status_code == 404
    job = client.post("/v1/index", json={"folders": [str(photos)]}).json()
    while client.get(f"/v1/jobs/{job['id']}").json()["state"] == "running":
        pass
    with sqlite3.connect(library / "catalog.sqlite") as catalog:
        catalog.execute("ALTER TABLE content RENAME TO lost")
    assert client.get("/v1/search", params={"q": WORDS, "camera": CAMERA}).status_code == 500


@pytest.mark.parametrize("message", ["two\nlines", "quotes \"'", "a\u2028b", "\ud800"])
def test_a_record_is_one_line(message: str) -> None:
    record = logging.LogRecord("a.library", logging.WARNING, __file__, 1, message, None, None)
    line = JsonLines().format(record)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["event"] == message
    assert json.loads(line)["logger"] == "a.library"
