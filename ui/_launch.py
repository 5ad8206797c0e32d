"""Run the Streamlit app, and the search service beside it where none answers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Self
from urllib.parse import urlsplit

import httpx

from indexer.errors import ServiceError
from ui.client import DEFAULT_SERVICE, Client

_APP = Path(__file__).with_name("app.py")
_APP_PORT = 8501
_START_SECONDS = 120
_STOP_SECONDS = 45
"""Longer than the service gives requests in flight, so that it is never killed while it saves."""


def run_app(
    library: Path,
    port: int | None,
    service: str | None,
    on_ready: Callable[[str, str], None],
    serve_options: Sequence[str] = (),
) -> NoReturn:
    """Run the app on ``port`` (None: a free one) for the service at ``service`` (None: one for this library) until
    interrupted. ``on_ready`` gets the addresses of the app and of the service. A service that has to be started gets
    ``serve_options`` of ``photoseek serve``.

    Raises ServiceError when the app or the service cannot be started, or ends.
    """
    with _Processes() as processes:
        page = _loopback(_free_port(port or _APP_PORT, any_other=port is None))
        address = service or _running_service(library) or _loopback(_free_port(urlsplit(DEFAULT_SERVICE).port))
        if not _answers(f"{address}/healthz"):
            place = ("--host", _host_here(address), "--port", str(urlsplit(address).port or 80))
            serve = ("ui.cli", "serve", *place, "--library", str(library), "--log-level", "warning", *serve_options)
            processes.start("The search service", serve, f"{address}/healthz")
        flags = (f"--server.port={urlsplit(page).port}", "--server.address=127.0.0.1", "--server.headless=true")
        run = ("streamlit", "run", str(_APP), *flags, "--browser.gatherUsageStats=false", "--logger.level=warning")
        processes.start("The search page", run, f"{page}/_stcore/health", {"PHOTOSEEK_SERVICE": address})
        on_ready(page, address)
        processes.watch()


class _Processes:
    """Python modules that run as processes of ours; they end when it is left, also by SIGTERM or a closed terminal."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):  # Windows has no SIGHUP
                signal.signal(getattr(signal, name), _stop)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, command: Sequence[str], health: str, variables: dict[str, str] | None = None) -> None:
        """Start a module with its arguments; returns when ``health`` answers."""
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=os.environ | (variables or {}), stdout=subprocess.DEVNULL
        )
        self._running[name] = process
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(health):
            if process.poll() is not None:
                raise ServiceError(f"{name} did not start (exit code {process.returncode}). The lines above say why.")
            if time.monotonic() > deadline:
                raise ServiceError(f"{name} does not answer at {health} after {_START_SECONDS} seconds.")
            time.sleep(0.2)

    def watch(self) -> NoReturn:
        """Wait for as long as all of them run; ServiceError when one ends."""
        while True:
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise ServiceError(f"{name} ended (exit code {process.returncode}). Start PhotoSeek again.")
            time.sleep(0.5)


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)


def _running_service(library: Path) -> str | None:
    """The default service's address, if one runs there for this library."""
    with Client(DEFAULT_SERVICE, os.environ.get("PHOTOSEEK_TOKEN")) as client, contextlib.suppress(ServiceError):
        if Path(client.status().directory).resolve() == library.resolve():
            return DEFAULT_SERVICE
    return None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _free_port(preferred: int | None, *, any_other: bool = True) -> int:
    for port in (preferred or 0, 0) if any_other else (preferred or 0,):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            free: int = probe.getsockname()[1]
            return free
    raise ServiceError(f"Port {preferred} is taken. Give another one with --port, or none for any that is free.")


def _loopback(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _host_here(address: str) -> str:
    host = urlsplit(address).hostname
    if host not in {"127.0.0.1", "localhost", "::1"}:
        raise ServiceError(f"No service answers at {address}. Start one there with photoseek serve, or drop --service.")
    return host
