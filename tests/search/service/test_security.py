from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from indexer.errors import ServiceError
from search.service import ServiceSettings
from tests.search.service.conftest import running
from tests.search.service.test_search import assert_refused

TOKEN = "a long secret"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service as off the loopback interface, with a token."""
    library = tmp_path_factory.mktemp("library")
    settings = ServiceSettings(
        library=library,
        device="cpu",
        host="0.0.0.0",
        token=TOKEN,
        allowed_hosts=("Photos.example",),
        max_body_bytes=10**6,
    )
    with running(settings) as client:
        yield client


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "photos.example"])
def test_refuses_to_listen_off_loopback_without_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(ServiceError, match="without a token"):
        ServiceSettings(library=tmp_path, host=host)
    with pytest.raises(ServiceError, match="empty"):
        ServiceSettings(library=tmp_path, host=host, token=" ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_needs_no_token_on_loopback(tmp_path: Path, host: str) -> None:
    assert ServiceSettings(library=tmp_path, host=host).on_loopback


def test_the_token_is_not_shown(tmp_path: Path) -> None:
    assert TOKEN not in repr(ServiceSettings(library=tmp_path, token=TOKEN))


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Bearer a long secret!", f"Basic {TOKEN}", "Bearer é"])
@pytest.mark.parametrize("path", ["/v1/status", "/v1/search?q=a", "/v1/photos/1/file", "/metrics", "/nothing"])
def test_every_request_needs_the_token(guarded: httpx.Client, given: str, path: str) -> None:
    response = guarded.get(path, headers={b"Authorization": given.encode()})
    assert_refused(response, 401, "token_invalid")
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_token_opens(guarded: httpx.Client) -> None:
    assert guarded.get("/v1/status").status_code == 200
    assert guarded.get("/v1/status", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("name", ["token", "access_token", "authorization"])
def test_a_token_in_the_address_opens_nothing(guarded: httpx.Client, name: str) -> None:
    response = guarded.get("/v1/status", params={name: TOKEN}, headers={"Authorization": ""})
    assert_refused(response, 401, "token_invalid")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_none(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path, headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "[::1", "", "192.168.1.5"]
)
def test_foreign_names_are_refused(client: httpx.Client, host: str) -> None:
    assert_refused(client.get("/v1/status", headers={"Host": host}), 421, "host_unknown")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8765", "127.0.0.1", "[::1]:8765"])
def test_own_names_are_served(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/status", headers={"Host": host}).status_code == 200


def test_off_loopback_addresses_and_allowed_names_are_served(guarded: httpx.Client) -> None:
    for host in ("192.168.1.5:8765", "[fe80::1]", "photos.example", "localhost"):
        assert guarded.get("/v1/status", headers={"Host": host}).status_code == 200
    assert_refused(guarded.get("/v1/status", headers={"Host": "evil.example"}), 421, "host_unknown")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "ftp://localhost", "Host": "localhost"},
        {"Origin": "http://localhost", "Host": "localhost", "X-Forwarded-Proto": "https"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_change_nothing(client: httpx.Client, headers: dict[str, str], photos: Path) -> None:
    asked = client.post("/v1/index", json={"folders": [str(photos)]}, headers=headers)
    assert_refused(asked, 403, "cross_origin")
    assert_refused(client.delete("/v1/jobs/1", headers=headers), 403, "cross_origin")
    assert client.get("/v1/jobs").json() == {"jobs": []}


@pytest.mark.parametrize("path", ["/v1/search?q=a", "/v1/status", "/healthz"])
def test_other_sites_run_nothing_but_may_link(client: httpx.Client, path: str) -> None:
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert_refused(client.get(path, headers=embedded), 403, "cross_origin")
    assert client.get(path, headers=embedded | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.get(path, headers=embedded | {"Sec-Fetch-Site": "same-site"}).status_code == 200


def test_own_pages_may(client: httpx.Client) -> None:
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    behind_a_proxy = {"Origin": "https://localhost", "Host": "localhost"}
    for headers in (own, behind_a_proxy, behind_a_proxy | {"X-Forwarded-Proto": "https"}):
        assert client.post("/v1/search", json={"q": "a cat"}, headers=headers).status_code == 200


def test_no_other_site_may_read(client: httpx.Client) -> None:
    response = client.get("/v1/status", headers={"Origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    preflight = client.options("/v1/search", headers={"Origin": "http://a", "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_large_requests_are_refused(guarded: httpx.Client) -> None:
    assert_refused(guarded.post("/v1/search", files={"image": bytes(10**6)}), 413, "too_large")
    assert_refused(guarded.post("/v1/search", content=iter([b"{}"])), 411, "length_required")


@pytest.mark.parametrize("path", ["/v1/status", "/healthz", "/nothing", "/v1/search"])
def test_no_answer_is_sniffed(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-resource-policy"] == "same-site"
