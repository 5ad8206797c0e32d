"""The real service and the real app, each in a process of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from ui.client import Client, Job

ROOT = Path(__file__).parents[2]
_START_SECONDS = 90


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_service(library: Path, *, port: int | None = None, token: str | None = None) -> Iterator[str]:
    """A service of ``library``; yields its address as soon as it answers, model or not."""
    url = f"http://127.0.0.1:{port or free_port()}"
    where = ("--port", url.rpartition(":")[2], "--allow-folder", library.anchor)
    command = ("-m", "ui.cli", "serve", "--library", str(library), *where)
    with _process(command, {"PHOTOSEEK_TOKEN": token} if token else {}, f"{url}/healthz"):
        yield url


@contextlib.contextmanager
def running_app(service: str) -> Iterator[str]:
    """The Streamlit app of the service at that address; yields its own address."""
    url = f"http://127.0.0.1:{free_port()}"
    flags = ("--server.headless=true", f"--server.port={url.rpartition(':')[2]}")
    command = ("-m", "streamlit", "run", str(ROOT / "ui" / "app.py"), *flags)
    with _process(command, {"PHOTOSEEK_SERVICE": service}, f"{url}/_stcore/health"):
        yield url


def wait_until_ready(client: Client) -> None:
    """Return when the service's model is loaded."""
    deadline = time.monotonic() + _START_SECONDS
    while not client.ready():
        assert time.monotonic() < deadline, "the model does not load"
        time.sleep(0.1)


def index(client: Client, folder: Path) -> Job:
    """Index a folder through the service, to the end."""
    wait_until_ready(client)
    job = client.start_index(str(folder))
    while job.running:
        time.sleep(0.1)
        job = client.job(job.id)
    return job


@contextlib.contextmanager
def _process(command: tuple[str, ...], environment: Mapping[str, str], answers_at: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(answers_at):
                assert process.poll() is None, "it ended"
                assert time.monotonic() < deadline, "it does not answer"
                time.sleep(0.05)
            yield
        except BaseException:
            output.seek(0)
            print(f"{command} said:\n{output.read().decode(errors='replace')}")
            raise
        finally:
            process.terminate()
            try:
                process.wait(60)  # a service that is told to end while its model loads waits for that
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
