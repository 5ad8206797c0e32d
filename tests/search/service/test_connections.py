"""Clients that keep connections and say little: they are cut off, and others are answered meanwhile."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from search.service import ServiceSettings
from tests.search.service.conftest import running

MOST = 4


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a service that waits for half a second, and for few."""
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", client_seconds=0.5, connections=MOST)
    with running(settings, ready=False) as client:
        yield client


def connection(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=60)


def is_open(there: socket.socket) -> bool:
    there.settimeout(0.1)
    try:
        return there.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


def test_who_says_nothing_is_cut_off(client: httpx.Client) -> None:
    with connection(client) as silent:
        assert silent.recv(1) == b""
    assert client.get("/healthz").is_success


def test_who_says_it_a_byte_at_a_time_is_cut_off(client: httpx.Client) -> None:
    with connection(client) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: ")
        with contextlib.suppress(ConnectionResetError):
            while is_open(slow):
                slow.sendall(b"x")
    assert client.get("/healthz").is_success


def test_who_asks_again_in_time_is_answered(client: httpx.Client) -> None:
    with connection(client) as patient:
        for _ in range(4):
            time.sleep(0.2)
            patient.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                more = patient.recv(1000)
                assert more
                answer += more


def test_the_longest_idle_make_room(tmp_path: Path) -> None:
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", connections=MOST)
    with running(settings, ready=False) as client:
        idle = [connection(client) for _ in range(3 * MOST)]
        try:
            assert client.get("/healthz").is_success
            assert [is_open(each) for each in idle] == [False] * (2 * MOST + 1) + [True] * (MOST - 1)
        finally:
            for each in idle:
                each.close()


def test_who_does_not_read_is_cut_off(tmp_path: Path, model: Model) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (2500, 2500)).save(tmp_path / "photos" / "large.bmp")  # 19 MB: more than sockets hold
    with Library.create(tmp_path / "library") as library:
        index_folders(library, model, [tmp_path / "photos"])
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", client_seconds=0.5)
    with running(settings, ready=False) as client, connection(client) as deaf:
        deaf.sendall(b"GET /v1/photos/1/file HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert deaf.recv(12) == b"HTTP/1.1 200"
        # Connections of their own: a busy machine may well keep one waiting for half a second between two requests.
        while "photoseek_requests_in_progress 1.0" not in client.get("/metrics", headers={"Connection": "close"}).text:
            time.sleep(0.05)
        assert len(client.get("/v1/photos/1/file").content) > 18 * 10**6
