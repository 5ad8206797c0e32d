"""``photoseek serve`` and ``photoseek ui``, as processes."""

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from indexer.library import Library
from tests.command import COMMAND, ROOT, answers, environment, photoseek


@pytest.fixture
def library(tmp_path: Path) -> Path:
    Library.create(tmp_path / "library").close()
    return tmp_path / "library"


def errors_of(library: Path) -> Path:
    """Where the commands that run for a library write their standard error."""
    return library.with_name("errors")


@contextlib.contextmanager
def running(*arguments: str, library: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process of a command, and the addresses that it prints when it is ready."""
    with errors_of(library).open("a") as errors:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(library, **variables),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process, next(re.findall(r"http://[\d.]+:\d+", line) for line in process.stdout)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_page_uses_the_service_it_is_given_and_leaves_it_running(library: Path) -> None:
    with running("ui", library=library) as (_, (_, service)):
        with running("ui", "--service", service, library=library) as (second, (page, same)):
            assert same == service
            assert answers(page)
            second.terminate()
            assert second.wait(60) == 0
            assert not answers(page)
        assert answers(f"{service}/healthz")
    assert not answers(f"{service}/healthz")
    assert errors_of(library).read_text() == ""  # no log of the service's either


def test_the_service_of_the_page_gets_its_options(library: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    options = ("--allow-folder", str(tmp_path), "--match-cache-mb", "7", "--keep-loaded", "2.5")
    with running("ui", *options, library=library) as (page, (_, service)):
        asked = httpx.post(f"{service}/v1/index", json={"folders": [str(tmp_path / "photos")]}, trust_env=False)
        assert asked.status_code in (202, 503)  # allowed, if only once the model is there
        (serve,) = (each for each in psutil.Process(page.pid).children() if "serve" in each.cmdline())
        assert serve.cmdline()[-2:] == ["--keep-loaded", "2.5"]
    assert "at most 7.0 MB" in photoseek("status", library=library).stdout


def test_a_page_on_a_port_that_is_taken(library: Path, taken_port: int) -> None:
    done = photoseek("ui", "--port", str(taken_port), library=library, code=1)

    assert f"Port {taken_port} is taken" in done.stderr


def test_a_service_on_a_port_that_is_taken(library: Path, taken_port: int) -> None:
    done = photoseek("serve", "--port", str(taken_port), library=library, code=1)

    assert f"port {taken_port}. Is it taken?" in done.stderr


def test_a_service_elsewhere_that_does_not_answer(library: Path) -> None:
    # The domain .invalid is reserved: it never resolves.
    done = photoseek("ui", "--service", "http://photos.invalid:8765", library=library, code=1)

    assert "No service answers at http://photos.invalid:8765" in done.stderr


def test_off_this_machine_only_with_a_token(library: Path) -> None:
    done = photoseek("serve", "--host", "0.0.0.0", library=library, code=1)

    assert "without a token" in done.stderr
