"""Search a service while it indexes, and then for long: errors, latencies, and whether its memory stays flat.

    python scripts/bench_service.py [--photos 5000] [--clients 32] [--searches 20000] [--reindexings 3] [--json]

Starts a service of a throw-away library in a process of its own. Clients, each with one search at a time, search first
while it is idle, then while it indexes PHOTOS synthetic photos. Then follows the soak: SEARCHES searches, and meanwhile
as many runs over all photos, whose times are changed so that each is read again. Exits with 1 if any request failed.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from scripts.sample_library import write_samples

ROOT = Path(__file__).parent.parent
SEARCHES = (
    "a cup of coffee",
    "a cat looking at the camera",
    "a rocket taking off",
    "flowers in a garden",
    "an old temple under a blue sky",
    "the moon at night",
    "a motorcycle in a workshop",
    "a woman in an orange suit",
)


@dataclasses.dataclass
class Load:
    """What the searches of one phase came to."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Counts, and percentiles of the latency in milliseconds."""
        times = np.array(self.seconds or [np.nan]) * 1000
        levels = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
        percentiles = {f"{name}_ms": round(float(np.percentile(times, level)), 1) for name, level in levels.items()}
        return {"searches": len(self.seconds), "errors": len(self.errors), **percentiles}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; 1 when a request failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=int, default=5000, help="photos that are indexed while clients search")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--idle-searches", type=int, default=1000, help="searches before that, while nothing is indexed"
    )
    parser.add_argument("--searches", type=int, default=20_000, help="searches of the soak")
    parser.add_argument("--reindexings", type=int, default=3, help="indexing runs during the soak")
    parser.add_argument("--rerank", type=int, default=10, help="candidates that each search reranks")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory, _service(Path(directory)) as service:
        measured = _measure(asked, Path(directory), *service)
    print(json.dumps(measured, indent=2) if asked.json else _table(measured))
    return int(any(measured[phase]["errors"] for phase in ("idle", "indexing", "soak")))


def _measure(asked: argparse.Namespace, directory: Path, url: str, process: psutil.Process) -> dict[str, Any]:
    few, many = directory / "few", directory / "many"
    write_samples(few)
    write_photos(few, many, asked.photos)
    search = _searcher(url, asked.rerank)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        _index(client, few)

        idle = search_while(search, asked.clients, _times(asked.idle_searches))

        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(_ended, client, _start(client, many))
            indexing = search_while(search, asked.clients, lambda: not job.done())
        summary = job.result()["summary"]

        runs: list[dict[str, Any]] = []
        memory: list[tuple[int, float]] = []
        soak = Load()
        each = asked.searches // (asked.reindexings + 1)
        for run in range(asked.reindexings + 1):
            if run:
                _touch(many, 60 * run)
                started = _start(client, many)
            searches = each if run else asked.searches - each * asked.reindexings
            with _watched(process, soak, memory):
                search_while(search, asked.clients, _times(searches), soak)
            if run:
                runs.append(_ended(client, started)["summary"])
    assert all(run["unchanged"] + run["updated"] == asked.photos for run in runs), runs
    return {
        "photos": asked.photos,
        "clients": asked.clients,
        "rerank": asked.rerank,
        "idle": idle.summary(),
        "indexing": {
            **indexing.summary(),
            "seconds": round(summary["seconds"], 1),
            "photos_per_s": round(summary["added"] / summary["seconds"], 1),
        },
        "soak": {**soak.summary(), "reindexings": len(runs), **_slope(memory)},
        "first_errors": [*idle.errors, *indexing.errors, *soak.errors][:5],
    }


def write_photos(samples: Path, folder: Path, count: int) -> None:
    """Write ``count`` JPEGs of 320×240, each a random part of a photo in ``samples`` in colours of its own."""
    folder.mkdir()
    random = np.random.default_rng(0)
    pictures = []
    for path in sorted(samples.iterdir()):
        if path.suffix != ".txt":
            with Image.open(path) as image:
                pictures.append(image.convert("RGB").resize((640, 480)))
    for number in range(count):
        left, top = int(random.integers(0, 320)), int(random.integers(0, 240))
        part = np.asarray(pictures[number % len(pictures)].crop((left, top, left + 320, top + 240)), dtype=np.float32)
        colours = part * random.uniform(0.7, 1.3, 3) + random.normal(0, 4, (240, 320, 1))
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg", quality=85)


def search_while(
    search: Callable[[httpx.Client, int], str | None], clients: int, more: Callable[[], bool], into: Load | None = None
) -> Load:
    """Search from several threads for as long as ``more`` says so; each asks it before each search."""
    load = into or Load()
    numbers = itertools.count()

    def work() -> None:
        with httpx.Client(timeout=120, trust_env=False) as client:
            while more():
                started = time.perf_counter()
                error = search(client, next(numbers))
                load.seconds.append(time.perf_counter() - started)
                if error is not None:
                    load.errors.append(error)

    with ThreadPoolExecutor(clients) as threads:
        for worker in [threads.submit(work) for _ in range(clients)]:
            worker.result()
    return load


def _searcher(url: str, rerank: int) -> Callable[[httpx.Client, int], str | None]:
    def search(client: httpx.Client, number: int) -> str | None:
        params: dict[str, str | int] = {"q": SEARCHES[number % len(SEARCHES)], "rerank": rerank, "offset": number % 3}
        try:
            response = client.get(f"{url}/v1/search", params=params)
        except httpx.HTTPError as error:
            return repr(error)
        return None if response.status_code == 200 else f"{response.status_code} {response.text[:200]}"

    return search


def _times(count: int) -> Callable[[], bool]:
    """True so many times, whoever asks."""
    left, lock = iter(range(count)), threading.Lock()

    def more() -> bool:
        with lock:
            return next(left, None) is not None

    return more


@contextlib.contextmanager
def _service(directory: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a service whose model is loaded."""
    place = ("--library", directory / "library", "--port", "0", "--allow-folder", directory)
    log = directory / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen((sys.executable, "-m", "ui.cli", "serve", *place), cwd=ROOT, stderr=stderr)
    try:
        while not (lines := log.read_text().splitlines(keepends=True)) or not lines[0].endswith("\n"):
            if process.poll() is not None:
                raise SystemExit(f"the service ended with exit code {process.returncode}: {log.read_text()}")
            time.sleep(0.1)
        url = f"http://127.0.0.1:{json.loads(lines[0])['port']}"
        while httpx.get(f"{url}/readyz", timeout=120, trust_env=False).status_code != 200:
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(120)


@contextlib.contextmanager
def _watched(process: psutil.Process, load: Load, into: list[tuple[int, float]]) -> Iterator[None]:
    """Note the service's resident memory, in MB, by the number of searches so far, several times a second."""
    done = threading.Event()

    def watch() -> None:
        while True:
            into.append((len(load.seconds), process.memory_info().rss / 2**20))
            if done.wait(0.25):
                return

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        try:
            yield
        finally:
            done.set()
            watching.result()


def _slope(memory: list[tuple[int, float]]) -> dict[str, float]:
    searches, megabytes = np.array(memory).T
    slope = np.polyfit(searches, megabytes, 1)[0] if np.ptp(searches) else 0.0
    return {
        "rss_start_mb": round(float(megabytes[0]), 1),
        "rss_end_mb": round(float(megabytes[-1]), 1),
        "rss_peak_mb": round(float(megabytes.max()), 1),
        "rss_slope_mb_per_1000": round(float(slope) * 1000, 3),
    }


def _touch(folder: Path, seconds: int) -> None:
    """Set every photo's time to another one, so that the next run reads it again."""
    now = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (now, now))


def _index(client: httpx.Client, folder: Path) -> None:
    _ended(client, _start(client, folder))


def _start(client: httpx.Client, folder: Path) -> str:
    response = client.post("/v1/index", json={"folders": [str(folder)]})
    response.raise_for_status()
    return str(response.json()["id"])


def _ended(client: httpx.Client, job: str) -> dict[str, Any]:
    while (document := client.get(f"/v1/jobs/{job}").json())["state"] == "running":
        time.sleep(0.2)
    if document["state"] != "done":
        raise SystemExit(f"the job {document['state']}: {document['error']}")
    ended: dict[str, Any] = document
    return ended


def _table(measured: dict[str, Any]) -> str:
    phases = ("idle", "indexing", "soak")
    rows: list[tuple[str, ...]] = [("", *phases)]
    rows += [
        (name, *(f"{measured[phase][name]:,}" for phase in phases))
        for name in ("searches", "errors", "p50_ms", "p90_ms", "p99_ms", "max_ms")
    ]
    indexing, soak = measured["indexing"], measured["soak"]
    lines = [f"{row[0]:10}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
    return "\n".join(
        [
            f"{measured['clients']} clients, {measured['photos']:,} photos, rerank {measured['rerank']}",
            *lines,
            f"indexing   {indexing['photos_per_s']} photos/s while clients search",
            f"memory     {soak['rss_start_mb']} MB at the start of the soak, {soak['rss_end_mb']} MB at its end, "
            f"{soak['rss_peak_mb']} MB at most; {soak['rss_slope_mb_per_1000']} MB per 1,000 searches; "
            f"{soak['reindexings']} indexing runs meanwhile",
            *measured["first_errors"],
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
