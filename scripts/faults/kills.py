"""Kills an indexing process, or the service while it indexes, at random moments; looks at what is left each time."""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from indexer.library import Library
from scripts.faults.oracle import CatalogState, digest_of, read_catalog, wrong_answers
from scripts.faults.photo_folder import PhotoFolder

_SERVICE_SHARE = 0.1
"""Of the kills, how many are of the service: at least one of three or more."""
_EXACT_UP_TO = (0, 20_000)
"""Pictures of which a round compares every vector: of so few that it compresses them, or of all that there ever are."""
_PATIENCE_S = 600.0
_QUERIES = 3
_HARMLESS = ("vectors.faiss: missing", "vectors.faiss: behind the catalog", "thumbnails: ", "match_features: ")
"""Beginnings of what a check of a library may find right after a kill: caches, which the next run puts right."""
_SAME = 5e-3
"""The most that two runs' vectors of one picture differ by, for the batches that it was in."""

_PROCESSES = multiprocessing.get_context("forkserver")


@dataclasses.dataclass
class Tally:
    """What was hurt."""

    kills: int = 0
    lost: int = 0
    """Photos that were indexed, are still on disk, and were not found any more."""
    doubled: int = 0
    """Photos or pictures that were there more than once."""
    stale: int = 0
    """Photos that were found as they had not been for long."""
    mismatched: int = 0
    """Searches that differed from brute force, and whatever else a check found."""

    @property
    def harmless(self) -> bool:
        """Whether nothing was hurt."""
        return not (self.lost or self.doubled or self.stale or self.mismatched)


def torture(work: Path, kills: int, seed: int) -> tuple[Tally, list[str]]:
    """Kill so many times, then let a run end, and compare with a library that was made in one go.

    Returns the tally, and a line for each thing that was hurt.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    _PROCESSES.set_forkserver_preload(["scripts.faults.victims"])
    return _Torture(work, seed).run(kills)


class _Torture:
    def __init__(self, work: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._queries = np.random.default_rng(seed)
        self._photos = PhotoFolder(work / "photos", self._chance)
        self._library, self._fresh = work / "library", work / "fresh"
        self._tally = Tally()
        self._details: list[str] = []
        self._before = CatalogState({}, 0, {}, {})
        self._exact_up_to = _EXACT_UP_TO[0]

    def run(self, kills: int) -> tuple[Tally, list[str]]:
        for _ in range(40):
            self._photos.add()
        service_killed = kills < 3
        while self._tally.kills < kills:
            self._photos.change()
            self._exact_up_to = self._chance.choice(_EXACT_UP_TO)
            due = not service_killed and self._tally.kills >= kills // 2
            if due or self._chance.random() < _SERVICE_SHARE:
                killed = self._kill_service()
                service_killed |= killed
            else:
                killed = self._kill_run()
            self._tally.kills += killed
            self._look()
        self._photos.change()
        self._index(self._library, prune=True)
        self._look()
        self._look_at_the_end()
        return self._tally, self._details

    def _kill_run(self) -> bool:
        """Start a run and kill it; False if it ended first."""
        with self._indexing(self._library, prune=self._chance.random() < 0.5) as (process, said):
            self._wait_for_a_moment(said)
            if self._chance.random() < 0.2:
                self._photos.change()  # behind the run's back
            alive = process.is_alive()
            process.kill()
        return alive

    def _wait_for_a_moment(self, said: Connection) -> None:
        # Runs end too soon for a moment drawn from all of them to fall often into what matters: transactions and files.
        stage, events, longest = self._chance.choice(
            [("", 1, 2.0), ("scanning", 1, 0.1), ("indexing", 1, 2.0), ("indexing", 2, 0.5), ("indexing", 3, 0.5)]
            + [("saving", 1, 0.1)] * 2
        )
        while stage and events:
            try:
                heard = said.recv()
            except EOFError:
                return
            if heard in (stage, "done"):
                events -= 1
            if heard == "done":
                return
        time.sleep(self._chance.uniform(0, longest))

    def _kill_service(self) -> bool:
        """Let the service index, and kill it meanwhile; False if the job ended first."""
        if not self._before.rows:  # the service indexes only what it has been told of on this machine
            self._index(self._library, prune=False)
            self._photos.change()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = _PROCESSES.Process(target=_serve, args=(self._library, port))
        process.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_PATIENCE_S, trust_env=False) as client:
                _wait_until_ready(client, process)
                job = client.post("/v1/index", json={"folders": [str(self._photos.path)]}).raise_for_status().json()
                client.get("/v1/search", params={"q": "a photo", "rerank": 5}).raise_for_status()
                time.sleep(self._chance.uniform(0, 2))
                return bool(client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()["state"] == "running")
        finally:
            process.kill()
            process.join()

    def _index(self, library: Path, prune: bool) -> None:
        """A run that nobody kills."""
        with self._indexing(library, prune) as (process, said):
            heard: object = None
            with contextlib.suppress(EOFError):
                while True:
                    heard = said.recv()
            process.join()
        self._expect(heard == 0, "lost", f"the run ended with {heard!r} in the place of no failure")

    @contextlib.contextmanager
    def _indexing(self, library: Path, prune: bool) -> Iterator[tuple[ForkServerProcess, Connection]]:
        said, theirs = _PROCESSES.Pipe(duplex=False)
        process = _PROCESSES.Process(target=_index, args=(theirs, library, self._photos.path, prune, self._exact_up_to))
        process.start()
        theirs.close()
        try:
            yield process, said
        finally:
            process.kill()
            process.join()
            said.close()

    def _look(self) -> None:
        """Open the library again, search, and compare with before."""
        if not (self._library / "catalog.sqlite").exists():
            return  # killed before there was one
        now = read_catalog(self._library)
        self._count_lost(now)
        self._expect(now.rows == len(now.digests), "doubled", f"{now.rows} rows for {len(now.digests)} photos")
        digests = list(now.digests_by_id.values())
        self._expect(len(digests) == len(set(digests)), "doubled", "two pictures of one digest")
        with Library.open(self._library, self._exact_up_to) as library:
            for problem in wrong_answers(library, now, self._random_queries(now)):
                self._expect(False, "mismatched", problem)
            for finding in library.verify().findings:
                self._expect(finding.startswith(_HARMLESS), "mismatched", finding)
        self._before = now

    def _count_lost(self, now: CatalogState) -> None:
        for path, digest in self._before.digests.items():
            if now.digests.get(path) != digest and digest_of(Path(path)) == digest:
                self._expect(False, "lost", f"{path} is not what it was")

    def _look_at_the_end(self) -> None:
        """After a run that ended, everything must be as on disk, and as in a library made in one go."""
        state = read_catalog(self._library)
        right = {str(path): digest_of(path) for path in self._photos.files()}
        for path in right.keys() - state.digests.keys():
            self._expect(False, "lost", f"{path} is not indexed")
        for path, digest in state.digests.items():
            self._expect(right.get(path) == digest, "stale", f"{path} is not what it was indexed as")
        with Library.open(self._library) as library:
            for finding in library.verify().findings:
                self._expect(False, "mismatched", f"at the end, {finding}")
        self._index(self._fresh, prune=False)
        expected = read_catalog(self._fresh).by_digest()
        for digest, vectors in state.by_digest().items():
            same = digest in expected and bool(np.abs(vectors - expected[digest]).max() < _SAME)
            self._expect(same, "mismatched", f"the vectors of {digest} are not those of a fresh library")

    def _random_queries(self, state: CatalogState) -> NDArray[np.float32]:
        queries = self._queries.standard_normal((_QUERIES, 256)).astype(np.float32)
        if state.embeddings:  # and one that knows what it looks for
            queries[0] = self._chance.choice(list(state.embeddings.values()))[7]
        scaled: NDArray[np.float32] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return scaled

    def _expect(self, condition: bool, otherwise: str, detail: str) -> None:
        if not condition:
            setattr(self._tally, otherwise, getattr(self._tally, otherwise) + 1)
            self._details.append(f"after {self._tally.kills} kills: {otherwise}: {detail}")


def _index(said: Connection, library: Path, folder: Path, prune: bool, exact_up_to: int) -> None:
    from scripts.faults.victims import index  # noqa: PLC0415 - PyTorch, which this process can do without

    index(said, library, folder, prune, exact_up_to)


def _serve(library: Path, port: int) -> None:
    from scripts.faults.victims import serve_library  # noqa: PLC0415 - as above

    serve_library(library, port)


def _wait_until_ready(client: httpx.Client, process: ForkServerProcess) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while process.is_alive() and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").is_success:
                return
        time.sleep(0.05)
    raise RuntimeError("the service does not start")
