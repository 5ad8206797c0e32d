"""Chromium, and the app in it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.pictures import write_album
from tests.browser.servers import index, running_app, running_service
from ui.client import Client

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium of this machine."""
    chromium = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if chromium is None:
        if os.environ.get("PHOTOSEEK_REQUIRE_BROWSER") == "1":
            pytest.fail(
                "PHOTOSEEK_REQUIRE_BROWSER=1, but there is no Chromium on the PATH. Install the package chromium."
            )
        pytest.skip("there is no Chromium on the PATH")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own; nothing it does may reach beyond this machine, and no error of Streamlit may show."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    foreign: list[str] = []

    def note(url: str) -> None:
        if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url).hostname != "127.0.0.1":
            foreign.append(url)

    page.on("request", lambda request: note(request.url))
    page.on("websocket", lambda socket: note(socket.url))
    yield page
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_text("Something went wrong")).to_have_count(0)
    page.close()
    assert foreign == []


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos that is indexed once for all tests."""
    folder = tmp_path_factory.mktemp("album")
    write_album(folder)
    return folder


@pytest.fixture(scope="session")
def service(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The service of a library that holds the album."""
    with running_service(tmp_path_factory.mktemp("library")) as url, Client(url) as client:
        job = index(client, album)
        assert job.state == "done", job
        yield client


@pytest.fixture(scope="session")
def app(service: Client) -> Iterator[str]:
    """Address of the app of that service."""
    with running_app(service.service) as url:
        yield url
