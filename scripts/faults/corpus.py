"""Makes a folder of everything that can be wrong with photo files and folders, and indexes it."""

import contextlib
import dataclasses
import itertools
import math
import multiprocessing
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil

from indexer.photos import MAX_PIXELS, SUPPORTED
from scripts.faults.handmade import png_chunk, png_of_rows
from scripts.faults.mutations import MUTATIONS, wrong_suffix
from scripts.faults.oracle import accounted, display
from scripts.faults.pictures import KINDS, SIZES, example, family

_MUTATIONS = {mutation.__name__: mutation for mutation in MUTATIONS}
_VALID_SHARE = 0.25
_IN_A_FOLDER = 500
_RESTLESS = 10
_ODD_NAMES = (
    b"two\nlines", b"caf\xe9 \xff\xfe", b"-rf", b"a b\tc", b"back\\slash\\u00e9", b"quote\"'`$(x)", b"x" * 240,
    "\u202egpj.\U0001f4f7".encode(), b"%s %n %2f", b"percent\x01\x1b[31m",
)  # fmt: skip

PEAK_RSS_MB = 4000
"""The most memory that a run may take: a decoder 2,600 MB for the largest picture, the rest for PyTorch, the model, and
a batch of photos.
"""

_PROCESSES = multiprocessing.get_context("forkserver")


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the files."""

    files: int
    """Regular files with the suffix of a photo, that are there after the last run."""
    indexed: int
    failed: int
    """Listed with a reason."""
    unaccounted: int
    """Neither the one nor the other; or listed and not there; or failed though they are valid."""
    crashes: int
    """Runs that did not end as a run should."""
    peak_rss_mb: int
    """Most memory that the indexing process and its decoders had together, pages that they share counted for each."""

    @property
    def harmless(self) -> bool:
        """Whether every file is accounted for, no run crashed, and memory stayed bounded."""
        return not (self.unaccounted or self.crashes) and self.peak_rss_mb < PEAK_RSS_MB


def torture(work: Path, count: int, seed: int) -> tuple[Report, list[str]]:
    """Make ``count`` files, index them while some do not stand still, and once more when all do.

    Returns the report, and a line for each thing that is wrong.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    _PROCESSES.set_forkserver_preload(["scripts.faults.victims"])
    photos, library = work / "photos", work / "library"
    write_corpus(photos, count, seed)
    _write_bomb(photos / "bomb.png")
    restless = [photos / "restless" / f"{number}.png" for number in range(_RESTLESS)]
    with _never_still(restless, seed):
        first = _index(library, photos)
    second = _index(library, photos)
    expected = set(photo_files(photos))
    indexed, failures = accounted(library)
    details = [f"a run ended with {each.said!r}" for each in (first, second) if not each.ended]
    details += [f"not accounted for: {display(path)}" for path in expected - indexed - failures.keys()]
    details += [f"not there: {display(path)}" for path in (indexed | failures.keys()) - expected]
    details += [f"no reason: {display(path)}" for path, reason in failures.items() if not reason.strip()]
    details += [
        f"valid, and failed: {display(path)}: {reason}"
        for path, reason in failures.items()
        if os.path.basename(path).startswith(b"valid")  # noqa: PTH119 - bytes
    ]
    crashes = (not first.ended) + (not second.ended)
    unaccounted = len(details) - crashes
    peak_rss_mb = max(first.peak_rss, second.peak_rss) >> 20
    if peak_rss_mb >= PEAK_RSS_MB:
        details.append(f"a run took {peak_rss_mb:,} MB")
    report = Report(
        files=len(expected),
        indexed=len(indexed),
        failed=len(failures),
        unaccounted=unaccounted,
        crashes=crashes,
        peak_rss_mb=peak_rss_mb,
    )
    return report, details


def write_corpus(folder: Path, count: int, seed: int) -> None:
    """Fill a folder with ``count`` files, and with oddities of file systems beside them."""
    chance = random.Random(seed)
    for number, (how, kind) in enumerate(itertools.islice(_plan(chance), count)):
        data, suffix = example(kind, chance.randrange(len(SIZES)), chance.randrange(8)), KINDS[kind][0]
        if how == "misnamed":
            suffix = wrong_suffix(suffix, chance)
        elif how != "valid":
            data = _MUTATIONS[how](data, chance)
        path = folder / str(number // _IN_A_FOLDER) / f"{how}-{number}-{kind.replace(';', '-')}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    _write_oddities(folder / "odd")


def _plan(chance: random.Random) -> Iterator[tuple[str, str]]:
    """What happens to a file of which kind: at first all to each family, then each kind stays valid, then by chance."""
    kinds = list(KINDS)
    by_family = [list(same) for _, same in itertools.groupby(sorted(kinds), family)]
    for mutation, same in itertools.product(_MUTATIONS, by_family):
        yield mutation, chance.choice(same)
    for kind in kinds:
        yield "valid", kind
    while True:
        how = "valid" if chance.random() < _VALID_SHARE else chance.choice(("misnamed", *_MUTATIONS))
        yield how, chance.choice(kinds)


def _write_bomb(path: Path) -> None:
    """What takes most memory of all that is decoded, in next to no bytes: all pixels that may be, some transparent."""
    side = math.isqrt(MAX_PIXELS)
    rows = bytes((1 + side // 8) * side)
    path.write_bytes(png_of_rows(side, side, 1, 0, rows, chunks=png_chunk(b"tRNS", b"\0\0")))


def _write_oddities(folder: Path) -> None:
    folder.mkdir(parents=True)
    picture = example("jpeg-RGB", 0, 0)
    for number, odd in enumerate(_ODD_NAMES):
        Path(os.fsdecode(os.fsencode(folder) + b"/valid " + odd + f"{number}.jpg".encode())).write_bytes(picture)
    for name in ("twin.jpg", "Twin.jpg", "TWIN.JPG", "twin.JPG"):
        (folder / name).write_bytes(picture + name.encode())
    elsewhere = folder.parent.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "out.jpg").write_bytes(picture)
    for link, target in (
        ("loop", folder.parent), ("self.jpg", folder / "self.jpg"), ("to.jpg", folder / "fro.jpg"),
        ("fro.jpg", folder / "to.jpg"), ("dangling.jpg", folder / "nothing.jpg"), ("out", elsewhere),
        ("out.jpg", elsewhere / "out.jpg"), ("in.jpg", folder / "twin.jpg"), ("zero.jpg", Path("/dev/zero")),
    ):  # fmt: skip
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "fifo.jpg")
    with contextlib.suppress(PermissionError):
        os.mknod(folder / "device.jpg", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    _leave_socket(folder)
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "valid.jpg").write_bytes(picture)
    for name in ("unreadable.jpg", "closed"):
        path = folder / name
        path.mkdir() if name == "closed" else path.write_bytes(picture)
        path.chmod(0)
    deep = folder / Path(*["deep"] * 100)
    deep.mkdir(parents=True)
    (deep / "valid.jpg").write_bytes(picture)


def _leave_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left, contextlib.chdir(folder):  # its address may not be long
        left.bind("socket.jpg")


def photo_files(folder: Path) -> Iterator[bytes]:
    """What is to be accounted for: regular files, or links to such below the folder, with the suffix of a photo; found
    in another way than by `indexer.scan`.
    """
    inside = os.path.join(os.path.realpath(os.fsencode(folder)), b"")  # noqa: PTH118 - bytes
    for directory, folders, names in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if not name.startswith(b".")]
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - bytes
            suffix = os.path.splitext(name)[1].decode(errors="replace").lower()  # noqa: PTH122
            if suffix in SUPPORTED and os.path.isfile(path) and os.path.realpath(path).startswith(inside):  # noqa: PTH113
                yield path


@contextlib.contextmanager
def _never_still(paths: list[Path], seed: int) -> Iterator[None]:
    """Meanwhile the files grow, shrink, vanish and come back."""
    stop, chance = threading.Event(), random.Random(seed)
    whole = [example(kind, 0, 0) for kind in ("png-RGB", "png-L", "png-RGBA")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(whole[0])

    def disturb() -> None:
        for path in itertools.cycle(paths):
            if stop.wait(0.002):
                return
            match chance.randrange(4):
                case 0:
                    path.write_bytes(chance.choice(whole))
                case 1 if path.exists():
                    os.truncate(path, chance.randrange(path.stat().st_size + 1))
                case 2:
                    with path.open("ab") as file:
                        file.write(chance.randbytes(5000))
                case _:
                    path.unlink(missing_ok=True)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclasses.dataclass
class _Run:
    said: object
    peak_rss: int

    @property
    def ended(self) -> bool:
        """With how many failed, and not in some other way."""
        return isinstance(self.said, int)


def _index(library: Path, photos: Path) -> _Run:
    said, theirs = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_index_in_process, args=(theirs, library, photos))
    process.start()
    theirs.close()
    run = _Run("nothing", 0)
    with said:
        _follow(run, process, said)
    process.join()
    return run


def _follow(run: _Run, process: ForkServerProcess, said: Connection) -> None:
    assert process.pid is not None
    root = psutil.Process(process.pid)
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.peak_rss = max(run.peak_rss, sum(_rss(each) for each in (root, *root.children(recursive=True))))
        try:
            while said.poll():
                run.said = said.recv()
        except EOFError:
            return
        time.sleep(0.05)


def _rss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _index_in_process(said: Connection, library: Path, folder: Path) -> None:
    from scripts.faults.victims import index  # noqa: PLC0415 - PyTorch, which this process can do without

    index(said, library, folder, prune=True, exact_up_to=20_000)
