"""What each way to keep and search a library's vectors takes, and what it finds, side by side.

    python scripts/bench_codes.py                                            a table, of 5,000 photos
    python scripts/bench_codes.py --photos 20000 --from FOLDER --real 2000   mixtures of the photos of a folder
    python scripts/bench_codes.py --plots docs                               and search-ways.png there
    python scripts/bench_codes.py --json                                     one JSON list
    python scripts/bench_codes.py --only "mean, fp16" ours                   some of the ways

Vectors and texts are those of scripts/bench_search.py. A way finds photos, best first by what it keeps of them; the
best 128, or as many as the setting tells, are then compared exactly, from fp16 vectors in memory. Recall is of the ten
photos of largest similarity, among the first ten found and after that comparison. Milliseconds are the median over the
texts, with one thread; two threads build. Bytes are those that are searched: the index as FAISS writes it, less what it
writes of an empty one, without the vectors compared in the end. Codes that are trained, but for plain product
quantisers, are of vectors less their mean, which leaves the order of the products of a query as it is.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from indexer.embedding import QUERY_TOKENS
from indexer.library._compressed import RAM_BYTES, CompressedIndex
from indexer.library._recall import TOP
from indexer.model import load_model
from indexer.typical_queries import TYPICAL_QUERIES
from scripts import plots
from scripts.bench_search import TEXTS, encoded, mixed, pictures
from scripts.search_ways import WAYS, Find, Photos, Sample, Vectors


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a way at one setting."""

    way: str
    setting: str
    build_s: float
    bytes_per_photo: int
    found_ms: float
    found_recall: float
    compared_ms: float
    """Finding included."""
    compared_recall: float


def measure(sample: Sample, queries: Vectors, way: str) -> list[Result]:
    """Build, and search for each of (q, 256)."""
    faiss.omp_set_num_threads(2)
    started = time.perf_counter()
    built = WAYS[way](sample)
    build_s = time.perf_counter() - started
    faiss.omp_set_num_threads(1)
    products = (queries @ sample.vectors.T).reshape(len(queries), len(sample), QUERY_TOKENS)
    best = np.argsort(-products.max(axis=2), axis=1, kind="stable")[:, :TOP]
    figures = [
        (each.name, *_timed(each.find, queries, best), *_timed(each.search, queries, best)) for each in built.settings
    ]
    size = _bytes(built.index) / len(sample)
    return [Result(way, name, round(build_s, 2), round(size), *rest) for name, *rest in figures]


def _timed(find: Find, queries: Vectors, best: Photos) -> tuple[float, float]:
    """Median milliseconds, and recall of ``best`` (q, 10) among the first ten."""
    times, hits = [], 0
    for query, expected in zip(queries, best, strict=True):
        started = time.perf_counter()
        found = find(query)
        times.append(time.perf_counter() - started)
        hits += int(np.isin(expected, found[:TOP]).sum())
    return round(statistics.median(times) * 1000, 3), round(hits / best.size, 4)


def _bytes(index: Any) -> int:
    """Leaves the index empty."""
    if isinstance(index, CompressedIndex):
        return RAM_BYTES * len(index)
    full = len(faiss.serialize_index(index))
    index.reset()
    return full - len(faiss.serialize_index(index))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=5000, metavar="N", help="more than 100")
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="photos to mix")
    parser.add_argument("--real", type=int, default=400, metavar="N", help="real photos, or crops, to mix")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write search-ways.png there")
    parser.add_argument("--only", nargs="+", choices=WAYS, metavar="WAY", help="these ways, as the table names them")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    model = load_model("compact", "cpu")
    with tempfile.TemporaryDirectory() as samples:
        real = encoded(model, list(pictures(options.folder, options.real, Path(samples))))
    torch.set_num_threads(1)
    queries = model.encode_texts(TEXTS).float().cpu().numpy()
    typical = model.encode_texts(TYPICAL_QUERIES).float().cpu().numpy()
    sample = Sample(np.concatenate(list(mixed(real, options.photos, seed=0))), typical)
    results = [result for way in options.only or WAYS for result in measure(sample, queries, way)]
    _report(results, as_json=options.json)
    if options.plots is not None:
        _plot(options.plots / "search-ways.png", results)
    return 0


def _report(results: Sequence[Result], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in results]))
        return
    print("| way | setting | build | bytes a photo | found | recall@10 | compared exactly | recall@10 |")
    print("|---|---|---|---|---|---|---|---|")
    for each in results:
        print(
            f"| {each.way} | {each.setting} | {each.build_s:.1f} s | {each.bytes_per_photo:,} | {each.found_ms:.2f} ms "
            f"| {each.found_recall:.3f} | {each.compared_ms:.2f} ms | {each.compared_recall:.3f} |"
        )


def _plot(path: Path, results: Sequence[Result]) -> None:
    points: dict[str, list[tuple[float, float, float]]] = {}
    for each in results:
        point = (each.compared_ms, each.bytes_per_photo, each.compared_recall)
        points.setdefault(each.way, []).append(point)
    plots.scatter(path, ("milliseconds a search", "bytes a photo"), "recall@10", points)


if __name__ == "__main__":
    raise SystemExit(main())
