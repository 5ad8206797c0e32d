"""How fast photos are indexed: the naive loop, the model alone, and ours; and what each way to decode a JPEG costs.

    python scripts/bench_index.py --photos 1000         # a table of ratios; --json prints the figures
    python scripts/bench_index.py --rescan 100000       # a folder in which nothing has changed, beside `find`
    python scripts/bench_index.py --smallest            # a handful of each, to see that it runs

With --plots FOLDER, also index-rate.png and index-rescan.png there.

The JPEGs, of 12 and of 0.2 megapixels, are made of the sample library's photographs. What is compared runs one after
the other, on the same cores. Ours is the command: its rate over the second half of the photos, by when they were
recorded, and what the whole of it takes beyond that, from its start to its end (Python, the model, decoders that
start). "Apart": the model, alone or in the command, has only as many threads as the decoders leave cores. Decoding
alone: what the decoder processes would make on cores of their own. simplejpeg is compared where it is installed; for
pillow-simd, install it in place of Pillow and run again.
"""

import argparse
import datetime
import hashlib
import importlib
import importlib.util
import io
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from indexer.facts import PhotoFacts
from indexer.library import IndexedFile, Library, NewContent
from indexer.model import Model, load_model, quantised
from indexer.pending_model import PendingModel, model_when_needed
from indexer.photos import read_photo, squash
from indexer.photos._decode import LEAST_THUMBNAIL_SIDE, thumbnail_size
from indexer.pipeline import default_workers, index_folders
from scripts import plots
from scripts.sample_library import write_samples

RESCANS = ("find", "scandir and stat", "run", "run by the catalog", "command", "command on nothing")
SIZES = {"12 MP": (4000, 3000), "0.2 MP": (512, 384)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000, help="of each size")
    parser.add_argument("--rescan", type=int, metavar="FILES", help="measure only a folder without changes")
    parser.add_argument("--smallest", action="store_true", help="a handful of photos and files")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write PNG files there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    count = 4 if options.smallest else options.photos
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory:
        if options.rescan is None:
            for name, size in SIZES.items():
                measured[name] = measure(Path(directory) / name, size, count)
        if options.rescan is not None or options.smallest:
            measured["rescan"] = rescan(Path(directory) / "rescan", options.rescan or 20)
    if options.plots is not None:
        plot(options.plots, measured)
    if options.json:
        print(json.dumps(measured))
    for name, figures in {} if options.json else measured.items():
        print(name, *(f"  {figure:40} {value:12,.3f}" for figure, value in figures.items()), sep="\n")


def plot(folder: Path, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Draw what was measured, the naive way and the bound beside ours."""
    ways = {
        "one photo at a time": "naive loop, photos/s",
        "photoseek index": "ours, photos/s",
        "the model alone": "model alone, photos/s",
    }
    rates = {
        f"JPEGs of {size}": {way: measured[size][figure] for way, figure in ways.items()}
        for size in SIZES
        if size in measured
    }
    if rates:
        plots.bars(folder / "index-rate.png", "photos a second", rates)
    if "rescan" in measured:
        figures = measured["rescan"]
        spent = {
            name: {way: 1000 * figures[f"{way}, s{unit}"] for way in RESCANS}
            for name, unit in (("processor time", " of processor time"), ("wall clock", ""))
        }
        plots.bars(folder / "index-rescan.png", f"ms for {figures['files']:,.0f} unchanged files", spent)


def measure(directory: Path, size: tuple[int, int], count: int) -> dict[str, float]:
    """Ratios first, then photos a second, then milliseconds of one core for a photo."""
    photos = make_photos(directory / "photos", size, count)
    model = load_model("compact", "cpu")
    decoders, cores = default_workers("cpu"), torch.get_num_threads()
    apart = max(1, cores - decoders)
    alone, model_ms = alone_per_s(model, photos[: 2 * model.batch_size])
    ours = indexed(directory / "photos", directory / "library", cores)
    naive = naive_per_s(model, photos[: max(1, min(50, count // 8))], directory / "naive.sqlite")
    torch.set_num_threads(apart)
    # Another: a model takes the number of threads that there is when it is loaded.
    alone_apart, _ = alone_per_s(load_model("compact", "cpu"), photos[: 2 * model.batch_size])
    torch.set_num_threads(cores)
    ours_apart = indexed(directory / "photos", directory / "apart", apart)
    some = photos[:16]
    reading_ms = min(1000 * spent(lambda: read_all(some, model.image_size))[1] / len(some) for _ in range(3))
    decoding = decoders * 1000 / reading_ms
    return {
        "ours / model alone": ours["photos/s"] / alone,
        "ours / model alone, apart": ours_apart["photos/s"] / alone_apart,
        "ours / the slower of model and decoding, apart": ours_apart["photos/s"] / min(alone_apart, decoding),
        "ours / naive loop": ours["photos/s"] / naive,
        "cores of decoding for one of the model": reading_ms / model_ms,
        "reading, of reading and model": reading_ms / (reading_ms + model_ms),
        "naive loop, photos/s": naive,
        "model alone, photos/s": alone,
        "model alone apart, photos/s": alone_apart,
        "decoding alone, photos/s": decoding,
        "decoder processes": decoders,
        **{f"ours, {figure}": value for figure, value in ours.items()},
        **{f"ours apart, {figure}": value for figure, value in ours_apart.items()},
        "model, ms": model_ms,
        "reading with thumbnail, ms": reading_ms,
        **{f"{name}, ms": cost for name, cost in decoding_ms(photos[0].read_bytes(), model.image_size).items()},
    }


def read_all(photos: Sequence[Path], image_size: int) -> None:
    """What a decoder does of them, one after the other, but for the digest."""
    for path in photos:
        read_photo(path, image_size)


def indexed(photos: Path, library: Path, threads: int) -> dict[str, float]:
    """Of `photoseek index` into a new library: photos a second of its second half and of the whole command, seconds
    beyond the former, and the share of the run for which its model waited.
    """
    command = [sys.executable, "-m", "ui.cli", "index", str(photos), "--library", str(library)]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--device", "cpu", "--profile", "--json"],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.perf_counter() - started
    summary = json.loads(done.stdout)
    waited = {each["worker"]: each["share"] for each in summary["profile"]["stages"] if each["stage"] == "wait"}
    rate = _second_half_per_s(library) or summary["embedded"] / summary["seconds"]
    return {
        "photos/s": rate,
        "photos/s of the whole command": summary["embedded"] / seconds,
        "s to start": seconds - summary["embedded"] / rate,
        "share that the model waited": waited["model"],
    }


def _second_half_per_s(library: Path) -> float | None:
    """Photos a second; None of too few of them to tell."""
    with sqlite3.connect(library / "catalog.sqlite") as connection:
        rows = connection.execute("SELECT recorded_at FROM photo ORDER BY recorded_at").fetchall()
    moments = [datetime.datetime.fromisoformat(row[0]) for row in rows]
    half, end = moments[len(moments) // 2], moments[-1]
    seconds = (end - half).total_seconds()
    # Photos are recorded by the batch, in an instant, and the first ones were decoded while the model was loaded.
    return sum(moment > half for moment in moments) / seconds if seconds > 5 else None


def make_photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """JPEGs of that (width, height), each another part of one of the sample library's photographs."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as samples:
        pictures = [Image.open(path).convert("RGB") for path in write_samples(Path(samples))]
    random = np.random.default_rng(0)
    made = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(made):
        picture = pictures[number % len(pictures)]
        left, top = random.uniform(0, 0.4, 2) * picture.size
        part = picture.crop((int(left), int(top), int(left + picture.width * 0.6), int(top + picture.height * 0.6)))
        part.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return made


def alone_per_s(model: Model, photos: Sequence[Path]) -> tuple[float, float]:
    """Photos a second from pixels in memory to what a library keeps, the second time, and milliseconds of processor
    time for each.
    """
    pixels = torch.from_numpy(np.stack([squash(Image.open(path), model.image_size) for path in photos]))
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    batches = [pixels[start : start + model.batch_size] for start in range(0, len(pixels), model.batch_size)]

    def encode() -> None:
        for batch in batches:
            features = model.encode_images(batch)
            features.embeddings.half().numpy()
            quantised(features.tokens)

    encode()
    seconds, used = spent(encode)
    return len(photos) / seconds, 1000 * used / len(photos)


def naive_per_s(model: Model, photos: Sequence[Path], database: Path) -> float:
    """Photos a second, one after the other: open, decode all of it, encode, insert."""

    def index() -> None:
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE photo (path TEXT, digest TEXT, vectors BLOB)")
            for path in photos:
                data = path.read_bytes()
                pixels = torch.from_numpy(squash(Image.open(path).convert("RGB"), model.image_size))
                vectors = model.encode_images(pixels.permute(2, 0, 1)[None]).embeddings.half().numpy()
                row = (str(path), hashlib.blake2b(data, digest_size=16).hexdigest(), vectors.tobytes())
                connection.execute("INSERT INTO photo VALUES (?, ?, ?)", row)
                connection.commit()

    return len(photos) / spent(index)[0]


def decoding_ms(data: bytes, side: int) -> dict[str, float]:
    """Processor time, in milliseconds, of each way from a JPEG's bytes to RGB pixels, and as many of them as its
    thumbnail and the model's square take.
    """
    small = thumbnail_size(*pillow(data, None).size, LEAST_THUMBNAIL_SIDE)
    width, height = max(side, small[0]), max(side, small[1])
    ways: dict[str, Callable[[], object]] = {
        "Pillow": lambda: np.asarray(pillow(data, None)),
        "Pillow, draft": lambda: np.asarray(pillow(data, (width, height))),
    }
    if importlib.util.find_spec("simplejpeg") is not None:
        simplejpeg = importlib.import_module("simplejpeg")
        ways["simplejpeg"] = lambda: simplejpeg.decode_jpeg(data, min_height=height, min_width=width)
    return {name: 1000 * min(spent(way)[1] for _ in range(5)) for name, way in ways.items()}


def pillow(data: bytes, at_least: tuple[int, int] | None) -> Image.Image:
    """Decode a JPEG, at reduced scale where it may be."""
    image = Image.open(io.BytesIO(data))
    if at_least is not None:
        image.draft("RGB", at_least)
    image.load()
    return image


def rescan(directory: Path, files: int) -> dict[str, float]:
    """Seconds to index a folder again in which nothing has changed, beside ``find``, which prints sizes and times, and
    a loop of Python that asks for them and does nothing else.

    The files are no photos, and recorded as photos of ten pictures: none of them is opened in any case. "Run" is one in
    a process that has started, with what another left in folders.unchanged; "by the catalog" without, so that it reads
    what is recorded of each file. "Command" is `photoseek index`, from start to end; "on nothing", of an empty folder.
    """
    photos, model = directory / "photos", model_when_needed("compact", "cpu")
    with Library.create(directory / "library") as library:
        record_files(library, model, photos, files)
        empty = directory / "empty"
        empty.mkdir()
        command = [sys.executable, "-m", "ui.cli", "index", "--library"]

        def by_the_catalog() -> None:
            (library.directory / "folders.unchanged").unlink(missing_ok=True)
            index_folders(library, model, [photos])

        ways: dict[str, Callable[[], object]] = {
            "find": lambda: _quietly(["find", str(photos), "-printf", "%s %T@"]),
            "scandir and stat": lambda: ask_for_sizes(photos),
            "run by the catalog": by_the_catalog,
            "run": lambda: index_folders(library, model, [photos]),
            "command": lambda: _quietly([*command, str(library.directory), str(photos)]),
            "command on nothing": lambda: _quietly([*command, str(directory / "of nothing"), str(empty)]),
        }
        # One after the other, and again: what else the machine does falls on all of them.
        rounds = [{name: spent(way) for name, way in ways.items()} for _ in range(5)]
    wall, cores = ({name: min(each[name][kind] for each in rounds) for name in RESCANS} for kind in range(2))
    return {
        "files": files,
        **{f"{name} / find": wall[name] / wall["find"] for name in RESCANS[1:]},
        **{f"{name} / find, processor time": cores[name] / cores["find"] for name in RESCANS[1:]},
        **{f"{name}, s": each for name, each in wall.items()},
        **{f"{name}, s of processor time": each for name, each in cores.items()},
    }


def ask_for_sizes(folder: Path) -> None:
    """Size and time of every file below a folder, and nothing with them: less than this no scan in Python can take."""
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)


def _quietly(command: Sequence[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def record_files(library: Library, model: Model | PendingModel, folder: Path, count: int) -> None:
    """Make files, 500 to a folder, and record them as indexed."""
    vectors = np.full((32, 256), 1 / 16, np.float16)
    pictures = [NewContent(f"{number:032x}", PhotoFacts(40, 30, "JPEG"), None, vectors) for number in range(10)]
    with library.writer() as writer:
        writer.use_model(model.identity)
        folder.mkdir()
        folder_id = writer.add_folder(folder)
        made = []
        for number in range(count):
            path = folder / f"{number // 6000}" / f"{number // 500}" / f"IMG_{number:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            state, digest = path.stat(), pictures[number % len(pictures)].digest
            name = path.relative_to(folder).as_posix()
            made.append(IndexedFile(folder_id, name, state.st_size, state.st_mtime_ns, digest, None))
        for start in range(0, count, 1000):
            writer.commit(made[start : start + 1000], pictures if start == 0 else [])
        writer.refresh_vectors()


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of processor time: its children's included, and hardly changed by other programs."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before, started = sum(map(_used, kinds)), time.perf_counter()
    work()
    return time.perf_counter() - started, sum(map(_used, kinds)) - before


def _used(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
