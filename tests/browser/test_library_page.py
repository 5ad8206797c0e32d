"""From an empty library to a search, and what the page says while the service is not there or not ready."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.pictures import write_few, write_many
from tests.browser.servers import ROOT, free_port, index, running_app, running_service, wait_until_ready
from ui.client import Client

PICTURES = 400
"""So many that indexing them goes on when it is stopped."""


@pytest.fixture(scope="module")
def empty_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The service of a new library."""
    with running_service(tmp_path_factory.mktemp("empty") / "library") as url, Client(url) as client:
        yield client


@pytest.fixture(scope="module")
def empty_app(empty_service: Client) -> Iterator[str]:
    with running_app(empty_service.service) as url:
        yield url


def test_an_empty_library_is_filled_and_searched(
    page: Page, empty_app: str, empty_service: Client, tmp_path: Path
) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    write_few(few)
    write_many(many, few, PICTURES)
    page.goto(empty_app)
    expect(page.get_by_role("heading", name="Your library is empty")).to_be_visible()
    page.get_by_role("button", name="Add a folder").click()

    wait_until_ready(empty_service)
    folder = page.get_by_role("textbox", name="Folder of photos")
    start = page.get_by_role("button", name="Index this folder")
    folder.fill(str(tmp_path / "misspelt"))
    start.click()
    expect(page.get_by_text("There is no folder")).to_be_visible()

    folder.fill(str(many))
    start.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_text(f"of {PICTURES}")).to_be_visible()
    page.locator(".st-key-job").get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()

    folder.fill(str(few))
    start.click()
    expect(page.get_by_text("few is indexed.")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("heading", name="1 file could not be read")).to_be_visible()
    expect(page.get_by_text("broken.jpg")).to_be_visible()
    expect(page.locator(".ps-numbers")).to_contain_text(f"{empty_service.status().photos:,}")

    page.get_by_role("link", name="Search").click()
    box = page.get_by_role("searchbox", name="Describe the photo")
    box.fill("a cat")
    box.press("Enter")
    expect(page.get_by_role("button", name="Open chelsea.png", exact=True)).to_be_visible()


def test_a_service_that_is_down_says_how_to_start_it_and_is_found_again(page: Page, tmp_path: Path) -> None:
    port = free_port()
    with running_app(f"http://127.0.0.1:{port}") as app:
        page.goto(app)
        expect(page.get_by_role("searchbox", name="Describe the photo")).to_be_visible()
        expect(page.get_by_role("heading", name="The search service is not running")).to_be_visible()
        expect(page.get_by_text("./scripts/start")).to_be_visible()
        expect(page.get_by_text("photoseek ui --library")).to_be_visible()
        with running_service(tmp_path / "library", port=port):
            page.get_by_role("button", name="Try again").click()
            expect(page.get_by_role("heading", name="Your library is empty")).to_be_visible()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_model_that_loads_slowly_and_fails_is_waited_for_and_explained(page: Page, tmp_path: Path) -> None:
    # Reading a pipe waits until someone writes: the model loads for just as long as the test wants.
    config = tmp_path / "model" / "config.json"
    config.parent.mkdir()
    os.mkfifo(config)
    port = free_port()
    code = (
        "import pathlib, sys\n"
        "from search.service import ServiceSettings, serve\n"
        "library, model, port = sys.argv[1:]\n"
        "serve(ServiceSettings(library=pathlib.Path(library), model=model, port=int(port)))"
    )
    arguments = (str(tmp_path / "library"), str(config.parent), str(port))
    with (
        subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as service,
        running_app(f"http://127.0.0.1:{port}") as app,
    ):
        try:
            page.goto(f"{app}/?q=a+cat")
            retry = page.get_by_role("button", name="Try again")
            warming = page.get_by_role("heading", name="Warming up")
            while not warming.is_visible():  # the service takes a moment to listen
                expect(warming.or_(retry)).to_be_visible()
                if retry.is_visible():
                    retry.click()
            expect(page.get_by_role("searchbox", name="Describe the photo")).to_be_editable()
            config.write_text('{"model_type": "another"}')
            expect(page.get_by_text("describes a model of type")).to_be_visible()
        finally:
            service.terminate()


def test_what_gets_lost_in_mid_use_is_said(page: Page, tmp_path: Path) -> None:
    photos, library, port = tmp_path / "photos", tmp_path / "library", free_port()
    write_few(photos)
    with running_app(f"http://127.0.0.1:{port}") as app:
        with running_service(library, port=port) as address, Client(address) as client:
            index(client, photos)
            for thumbnail in (library / "thumbnails").rglob("*.webp"):
                thumbnail.unlink()
            (photos / "coins.png").rename(tmp_path / "elsewhere.png")
            page.goto(f"{app}/?q=old+coins")
            card = page.locator('[class*="st-key-card-"]').filter(has_text="coins.png")
            expect(card.get_by_text("No preview")).to_be_visible()
            expect(page.get_by_role("img", name="coffee.png")).to_be_visible()
        box = page.get_by_role("searchbox", name="Describe the photo")
        box.fill("a cat")
        box.press("Enter")
        expect(page.get_by_role("heading", name="The search service is not running")).to_be_visible()
        expect(box).to_have_value("a cat")
