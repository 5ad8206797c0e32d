"""The busy part of an indexing run: many photos under way at once, and one place that knows where each is."""

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer._absent import AbsentFiles
from indexer._encoded import Encoded
from indexer._encoding import Encoders, Loaded, ModelFailed
from indexer._tally import Outcome, Tally
from indexer._task import Task
from indexer.library import IndexedFile, KnownContent, NewContent, Writer
from indexer.photos import Broken, Decoded, DecodedPhoto, DecoderPool, Failed, Hashed, Vanished, decoder_memory
from indexer.progress import ProgressMeter
from indexer.scan import display_path
from indexer.typical_queries import TYPICAL_QUERIES

if TYPE_CHECKING:
    from indexer.model import Model

_UNTIL_LOADED = 32
"""Photos of a batch as long as nobody knows how many the model takes: three times as many are decoded meanwhile."""
_LEAST_BATCH = 4
"""Photos that the model is given together, at least, while more are on their way: one alone takes the compact model 1.4
times as long as one of four, and that of processors which the decoders need too."""
_TICK = 0.1
"""Seconds after which a cancelled run is noticed."""
_BETWEEN_COMMITS = 1.0
"""Seconds after which even a part of a batch is committed."""
_MOST_UNCOMMITTED = 500
"""Files that wait for one transaction, when none of them needs the model."""
_BETWEEN_REFRESHES = 30.0
"""Seconds between two times that vectors.faiss is brought up to date during a run."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Settled:
    """A file that is done but for the transaction."""

    file: IndexedFile | None
    """None if there is nothing to record of the file itself."""
    outcome: Outcome | None
    path: Path


@dataclasses.dataclass(slots=True)
class _Awaited:
    """A picture on its way through decoder and model, and the files that turned out to be of it."""

    files: list[_Settled]
    photo: DecodedPhoto | None = None


class Run:
    """One run over a list of files. No more of them are under way than keep every stage busy."""

    def __init__(
        self,
        writer: Writer,
        load: "Callable[[], Sequence[Model]]",
        image_size: int,
        workers: Callable[[str], int],
        absent: AbsentFiles,
        tally: Tally,
        meter: ProgressMeter,
        stop: threading.Event,
    ) -> None:
        """``load`` returns one checkpoint, for photos of ``image_size`` pixels, on each of several devices, and
        ``workers`` the number of decoder processes beside a model on such a device. ``stop`` ends it early; ``tally``
        and ``meter`` are told what is committed.
        """
        self._writer = writer
        self._load = load
        self._image_size = image_size
        self._workers_beside = workers
        self.workers = workers("cpu")
        """Decoder processes."""
        self.devices = 0
        """That the model is on: none as long as it is not loaded."""
        self._batch_size = _UNTIL_LOADED
        self._absent = absent
        self._tally = tally
        self._meter = meter
        self._stop = stop
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._reading: dict[int, Task] = {}
        self._decoding: dict[int, str] = {}
        self._awaited: dict[str, _Awaited] = {}
        self._decoded: list[str] = []
        self._batches = 0
        self._settled: list[_Settled] = []
        self._contents: dict[str, NewContent] = {}
        self._claimed: set[int] = set()
        self._committed_at = self._refreshed_at = time.monotonic()
        self._refresh_pause = _BETWEEN_REFRESHES

    def index(self, tasks: Sequence[Task]) -> None:
        """Index the files, until done or stopped. What is committed by then stays."""
        # The row of a path that is read in this run is not free for a moved file.
        self._claimed = {task.before.photo_id for task in tasks if task.before is not None}
        texts = TYPICAL_QUERIES if self._writer.wants_queries(len(tasks)) else ()
        upcoming = iter(enumerate(tasks))
        stopwatch = self._tally.stopwatch
        # Also those that come when the model is on a GPU keep, together with the others, to their part of the memory.
        memory = decoder_memory(max(map(self._workers_beside, ("cpu", "cuda"))))
        with (
            Encoders(self._load, self._events, stopwatch, texts) as encoders,
            DecoderPool(
                self.workers, self._image_size, self._events, memory_limit=memory, stopwatch=stopwatch
            ) as decoders,
        ):
            self._feed(decoders, upcoming)
            while not self._stop.is_set() and (self._reading or self._awaited):
                with contextlib.suppress(queue.Empty):
                    self._handle(self._events.get(timeout=_TICK))
                decoders.grow(self.workers)
                self._encode(encoders)
                self._save_if_due()
                self._feed(decoders, upcoming)
        self._take_last_batches()
        self._commit()

    def _feed(self, decoders: DecoderPool, upcoming: Iterator[tuple[int, Task]]) -> None:
        most = (1 + 2 * max(1, self.devices)) * self._batch_size
        # One is decoded, one read, and two wait for the decoder.
        while len(self._reading) < 4 * self.workers and len(self._awaited) < most:
            key, task = next(upcoming, (-1, None))
            if task is None:
                return
            self._reading[key] = task
            decoders.submit(key, task.path)

    def _handle(self, event: object) -> None:
        match event:
            case Hashed():
                self._on_hashed(event)
            case Decoded(key, photo):
                del self._reading[key]
                digest = self._decoding.pop(key)
                self._awaited[digest].photo = photo
                self._decoded.append(digest)
            case Failed(key, reason):
                self._on_failed(self._reading.pop(key), self._decoding.pop(key, None), reason)
            case Vanished(key):
                self._on_vanished(self._reading.pop(key))
            case Loaded(devices, batch_size, queries):
                self.devices, self._batch_size = len(devices), batch_size
                self.workers = self._workers_beside(devices[0])
                if queries is not None:
                    self._writer.keep_queries(queries)
            case Encoded():
                self._on_encoded(event)
            case Broken(error) | ModelFailed(error):
                self._commit()
                raise error

    def _on_hashed(self, event: Hashed) -> None:
        task, digest = self._reading[event.key], event.digest
        with self._tally.stopwatch.timed("run", "look up pictures"):
            known = self._writer.find_contents([digest]).get(digest)
        settled = self._place(task, event, known)
        wanted = False
        if task.only_picture not in (None, digest):
            self._settled.append(settled)  # edited since it was recorded: indexing its folder will find that
        elif digest in self._awaited:
            self._awaited[digest].files.append(settled)
        elif digest in self._contents:
            self._settle(settled, self._contents[digest].failure)
        elif known is not None and known.embedded:
            self._settled.append(settled)
        else:
            wanted = True
            self._awaited[digest] = _Awaited([settled])
            self._decoding[event.key] = digest
        if not wanted:
            del self._reading[event.key]
        event.answer(wanted)

    def _place(self, task: Task, event: Hashed, known: KnownContent | None) -> _Settled:
        """Which row of the catalog the file is, and what that means."""
        if task.only_picture is not None:
            return _Settled(None, None, task.path)
        before = task.before
        photo_id = None if before is None else before.photo_id
        outcome: Outcome = "updated"
        if before is None:
            photo_id = self._claim_moved(task, known, event.digest)
            outcome = "added" if photo_id is None else "moved"
        elif before.missing:
            outcome = "added"
        elif before.digest == event.digest and not before.failed:
            outcome = "unchanged"
        file = IndexedFile(task.folder_id, task.relative_path, event.size, event.mtime_ns, event.digest, None, photo_id)
        return _Settled(file, outcome, task.path)

    def _claim_moved(self, task: Task, known: KnownContent | None, digest: str) -> int | None:
        """A photo of the same picture whose file is gone: the new file is that photo."""
        if known is None:
            return None
        free = [photo for photo in known.missing_photos if photo not in self._claimed]
        claimed = free[0] if free else self._absent.claim(task.folder_id, digest)
        if claimed is not None:
            self._claimed.add(claimed)
            self._tally.removed.discard(claimed)
        return claimed

    def _on_failed(self, task: Task, digest: str | None, reason: str) -> None:
        if digest is not None:
            return self._give_up(digest, reason)
        if task.only_picture is not None:
            return self._settled.append(_Settled(None, None, task.path))
        # A file that cannot be read has no state worth remembering: with none recorded, the next run tries again.
        photo_id = None if task.before is None else task.before.photo_id
        file = IndexedFile(task.folder_id, task.relative_path, 0, 0, None, reason, photo_id)
        return self._settled.append(_Settled(file, "failed", task.path))

    def _on_vanished(self, task: Task) -> None:
        if task.before is not None and not task.before.missing:
            self._absent.vanished(task.folder_id, task.before)
        self._settled.append(_Settled(None, None, task.path))

    def _on_encoded(self, event: Encoded) -> None:
        self._batches -= 1
        self._tally.embedded += len(event.digests)
        for digest, embeddings, tokens in zip(event.digests, event.embeddings, event.tokens, strict=True):
            if not np.isfinite(embeddings).all():
                self._give_up(digest, "the model makes nothing finite of it")
                continue
            awaited = self._awaited.pop(digest)
            assert awaited.photo is not None
            self._contents[digest] = NewContent(
                digest, awaited.photo.facts, None, embeddings, tokens, awaited.photo.thumbnail
            )
            self._settled += awaited.files

    def _give_up(self, digest: str, reason: str) -> None:
        """The picture cannot be indexed, and so cannot any file of it."""
        files = self._awaited.pop(digest).files
        # A picture that is only to get another model's vectors keeps what the catalog has of it.
        if any(settled.file is not None for settled in files):
            self._contents[digest] = NewContent(digest, None, reason)
        for settled in files:
            self._settle(settled, reason)

    def _settle(self, settled: _Settled, failure: str | None) -> None:
        failed = failure is not None and settled.file is not None
        self._settled.append(dataclasses.replace(settled, outcome="failed") if failed else settled)

    def _encode(self, encoders: Encoders) -> None:
        # A model that has nothing to do takes what there is; one that is busy gets a full batch to go on with.
        size, devices = self._batch_size, self.devices
        least = min(size, _LEAST_BATCH) if self._reading else 1
        while (self._batches < devices and len(self._decoded) >= least) or (
            self._batches < 2 * devices and len(self._decoded) >= size
        ):
            digests, self._decoded = self._decoded[:size], self._decoded[size:]
            photos = [self._awaited[digest].photo for digest in digests]
            encoders.submit(tuple(digests), [photo.pixels for photo in photos if photo is not None])
            self._batches += 1

    def _take_last_batches(self) -> None:
        """What the encoder finished while it was told to end, when the run was stopped."""
        while self._batches:
            event = self._events.get()
            if isinstance(event, Encoded | ModelFailed):
                self._handle(event)

    def _save_if_due(self) -> None:
        now = time.monotonic()
        full = len(self._contents) >= self._batch_size or len(self._settled) >= _MOST_UNCOMMITTED
        if full or now - self._committed_at >= _BETWEEN_COMMITS:
            self._commit()
        if now - self._refreshed_at >= self._refresh_pause:
            with self._tally.stopwatch.timed("run", "save vectors"):
                self._writer.refresh_vectors()
            self._refreshed_at = time.monotonic()
            # A large library takes long to save: never more than a tenth of the time.
            self._refresh_pause = max(_BETWEEN_REFRESHES, 10 * (self._refreshed_at - now))

    def _commit(self) -> None:
        settled, contents = self._settled, list(self._contents.values())
        self._settled, self._contents = [], {}
        with self._tally.stopwatch.timed("run", "commit"):
            self._writer.commit([each.file for each in settled if each.file is not None], contents)
        self._committed_at = time.monotonic()
        self._tally.outcomes.update(each.outcome for each in settled if each.outcome is not None)
        if settled:
            failed = sum(each.outcome == "failed" for each in settled)
            self._meter.recorded(len(settled), failed, display_path(settled[-1].path))
