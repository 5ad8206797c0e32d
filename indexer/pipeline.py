"""Photos in, library out: one indexing run.

Scan, compare with the catalog, read and decode in worker processes, encode in batches, commit. The stages overlap: the
processes decode and the model encodes while the thread that called commits what is finished; the first photos are
decoded while the model is loaded. That thread alone writes
to the library, so it alone decides what is known, new, moved or failed.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer._absent import AbsentFiles, not_mounted
from indexer._tally import Tally
from indexer._task import Task
from indexer._unchanged import UnchangedFolders
from indexer.embedding import ModelIdentity
from indexer.errors import FolderNotFound, LibraryError
from indexer.library import IndexedFile, Library, Writer
from indexer.pending_model import PendingModel
from indexer.profile import Profile, Worker
from indexer.progress import Progress, ProgressMeter
from indexer.scan import FolderChanges, FolderScan, compare, display_path, outermost, scan_folder

if TYPE_CHECKING:
    from indexer.model import Model

_CHUNK = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class IndexSummary:
    """What a run did. Every photo file found is one of added, updated, moved, unchanged and failed."""

    added: int
    """New photos, and photos that are back."""
    updated: int
    """Photos whose file has another picture now."""
    moved: int
    """Photos whose file has another path now."""
    unchanged: int
    removed: int
    """Photos whose file is gone: hidden from searches, and remembered."""
    failed: int
    """Files that could not be indexed, those included that failed before and have not changed since."""
    embedded: int
    """Pictures that the model looked at."""
    seconds: float
    cancelled: bool
    notes: tuple[str, ...]
    """What else a person should know, a sentence each."""
    profile: Profile
    """Where the time went."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without the profile."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "profile"}


def index_folders(
    library: Library,
    model: "Model | PendingModel",
    folders: Sequence[Path],
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    cancelled: threading.Event | None = None,
    workers: int | None = None,
    prune: bool = False,
    devices: Sequence[str] | None = None,
) -> IndexSummary:
    """Bring the library up to date with folders of photos.

    A photo is indexed when its batch is committed: a run that is cancelled (``cancelled``, or Ctrl-C in the main
    thread), fails or is killed loses nothing, and the next one continues. An indexed folder that is gone, empty, or
    suddenly lacks more than a fifth of its photos counts as not mounted: nothing of it is removed, unless ``prune``
    says that what is not there is gone for good. If the model is not the library's active one, all present
    photos get its vectors too, and it becomes the active one when none lacks them. A pending model is loaded once there
    is something to look at. ``workers`` is the number of decoder processes (`default_workers`). ``devices`` are those
    that share the model's work when there is more than a batch of it: none of them its own; by default, every other GPU
    beside "cuda".

    Raises FolderNotFound: a folder that was never indexed is not there; LibraryLocked: another run is writing;
    LibraryError: the library cannot be written.
    """
    started = time.monotonic()
    stop = cancelled or threading.Event()
    meter = ProgressMeter(on_progress)
    meter.enter("scanning")
    tally = Tally()
    timed = tally.stopwatch.timed
    notes: list[str] = []
    with library.writer() as writer, _interrupt_sets(stop):
        roots = outermost(folders)
        _refuse_absent(roots, set(writer.folders().values()))
        writer.use_model(model.identity)
        unchanged = UnchangedFolders(writer)
        absent = AbsentFiles(writer, tally, prune)
        tasks: list[Task] = []
        for root in roots:
            with timed("run", "scan"):
                scan = _scan(library, root, prune, meter, stop)
            if stop.is_set():  # photos that the scan lacks are not gone
                break
            with timed("run", "compare"):
                tasks += _compare(writer, root, scan, unchanged, absent, tally, notes)
        if not stop.is_set():
            with timed("run", "compare"):
                tasks += _unembedded(writer, model.identity, unchanged, tasks)
        meter.enter("indexing", len(tasks))
        counts: dict[Worker, int] = {}
        if tasks and not stop.is_set():
            from indexer._run import Run  # noqa: PLC0415 - imports Pillow, which a run without changes does without

            load = functools.partial(_loaded, model, devices, len(tasks))
            beside = default_workers if workers is None else lambda _: workers
            run = Run(writer, load, model.image_size, beside, absent, tally, meter, stop)
            with _vectors_saved_on_failure(writer):
                run.index(tasks)
            counts = {"decoders": run.workers, "model": max(1, run.devices)}
        meter.enter("saving")
        if not stop.is_set():
            notes += absent.settle()
            _activate(library, writer, model.identity, notes)
            unchanged.keep()
        with timed("run", "save vectors"):
            writer.refresh_vectors()
        notes += library.take_notes()
    meter.enter("done")
    seconds = time.monotonic() - started
    profile = tally.stopwatch.profile(seconds, counts)
    return _summary(tally, profile, stop.is_set(), notes)


def _summary(tally: Tally, profile: Profile, cancelled: bool, notes: Sequence[str]) -> IndexSummary:
    outcomes = tally.outcomes
    return IndexSummary(
        added=outcomes["added"],
        updated=outcomes["updated"],
        moved=outcomes["moved"],
        unchanged=outcomes["unchanged"],
        removed=len(tally.removed),
        failed=outcomes["failed"],
        embedded=tally.embedded,
        seconds=profile.seconds,
        cancelled=cancelled,
        notes=tuple(notes),
        profile=profile,
    )


def _loaded(model: "Model | PendingModel", devices: Sequence[str] | None, tasks: int) -> "list[Model]":
    from indexer.model import other_gpus  # noqa: PLC0415 - imports PyTorch

    first = model.load() if isinstance(model, PendingModel) else model
    if tasks <= first.batch_size:
        return [first]
    others = other_gpus(first.device) if devices is None else devices
    return [first, *(first.replica(device) for device in others)]


def default_workers(device: str) -> int:
    """Decoder processes: half the cores beside a model on the CPU, all but one beside a GPU; never none.

    A JPEG of 12 megapixels takes a core nearly as long to read (16 ms) as the compact model takes to encode it (21 ms),
    so half of the cores each keeps both busy.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2 if device == "cpu" else cores - 1)


@contextlib.contextmanager
def _vectors_saved_on_failure(writer: Writer) -> Iterator[None]:
    try:
        yield
    except Exception:
        with contextlib.suppress(LibraryError):  # what failed first is what should be told
            writer.refresh_vectors()
        raise


@contextlib.contextmanager
def _interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C sets the event, so that it never falls into the middle of a transaction; a second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse_absent(roots: Sequence[Path], indexed: set[Path]) -> None:
    for root in roots:
        if root in indexed:
            continue
        if not root.is_dir():
            problem = "is not a folder" if root.exists() else "does not exist"
            raise FolderNotFound(f"{display_path(root)} {problem}. Give the folder that the photos are in.")
        if not os.access(root, os.R_OK | os.X_OK):
            raise FolderNotFound(f"{display_path(root)} cannot be listed. Give yourself permission to read it.")


def _scan(library: Library, root: Path, prune: bool, meter: ProgressMeter, stop: threading.Event) -> FolderScan:
    if prune and not os.path.lexists(root):
        return FolderScan((), ())
    return scan_folder(root, library.directory, meter.scanned, stop.is_set)


def _compare(
    writer: Writer,
    root: Path,
    scan: FolderScan,
    unchanged: UnchangedFolders,
    absent: AbsentFiles,
    tally: Tally,
    notes: list[str],
) -> list[Task]:
    """Record what a folder's scan alone tells, and return what must be read."""
    folder_id = writer.add_folder(root)
    changes = unchanged.changes(root, scan)
    if changes is None:
        indexed = writer.indexed_files(folder_id)
        known = writer.known_files(folder_id, [path for path, _, _ in indexed.difference(scan.files)])
        changes = compare(scan, indexed, known)
        unchanged.remember(root, scan, changes)
    if "" in scan.unlistable or (changes.present and not scan.files and not absent.prune):
        notes.append(not_mounted(root))
        return []
    notes += [
        f"{display_path(root / inside)} cannot be listed; the photos in it were left as they are."
        for inside in scan.unlistable
    ]
    if scan.leading_out:
        notes.append(
            f"{display_path(root)} has links to photos outside it, {scan.leading_out:,} in all, which were left out. "
            "Index the folders that they lead to."
        )
    tally.outcomes["unchanged"] += changes.unchanged
    tally.outcomes["failed"] += changes.still_failed
    absent.scanned(folder_id, root, changes.present, changes.vanished)  # first: what is not at its place may have moved
    _record_returned(writer, folder_id, changes, tally)
    return [Task(root / file.relative_path, folder_id, file.relative_path, before) for file, before in changes.to_read]


def _record_returned(writer: Writer, folder_id: int, changes: FolderChanges, tally: Tally) -> None:
    files = [
        IndexedFile(folder_id, file.relative_path, file.size, file.mtime_ns, before.digest, None, before.photo_id)
        for file, before in changes.returned
    ]
    for start in range(0, len(files), _CHUNK):
        writer.commit(files[start : start + _CHUNK], [])
    failed = sum(before.failed for _, before in changes.returned)
    tally.outcomes["failed"] += failed
    tally.outcomes["added"] += len(files) - failed


def _unembedded(writer: Writer, model: ModelIdentity, unchanged: UnchangedFolders, tasks: Sequence[Task]) -> list[Task]:
    if unchanged.complete(model):
        return []
    lacking = _backfill(writer, tasks)
    # Those that are read anyway may yet fail.
    unchanged.remember_complete(None if lacking or tasks else model)
    return lacking


def _backfill(writer: Writer, tasks: Sequence[Task]) -> list[Task]:
    """Present pictures, of any folder, that lack vectors of this model and are not read anyway."""
    read_anyway = {task.path for task in tasks}
    lacking: list[Task] = []
    after = 0
    while page := writer.unembedded(_CHUNK, after):
        after = page[-1].content_id
        lacking += [Task(each.path, only_picture=each.digest) for each in page if each.path not in read_anyway]
    return lacking


def _activate(library: Library, writer: Writer, model: ModelIdentity, notes: list[str]) -> None:
    if library.active_model() == model:
        return
    if writer.unembedded(1):
        lacking = sum(1 for _ in _backfill(writer, ()))
        notes.append(
            f"{lacking:,} pictures have no vectors of {model.name} yet: their files could not be read. "
            "Searches go on with the model before until all have. Index again when the files are back."
        )
    else:
        writer.activate(model)
