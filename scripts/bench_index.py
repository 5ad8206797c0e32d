"""How fast photos are indexed: the naive loop, the model alone, and ours; and what each way to decode a JPEG costs.

    python scripts/bench_index.py --photos 200          # a table of ratios; --json prints the figures
    python scripts/bench_index.py --rescan 100000       # a folder in which nothing has changed, beside `find`
    python scripts/bench_index.py --smallest            # a handful of each, to see that it runs

The JPEGs, of 12 and of 0.2 megapixels, are made of the sample library's photographs. What is compared runs in one
process, one after the other, on the same cores. simplejpeg is compared where it is installed; for pillow-simd, install
it in place of Pillow and run again.
"""

import argparse
import hashlib
import importlib
import importlib.util
import io
import json
import resource
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from indexer.facts import PhotoFacts
from indexer.library import IndexedFile, Library, NewContent
from indexer.model import Model, load_model, quantised
from indexer.photos import squash
from indexer.pipeline import default_workers, index_folders
from scripts.sample_library import write_samples

SIZES = {"12 MP": (4000, 3000), "0.2 MP": (512, 384)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200, help="of each size")
    parser.add_argument("--rescan", type=int, metavar="FILES", help="measure only a folder without changes")
    parser.add_argument("--smallest", action="store_true", help="a handful of photos and files")
    parser.add_argument("--workers", type=int, help="decoder processes; by default as many as photoseek index takes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    count = 4 if options.smallest else options.photos
    model = load_model("compact", "cpu")
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory:
        if options.rescan is None:
            for name, size in SIZES.items():
                measured[name] = measure(Path(directory) / name, model, size, count, options.workers)
        if options.rescan is not None or options.smallest:
            measured["rescan"] = rescan(Path(directory) / "rescan", model, options.rescan or 20)
    if options.json:
        print(json.dumps(measured))
    for name, figures in {} if options.json else measured.items():
        print(name, *(f"  {figure:34} {value:12,.3f}" for figure, value in figures.items()), sep="\n")


def measure(directory: Path, model: Model, size: tuple[int, int], count: int, workers: int | None) -> dict[str, float]:
    """Ratios first, then photos a second, then milliseconds of one core to decode a photo."""
    photos = make_photos(directory / "photos", size, count)
    workers = workers or default_workers(model.device)
    alone = model_per_s(model, photos[: 2 * model.batch_size])
    with Library.create(directory / "library") as library:
        summary = index_folders(library, model, [directory / "photos"], workers=workers)
    ours = summary.embedded / summary.seconds
    naive = naive_per_s(model, photos[: max(1, count // 8)], directory / "naive.sqlite")
    return {
        "ours / model alone": ours / alone,
        "ours / naive loop": ours / naive,
        "model waited": summary.profile.model_waited,
        "ours, photos/s": ours,
        "model alone, photos/s": alone,
        "naive loop, photos/s": naive,
        "decoder processes": workers,
        **{f"{name}, ms": cost for name, cost in decoding_ms(photos[0].read_bytes(), model.image_size).items()},
    }


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


def model_per_s(model: Model, photos: Sequence[Path]) -> float:
    """Photos a second from pixels in memory to what a library keeps, the second time."""
    pixels = torch.from_numpy(np.stack([squash(Image.open(path), model.image_size) for path in photos]))
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    batches = [pixels[start : start + model.batch_size] for start in range(0, len(pixels), model.batch_size)]

    def encode() -> None:
        for batch in batches:
            features = model.encode_images(batch)
            features.embeddings.half().numpy()
            quantised(features.tokens)

    encode()
    return len(photos) / seconds(encode)


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

    return len(photos) / seconds(index)


def decoding_ms(data: bytes, side: int) -> dict[str, float]:
    """Processor time, in milliseconds, of each way from a JPEG's bytes to RGB pixels of at least 512 a side."""
    ways: dict[str, Callable[[], object]] = {
        "Pillow": lambda: np.asarray(pillow(data, None)),
        "Pillow, draft": lambda: np.asarray(pillow(data, max(side, 512))),
    }
    if importlib.util.find_spec("simplejpeg") is not None:
        simplejpeg = importlib.import_module("simplejpeg")
        ways["simplejpeg"] = lambda: simplejpeg.decode_jpeg(data, min_height=512, min_width=512)
    return {name: 1000 * min(cpu_seconds(way) for _ in range(5)) for name, way in ways.items()}


def pillow(data: bytes, at_least: int | None) -> Image.Image:
    """Decode a JPEG, at reduced scale where it may be."""
    image = Image.open(io.BytesIO(data))
    if at_least is not None:
        image.draft("RGB", (at_least, at_least))
    image.load()
    return image


def rescan(directory: Path, model: Model, files: int) -> dict[str, float]:
    """Seconds to index a folder again in which nothing has changed, and that ``find`` takes to print sizes and times.

    The files are no photos, and recorded as photos of ten pictures: none of them is opened in either case.
    """
    with Library.create(directory / "library") as library:
        record_files(library, model, directory / "photos", files)
        ways: dict[str, Callable[[], object]] = {
            "find": lambda: subprocess.run(
                ["find", directory / "photos", "-printf", "%s %T@"], stdout=subprocess.DEVNULL, check=True
            ),
            "ours": lambda: index_folders(library, model, [directory / "photos"]),
        }
        wall = {name: min(seconds(way) for _ in range(3)) for name, way in ways.items()}
        cores = {name: min(cpu_seconds(way) for _ in range(3)) for name, way in ways.items()}
    return {
        "ours / find": wall["ours"] / wall["find"],
        "ours / find, processor time": cores["ours"] / cores["find"],
        **{f"{name}, s": each for name, each in wall.items()},
        **{f"{name}, s of processor time": each for name, each in cores.items()},
    }


def record_files(library: Library, model: Model, folder: Path, count: int) -> None:
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


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time, that of child processes included; other programs on the same cores hardly change it."""
    before = _used()
    work()
    return _used() - before


def _used() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
