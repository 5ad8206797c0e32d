"""What the service logs while it is used, and what it never logs."""

import fcntl
import json
import logging
import os
import select
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import httpx
import pytest

from search.service._logs import JsonLines, LineWriter
from tests.command import COMMAND, ROOT
from tests.search.service.conftest import events_in, running_process, wait_until_ready

TOKEN = "tokenvalue"
WORDS = "wordsofmine"
CAMERA = "cameraofmine"


def test_the_log_of_a_service(directory: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "library")
    (tmp_path / "library" / "vectors.faiss").write_bytes(b"damaged")
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
        "cache damaged",
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


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as log:
        command = (*COMMAND, "serve", "--library", str(tmp_path / "library"), "--port", "0")
        process = subprocess.Popen(command, cwd=ROOT, stderr=theirs)
        os.close(theirs)
        try:
            url = f"http://127.0.0.1:{json.loads(log.readline())['port']}"
            fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)  # a page: some thirty lines
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                assert {client.get("/v1/jobs").status_code for _ in range(200)} == {200}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_lines_that_find_no_room_are_counted() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    writer = LineWriter(theirs, most=2)
    writer.setFormatter(JsonLines())

    def tell(name: str) -> None:
        writer.handle(logging.LogRecord("photoseek", logging.INFO, __file__, 1, name, None, None))

    tell("x" * 2**20)  # more than a pipe takes
    while len(os.read(ours, 10) if select.select([ours], [], [], 0)[0] else b"") < 10:
        pass  # until it is being written
    for name in "abcde":
        tell(name)
    received = b""
    while not received.endswith(b'"b"}\n'):
        select.select([ours], [], [])
        received += os.read(ours, 2**20)
    tell("f")
    writer.finish(60)
    received += os.read(ours, 2**20)
    events = [json.loads(line) for line in received.splitlines()[1:]]
    assert [(event["event"], event.get("lines")) for event in events] == [
        ("a", None),
        ("b", None),
        ("log not read", 3),
        ("f", None),
    ]
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("message", ["two\nlines", "quotes \"'", "a\u2028b", "\ud800"])
def test_a_record_is_one_line(message: str) -> None:
    record = logging.LogRecord("a.library", logging.WARNING, __file__, 1, message, None, None)
    line = JsonLines().format(record)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["event"] == message
    assert json.loads(line)["logger"] == "a.library"
