import concurrent.futures
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from search.service import ServiceSettings
from tests.search.service.conftest import events_in, running, running_process, wait_until_ready
from tests.search.service.test_search import assert_refused

SERVE = """
import sys
from pathlib import Path
from search.service import ServiceSettings, serve
serve(ServiceSettings(library=Path(sys.argv[1]), port=0, device="cpu", allowed_folders=(Path("/"),)))
"""


def test_health_is_told_while_the_model_loads(tmp_path: Path) -> None:
    with running(ServiceSettings(library=tmp_path, device="cpu"), ready=False) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        wait_until_ready(client)
        assert client.get("/readyz").json() == {"status": "ok"}


def test_a_model_that_does_not_load_is_told(tmp_path: Path) -> None:
    with running(ServiceSettings(library=tmp_path, model="no such model", device="cpu"), ready=False) as client:
        while client.get("/v1/status").json()["service"]["model_state"] == "loading":
            time.sleep(0.05)
        for path in ("/readyz", "/v1/search?q=a"):
            assert "no such model" in assert_refused(client.get(path), 503, "model_unavailable")
        assert client.get("/healthz").status_code == 200
        assert "no such model" in client.get("/v1/status").json()["service"]["model_error"]


def test_metrics(client: httpx.Client) -> None:
    assert client.get("/v1/search", params={"q": "a cat"}).status_code == 200
    client.get("/v1/photos/1000000")
    client.get("/some/path/of/my/own")
    text = client.get("/metrics").text
    assert 'photoseek_requests_total{method="GET",route="/v1/search",status="200"}' in text
    assert 'photoseek_requests_total{method="GET",route="/v1/photos/{photo_id}",status="404"}' in text
    assert "my/own" not in text
    assert 'photoseek_request_seconds_count{route="/v1/search"}' in text
    assert "photoseek_requests_in_progress 1.0" in text
    for stage in ("queue", "encode", "candidates", "rerank", "total"):
        assert f'photoseek_search_seconds_count{{stage="{stage}"}}' in text


def test_a_rush_is_refused_and_survived(directory: Path) -> None:
    settings = ServiceSettings(library=directory, device="cpu", search_threads=1, waiting_searches=1)
    with running(settings) as client, concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: client.get("/v1/search", params={"q": "a cat"}), range(16)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused
        assert len(refused) < len(answers)
        for answer in refused:
            assert_refused(answer, 503, "busy")
            assert answer.headers["retry-after"] == "1"
        assert client.get("/v1/search", params={"q": "a cat"}).status_code == 200


def test_unknown_routes_have_the_one_error_shape(client: httpx.Client) -> None:
    assert_refused(client.get("/nothing"), 404, "not_found")
    assert_refused(client.put("/v1/search"), 405, "method_not_allowed")


def test_the_documentation_is_complete_and_needs_no_internet(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/search",
        "/v1/photos/{photo_id}",
        "/v1/photos/{photo_id}/thumbnail",
        "/v1/photos/{photo_id}/file",
        "/v1/photos/{photo_id}/similar",
        "/v1/index",
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/events",
        "/v1/status",
        "/v1/facets",
        "/v1/failures",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for name, answer in schema["components"]["schemas"].items():
        for field, about in answer["properties"].items():
            assert about.keys() & {"description", "$ref"}, f"{name}.{field}"
    stream = schema["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    told = {
        event["properties"]["event"]["const"]: event["properties"]["data"] for event in stream["itemSchema"]["oneOf"]
    }
    assert {name: data["contentSchema"]["$ref"].rpartition("/")[2] for name, data in told.items()} == {
        "progress": "ProgressAnswer",
        "summary": "JobAnswer",
    }
    for routes in schema["paths"].values():
        for route in routes.values():
            assert route["summary"]
            assert route["description"]
            for status, answer in route["responses"].items():
                if status.startswith(("4", "5")):
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")


def test_sigterm_ends_a_job_and_finishes_requests(photos: Path, tmp_path: Path) -> None:
    with running_process("-c", SERVE, tmp_path / "library", log=tmp_path / "log") as (process, client):
        wait_until_ready(client)
        job = client.post("/v1/index", json={"folders": [str(photos)]}).json()
        with (
            client.stream("GET", f"/v1/jobs/{job['id']}/events") as watched,
            socket.create_connection((client.base_url.host, client.base_url.port)) as unfinished,
        ):
            body = b'{"q": "a cat"}'
            unfinished.sendall(
                b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            while "photoseek_requests_in_progress 3.0" not in client.get("/metrics").text:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            seen = "".join(watched.iter_text())
            unfinished.sendall(body)
            assert unfinished.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert "event: summary" in seen
        assert process.wait(60) == 0
    assert events_in(tmp_path / "log")[-1]["event"] == "stopped"


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_while_the_model_loads(tmp_path: Path, by: signal.Signals) -> None:
    with running_process("-c", SERVE, tmp_path / "library", log=tmp_path / "log") as (process, client):
        assert_refused(client.get("/readyz"), 503, "model_loading")
        process.send_signal(by)
        assert process.wait(60) == 0
    assert [event["event"] for event in events_in(tmp_path / "log")] == ["listening", "stopped"]
