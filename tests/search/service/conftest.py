"""Real servers on the loopback interface."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pillow_heif
import pytest
import uvicorn
from PIL import Image

from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from search.service import ServiceSettings, create_app
from search.service._server import uvicorn_config
from tests.search.conftest import PICTURES, picture

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def running(settings: ServiceSettings, *, ready: bool = True) -> Iterator[httpx.Client]:
    """A client of a service that runs until the end of the block."""
    here = dataclasses.replace(settings, host="127.0.0.1", port=0)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn_config(app, here))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as client:
            if ready:
                wait_until_ready(client)
            yield client
    finally:
        server.should_exit = True
        thread.join()
        app.state.service.loading.wait()  # no interpreter ends well while it imports


@contextlib.contextmanager
def running_process(
    *command: str | Path, log: Path, **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A service in a process of its own, as soon as it listens, and a client of it; its log goes to a file."""
    environment = {**os.environ, **variables}
    with log.open("wb") as stderr:
        process = subprocess.Popen((sys.executable, *command), cwd=ROOT, env=environment, stderr=stderr)
    try:
        while not log.read_bytes().endswith(b"\n"):
            assert process.poll() is None, f"the service ended with {process.returncode}"
            time.sleep(0.02)
        listening = events_in(log)[0]
        assert listening["event"] == "listening"
        url = f"http://127.0.0.1:{listening['port']}"
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def events_in(log: Path) -> list[dict[str, Any]]:
    """What a service has logged so far."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def wait_until_ready(client: httpx.Client) -> None:
    while client.get("/readyz").status_code == 503:
        time.sleep(0.05)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of several formats, one of them twice, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    for name in PICTURES:
        exif = Image.Exif()
        exif[0x010F], exif[0x0110], exif[0x0132] = "Canon", "EOS 5D", "2019:07:31 10:00:00"
        picture(name).resize((300, 200)).save(folder / Path(name).with_suffix(".jpg"), exif=exif)
    (folder / "more").mkdir()
    shutil.copy(folder / "coffee.jpg", folder / "more" / "coffee again.jpg")
    pillow_heif.from_pillow(picture("chelsea.png")).save(folder / "more" / "cat.heic")
    (folder / "more" / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def directory(photos: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of those photos."""
    directory = tmp_path_factory.mktemp("library")
    with Library.create(directory) as library:
        index_folders(library, model, [photos])
    return directory


@pytest.fixture(scope="session")
def client(directory: Path) -> Iterator[httpx.Client]:
    """A client of a service of that library, without a token."""
    with running(ServiceSettings(library=directory, device="cpu")) as client:
        yield client
