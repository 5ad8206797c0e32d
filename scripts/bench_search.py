"""How fast, how well and how large a library of many photos searches, beside the exact scan of it.

    python scripts/bench_search.py --photos 20000                              a table
    python scripts/bench_search.py --photos 100000 --json                      one JSON object
    python scripts/bench_search.py --photos 20000 --from FOLDER                mixtures of the photos of a folder
    python scripts/bench_search.py --photos 1000 10000 100000 --plots docs     one after the other, and plots of all

Makes a library of so many pictures with vectors that have the geometry of real ones: each is a mixture, with a little
noise, of the vectors of three real photos, query by query. The real ones are those below a folder, or crops of the
sample library's photographs. Searches are texts, by the same model, each asked once, after others. ``recall_at_10`` is
against a scan of every vector.
The exact index is timed with at most 20,000 of the pictures, and its time multiplied, as it grows by what it scans.
"""

import argparse
import itertools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.orm import Session

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.facts import PhotoFacts
from indexer.library import IndexedFile, Library, Neighbour, NewContent
from indexer.library import _catalog as catalog
from indexer.library._vectors import VectorIndex
from indexer.model import Model, load_model
from indexer.photos import SUPPORTED, open_rgb, squash
from indexer.typical_queries import TYPICAL_QUERIES
from scripts import plots
from scripts.sample_library import write_samples

_CHUNK = 1000
_EXACT_AT_MOST = 20_000
_CLIENTS = (1, 8, 64)
_SHARES = (0.5, 0.05, 0.005, 0.0005)
_SUBJECTS = (
    "a dog",
    "two children",
    "a man",
    "a red car",
    "flowers",
    "a cup",
    "the moon",
    "an aeroplane",
    "a cat",
    "shoes",
)
_SCENES = ("on the grass", "in the snow", "near a lake", "in a street", "on a table")
TEXTS = tuple(f"{subject} {scene}" for subject in _SUBJECTS for scene in _SCENES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[20_000], metavar="N")
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="photos to mix")
    parser.add_argument("--real", type=int, default=400, metavar="N", help="real photos, or crops, to mix")
    parser.add_argument("--exact-up-to", type=int, default=0, metavar="N", help="as of Library.open; 0 compresses all")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the library is made; else a temporary folder")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write search-time.png and search-rate.png there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    model = load_model("compact", "cpu")
    with tempfile.TemporaryDirectory() as samples:
        real = encoded(model, list(pictures(options.folder, options.real, Path(samples))))
    results = []
    for count in options.photos:
        work = Path(tempfile.mkdtemp(prefix="photoseek-bench-", dir=options.work))
        try:
            result, filtered = _measure(work, count, model, real, options.exact_up_to)
        finally:
            shutil.rmtree(work)
        _report(result, filtered, as_json=options.json)
        results.append(result)
    if options.plots is not None:
        _plot(options.plots, results)
    return 0


def _report(result: dict[str, Any], filtered: dict[float, tuple[float, float]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for name, value in result.items():
        print(f"{name:24}{value}")
    for share, (milliseconds, recall) in filtered.items():
        print(f"of {share:7.2%}: {milliseconds:8.2f} ms, recall {recall:.4f}", flush=True)


def _plot(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    times = {
        name: [(each["photos"], each[figure]) for each in results]
        for name, figure in (("exact scan", "exact_p50_ms"), ("compressed, rescored exactly", "ours_p50_ms"))
    }
    rates = {
        f"{clients} client{'s' * (clients > 1)}": [(each["photos"], each["qps"][str(clients)]) for each in results]
        for clients in _CLIENTS
    }
    plots.lines(folder / "search-time.png", "pictures", "median time of a search, ms", times)
    plots.lines(folder / "search-rate.png", "pictures", "searches a second", rates)


def _measure(
    work: Path, count: int, model: Model, real: NDArray[np.float32], exact_up_to: int
) -> tuple[dict[str, Any], dict[float, tuple[float, float]]]:
    queries, others = (model.encode_texts(texts).float().cpu().numpy() for texts in (TEXTS, TYPICAL_QUERIES))
    directory = work / "library"
    similarities, exact_p50 = _fill(directory, model, mixed(real, count, seed=0), count, queries)
    with Library.open(directory, exact_up_to) as library, library.writer() as writer:
        writer.refresh_vectors()
    started = time.perf_counter()
    with Library.open(directory, exact_up_to) as library:
        library.nearest(queries[0], 10)
        open_s = time.perf_counter() - started
        _timed(library, others)  # a service that runs has been asked before, and has its codes in memory
        found, times = _timed(library, queries)
        status = library.status()
        filtered = {share: _filtered(library, queries, similarities, share) for share in _SHARES}
        qps = {str(clients): round(_throughput(library, queries, clients), 1) for clients in _CLIENTS}
        add_s = _add_more(library, model, real, count, queries)
    ours_p50 = statistics.median(times) * 1000
    result = {
        "photos": count,
        "exact_p50_ms": round(exact_p50, 2),
        "ours_p50_ms": round(ours_p50, 2),
        "speedup": round(exact_p50 / ours_p50, 2),
        "recall_at_10": round(_recall(found, similarities), 4),
        "ram_bytes_per_photo": status.index_ram_bytes,
        "disk_bytes_per_photo": round((status.bytes["catalog"] + status.bytes["vectors"]) / count),
        "open_s": round(open_s, 3),
        "add_1000_s": round(add_s, 3),
        "qps": qps,
    }
    return result, filtered


def pictures(folder: Path | None, count: int, work: Path) -> Iterator[Image.Image]:
    """At most ``count`` photos below a folder, or as many crops of the sample library's photographs."""
    rng = np.random.default_rng(0)
    if folder is not None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUPPORTED and path.is_file())
        for place in rng.permutation(len(paths))[:count]:
            yield open_rgb(paths[place])
        return
    whole = [open_rgb(path) for path in write_samples(work / "samples")]
    for picture in itertools.islice(itertools.cycle(whole), count):
        share = rng.uniform(0.3, 1, 2)
        width, height = (max(32, int(side * part)) for side, part in zip(picture.size, share, strict=True))
        left, top = rng.integers(0, picture.width - width + 1), rng.integers(0, picture.height - height + 1)
        yield picture.crop((int(left), int(top), int(left) + width, int(top) + height))


def encoded(model: Model, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    """(n, 32, 256) of photos."""
    batches = []
    for start in range(0, len(images), model.batch_size):
        pixels = np.stack([squash(image, model.image_size) for image in images[start : start + model.batch_size]])
        batches.append(model.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2)).embeddings.float().cpu())
    embeddings: NDArray[np.float32] = torch.cat(batches).numpy()
    return embeddings


def mixed(real: NDArray[np.float32], count: int, seed: int) -> Iterator[NDArray[np.float16]]:
    """``count`` mixtures of three of the (n, 32, 256), mostly of one, in pieces of at most a thousand."""
    rng = np.random.default_rng(seed)
    least, range_ = np.array([0.6, 0.1, 0.0]), np.array([0.4, 0.3, 0.2])
    for start in range(0, count, _CHUNK):
        some = min(_CHUNK, count - start)
        weights = (least + range_ * rng.random((some, 3))).astype(np.float32)
        parts = rng.integers(0, len(real), (some, 3))
        mixture: NDArray[np.float32] = (weights[..., None, None] * real[parts]).sum(axis=1)
        noise = rng.standard_normal((some, QUERY_TOKENS, EMBEDDING_SIZE), np.float32)
        yield _unit(_unit(mixture) + np.float32(0.1) * noise / np.float32(EMBEDDING_SIZE**0.5)).astype(np.float16)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def _fill(
    directory: Path, model: Model, mixtures: Iterator[NDArray[np.float16]], count: int, queries: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Make the library. Returns the similarities of every query and picture, and p50 of the exact scan, in ms."""
    exact, similarities = VectorIndex(), []
    with Library.create(directory) as library:
        with library.writer() as writer:
            writer.use_model(model.identity)
            writer.keep_queries(model.encode_texts(TYPICAL_QUERIES).float().cpu().numpy())
        done = 0
        for embeddings in mixtures:
            _commit(library, model, done, embeddings)
            ids = np.arange(done + 1, done + 1 + len(embeddings))
            if len(exact) < _EXACT_AT_MOST:
                exact.add(ids, ids, embeddings)
            products = queries @ embeddings.astype(np.float32).reshape(-1, EMBEDDING_SIZE).T
            similarities.append(products.reshape(len(queries), -1, QUERY_TOKENS).max(axis=2))
            done += len(embeddings)
    times = []
    for query in queries:
        started = time.perf_counter()
        exact.nearest(query, 10, None)
        times.append(time.perf_counter() - started)
    return np.concatenate(similarities, axis=1), statistics.median(times) * 1000 * count / len(exact)


def _commit(library: Library, model: Model, first: int, embeddings: NDArray[np.float16]) -> None:
    """Content ids are given in sequence, from 1."""
    facts = PhotoFacts(width=640, height=480, format="JPEG")
    numbers = range(first, first + len(embeddings))
    with library.writer() as writer:
        writer.use_model(model.identity)
        folder = writer.add_folder(Path("/photos"))
        writer.commit(
            [IndexedFile(folder, f"{number:08}.jpg", 1, 1, f"{number:08}") for number in numbers],
            [NewContent(f"{i:08}", facts, embeddings=each) for i, each in zip(numbers, embeddings, strict=True)],
        )


def _timed(library: Library, queries: NDArray[np.float32]) -> tuple[list[list[Neighbour]], list[float]]:
    found, times = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(library.nearest(query, 10))
        times.append(time.perf_counter() - started)
    return found, times


def _recall(found: Sequence[Sequence[Neighbour]], similarities: NDArray[np.float32]) -> float:
    """Of the ten best; ``similarities`` (q, n) are of content ids 1 to n."""
    top = min(10, int(np.isfinite(similarities[0]).sum()))
    best = np.argsort(-similarities, axis=1, kind="stable")[:, :top] + 1
    hits = sum(len({each.content_id for each in a} & set(b.tolist())) for a, b in zip(found, best, strict=True))
    return hits / best.size


def _filtered(
    library: Library, queries: NDArray[np.float32], similarities: NDArray[np.float32], share: float
) -> tuple[float, float]:
    """p50 in ms, and recall, among a random share of the pictures; without the catalog's part in finding these."""
    pictures_ = similarities.shape[1]
    among = np.sort(np.random.default_rng(0).permutation(pictures_)[: max(1, round(share * pictures_))])
    found, times = [], []
    with Session(library._engine) as session:
        model = catalog.active_model(session)
        assert model is not None
        with library._vectors.reading(session, model) as index:
            for query in queries:
                started = time.perf_counter()
                found.append(index.nearest(query, 10, among + 1, library._vectors.reader(session, model.id)))
                times.append(time.perf_counter() - started)
    only = np.full_like(similarities, -np.inf)
    only[:, among] = similarities[:, among]
    return statistics.median(times) * 1000, _recall(found, only)


def _throughput(library: Library, queries: NDArray[np.float32], clients: int) -> float:
    """Searches a second of so many at once, each for ten pictures."""
    numbers, searches = itertools.count(), max(4 * clients, 100)

    def work() -> None:
        while (number := next(numbers)) < searches:
            library.nearest(queries[number % len(queries)], 10)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return searches / (time.perf_counter() - started)


def _add_more(
    library: Library, model: Model, real: NDArray[np.float32], count: int, queries: NDArray[np.float32]
) -> float:
    """Seconds from a thousand more pictures' vectors to a search that sees them, and to the file that holds them."""
    (embeddings,) = mixed(real, 1000, seed=1)
    started = time.perf_counter()
    _commit(library, model, count, embeddings)
    library.nearest(queries[0], 10)
    with library.writer() as writer:
        writer.refresh_vectors()
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
