import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.library import Library
from search.service import ServiceSettings
from tests.search.service.conftest import running
from tests.search.service.test_search import assert_refused


@pytest.fixture
def fresh(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service of a library that does not exist yet, which may index the folders of the tests."""
    allowed = (tmp_path_factory.getbasetemp(),)
    with running(ServiceSettings(library=tmp_path / "library", device="cpu", allowed_folders=allowed)) as client:
        yield client


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough pictures that a job can be caught at work."""
    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for number in range(150):
        Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def events(client: httpx.Client, job: dict[str, Any]) -> list[tuple[str, Any]]:
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(response.iter_text()).replace("\r\n", "\n").split("\n\n")
    found = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_an_empty_library_is_created_and_filled(fresh: httpx.Client, photos: Path, tmp_path: Path) -> None:
    empty = fresh.get("/v1/search", params={"q": "a cat"}).json()
    assert (empty["results"], empty["considered"], empty["total"]) == ([], 0, 0)
    assert fresh.get("/v1/status").json()["photos"] == 0

    started = fresh.post("/v1/index", json={"folders": [str(photos)]})
    assert started.status_code == 202
    job = started.json()
    assert started.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["folders"] == [str(photos)]

    *steps, (kind, ended) = events(fresh, job)
    assert kind == "summary"
    assert (ended["state"], ended["error"]) == ("done", None)
    assert (ended["summary"]["added"], ended["summary"]["failed"]) == (8, 1)
    assert {name for name, _ in steps} == {"progress"}
    assert steps[-1][1]["stage"] == "done"
    assert fresh.get(f"/v1/jobs/{job['id']}").json() == ended
    assert fresh.get("/v1/jobs").json() == {"jobs": [ended]}
    assert events(fresh, job)[-1] == ("summary", ended)

    assert fresh.get("/v1/search", params={"q": "a cat"}).json()["considered"] == 7
    status = fresh.get("/v1/status").json()
    assert (status["photos"], status["pictures"], status["failed"]) == (8, 7, 1)
    assert status["directory"] == str(tmp_path / "library")
    assert status["model"]["name"] == "compact"
    assert status["service"]["model_state"] == "ready"
    failures = fresh.get("/v1/failures").json()
    assert failures["total"] == 1
    assert failures["failures"][0]["path"] == str(photos / "more" / "broken.jpg")
    metrics = fresh.get("/metrics").text
    for stage in ("scanning", "indexing", "saving"):
        assert f'photoseek_index_seconds_count{{stage="{stage}"}} 1.0' in metrics
    for outcome, photos_of_it in (("added", 8), ("failed", 1), ("removed", 0)):
        assert f'photoseek_indexed_photos_total{{outcome="{outcome}"}} {photos_of_it}.0' in metrics
    facets = fresh.get("/v1/facets").json()
    assert {"value": "Canon EOS 5D", "count": 7} in facets["cameras"]
    assert {"value": "JPEG", "count": 7} in facets["formats"]
    assert facets["earliest"] == facets["latest"] == "2019-07-31T10:00:00"


def test_one_job_at_a_time_and_it_can_be_cancelled(fresh: httpx.Client, many: Path, photos: Path) -> None:
    job = fresh.post("/v1/index", json={"folders": [str(many)]}).json()
    assert job["id"] in assert_refused(fresh.post("/v1/index", json={"folders": [str(photos)]}), 409, "job_running")
    assert fresh.delete(f"/v1/jobs/{job['id']}").status_code == 202
    _, ended = events(fresh, job)[-1]
    assert ended["state"] == "cancelled"
    assert ended["summary"]["cancelled"]
    assert ended["summary"]["added"] < 150
    assert fresh.get("/v1/status").json()["photos"] == ended["summary"]["added"]
    assert fresh.delete(f"/v1/jobs/{job['id']}").json() == ended

    again = fresh.post("/v1/index", json={"folders": [str(photos)]})
    assert again.status_code == 202
    assert events(fresh, again.json())[-1][1]["state"] == "done"


def test_watchers_at_once(many: Path, tmp_path: Path) -> None:
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", allowed_folders=(many,), watchers=1)
    with running(settings) as client:
        job = client.post("/v1/index", json={"folders": [str(many)]}).json()
        with client.stream("GET", f"/v1/jobs/{job['id']}/events") as watched:
            lines = watched.iter_lines()  # kept: to let go of it would end the request
            next(lines)
            refused = client.get(f"/v1/jobs/{job['id']}/events")
            assert_refused(refused, 503, "busy")
            assert refused.headers["retry-after"] == "1"
            assert client.delete(f"/v1/jobs/{job['id']}").status_code == 202
            assert "event: summary" in list(lines)


def test_searches_are_answered_while_a_job_runs(fresh: httpx.Client, many: Path) -> None:
    job = fresh.post("/v1/index", json={"folders": [str(many)]}).json()
    assert fresh.get("/v1/search", params={"q": "a cat"}).status_code == 200
    while (now := fresh.get(f"/v1/jobs/{job['id']}").json())["state"] == "running":
        assert fresh.get("/healthz").status_code == 200
        time.sleep(0.3)
    assert now["state"] == "done"
    assert fresh.get("/v1/search", params={"q": "a cat"}).json()["considered"] == 150


def test_bad_folders_say_why(fresh: httpx.Client, tmp_path: Path) -> None:
    missing = fresh.post("/v1/index", json={"folders": [str(tmp_path / "none")]})
    assert "no folder" in assert_refused(missing, 422, "folder_not_found")
    relative = fresh.post("/v1/index", json={"folders": ["Pictures"]})
    assert "whole path" in assert_refused(relative, 422, "folder_not_found")
    bodies: list[dict[str, Any]] = [{}, {"folders": []}, {"folders": "/"}, {"folders": ["/"], "model": "x"}]
    for body in bodies:
        assert_refused(fresh.post("/v1/index", json=body), 422, "request_invalid")
    assert fresh.get("/v1/jobs").json() == {"jobs": []}


def test_unknown_jobs(client: httpx.Client) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        assert_refused(client.request(method, f"/v1/jobs/none{path}"), 404, "job_not_found")


def test_a_library_that_another_process_writes_to(fresh: httpx.Client, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    with Library.open(tmp_path / "library") as library, library.writer():
        job = fresh.post("/v1/index", json={"folders": [str(tmp_path / "photos")]}).json()
        _, ended = events(fresh, job)[-1]
    assert ended["state"] == "failed"
    assert ended["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_names_that_are_not_utf8(fresh: httpx.Client, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos / "rocket.jpg", os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))
    Path(os.fsdecode(os.fsencode(folder) + b"/bro\xffken.jpg")).write_bytes(b"no picture")
    job = fresh.post("/v1/index", json={"folders": [str(folder)]}).json()
    assert events(fresh, job)[-1][1]["state"] == "done"
    result = fresh.get("/v1/search", params={"q": "a rocket"}).json()["results"][0]
    assert result["path"] == f"{folder}/caf\ufffd.jpg"
    assert fresh.get(result["file"]).content == (photos / "rocket.jpg").read_bytes()
    original = fresh.get(result["file"], params={"original": True})
    assert original.content == (photos / "rocket.jpg").read_bytes()
    assert fresh.get("/v1/failures").json()["failures"][0]["path"] == f"{folder}/bro\ufffdken.jpg"
