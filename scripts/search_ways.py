"""Ways to keep and search a library's vectors, each built with FAISS, for scripts/bench_codes.py to compare."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from indexer.library._codes import first_places
from indexer.library._compressed import TRAINING_PICTURES, CompressedIndex
from indexer.library._recall import TOP

_IP = faiss.METRIC_INNER_PRODUCT
_FP16 = faiss.ScalarQuantizer.QT_fp16
_COMPARED = 128
_OF_CODES = (32, _COMPARED)
_OF_MEANS = (32, _COMPARED, 512)
_OF_VECTORS = (64, 256, 1024)
_PROBES = (4, 16, 64)
_PART = {"efSearch": "hnsw", "search_L": "nsg"}
"""Of an index, that has the parameter."""
_TRAINING_VECTORS = 16_384
_MERGED_ABOVE = 0.9

Vectors = NDArray[np.float32]
Photos = NDArray[np.int64]
Find = Callable[[Vectors], Photos]
"""Of a query (256,): numbers of photos, best first."""


class Sample:
    """Photos of a library, in the forms that ways are built from."""

    def __init__(self, embeddings: NDArray[np.float16], typical: Vectors) -> None:
        self.embeddings = embeddings
        """(n, 32, 256)."""
        self.typical = typical
        """(q, 256): typical queries, not those that are asked."""
        self.vectors: Vectors = embeddings.reshape(-1, EMBEDDING_SIZE).astype(np.float32)
        """(32 n, 256)."""
        self.centred: Vectors = self.vectors - self.vectors.mean(axis=0)
        """(32 n, 256), less their mean."""
        self.means: Vectors = self.vectors.reshape(embeddings.shape).mean(axis=1)
        """(n, 256)."""

    def __len__(self) -> int:
        """Photos."""
        return len(self.embeddings)

    def best(self, query: Vectors, photos: Photos) -> Photos:
        """The ten of these of largest similarity to (256,), best first."""
        # Torch turns fp16 into fp32 several times as fast as numpy.
        exact = torch.from_numpy(self.embeddings[photos]).float() @ torch.from_numpy(query)
        return photos[np.argsort(-exact.amax(dim=1).numpy(), kind="stable")[:TOP]]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One point of a way's curve."""

    name: str
    find: Find
    """By what the way keeps."""
    search: Find
    """The same, and exact comparison of what is found: the best ten."""


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """What a way makes of a sample."""

    index: Any
    """Of FAISS, or the library's."""
    settings: Sequence[Setting]


Build = Callable[[Sample], Built]


def scan(sample: Sample, index: Any, vectors: Vectors, depths: Sequence[int] = (_COMPARED,)) -> Built:
    """All of (m, 256), m / n of each photo, for so many photos."""
    owners = _fill(sample, index, vectors)
    # Many of the nearest vectors belong to one photo: of four times as many, most texts find as many photos.
    widths = {depth: depth if len(owners) == len(sample) else 4 * depth + 64 for depth in depths}
    return Built(index, [_setting(sample, index, owners, f"{depth} photos", widths[depth], depth) for depth in depths])


def sweep(sample: Sample, index: Any, vectors: Vectors, parameter: str, values: Sequence[int]) -> Built:
    """Some of (m, 256), m / n of each photo: as many as a parameter of the index allows.

    A graph's parameter is how many nearest vectors a walk along its links keeps, and they are what is found.
    """
    owners = _fill(sample, index, vectors)
    settings = []
    for value in values:
        width = 4 * _COMPARED + 64 if parameter == "nprobe" else value
        most = width if len(owners) == len(sample) else _COMPARED
        settings.append(_setting(sample, index, owners, f"{parameter} {value}", width, most, parameter, value))
    return Built(index, settings)


def _fill(sample: Sample, index: Any, vectors: Vectors) -> Photos:
    """Returns the photo of each vector."""
    if not index.is_trained:
        index.train(_training(vectors))
    index.add(vectors)
    return np.arange(len(vectors)) // (len(vectors) // len(sample))


def _training(vectors: Vectors) -> Vectors:
    return vectors[np.random.default_rng(0).permutation(len(vectors))[:_TRAINING_VECTORS]]


def _setting(
    sample: Sample,
    index: Any,
    owners: Photos,
    name: str,
    width: int,
    most: int,
    parameter: str | None = None,
    value: int = 0,
) -> Setting:
    def find(query: Vectors) -> Photos:
        if parameter is not None:
            # Beyond the number of nodes FAISS's graphs read what is not theirs.
            setattr(getattr(index, _PART.get(parameter, ""), index), parameter, min(value, index.ntotal))
        _, places = index.search(query[None], min(width, index.ntotal))
        photos, first = np.unique(owners[places[0][places[0] >= 0]], return_index=True)
        found: Photos = photos[np.argsort(first)][:most]
        return found

    return Setting(name, find, lambda query: sample.best(query, find(query)))


def subspace(sample: Sample, dimensions: int) -> Built:
    """Principal directions, turned at random, and 4 bits for each pair of coordinates."""
    turn = faiss.PCAMatrix(EMBEDDING_SIZE, dimensions, 0, True)
    index = faiss.IndexPreTransform(turn, faiss.IndexPQFastScan(dimensions, dimensions // 2, 4, _IP))
    index.train(_training(sample.centred))
    turn.have_bias = False  # A query is not to be centred.
    return scan(sample, index, sample.centred, _OF_CODES)


def optimised(sample: Sample) -> Built:
    """128 dimensions, turned so that the product quantiser's error is least."""
    turn, quantiser = faiss.OPQMatrix(EMBEDDING_SIZE, 64, 128), faiss.ProductQuantizer(128, 64, 4)
    turn.pq, turn.niter, turn.niter_pq_0 = quantiser, 5, 10
    index = faiss.IndexPreTransform(turn, faiss.IndexPQFastScan(128, 64, 4, _IP))
    return scan(sample, index, sample.centred, _OF_CODES)


def residual(sample: Sample) -> Built:
    """The sum of 64 vectors, each one of 16, with one choice kept open: quick to train."""
    index = faiss.IndexResidualQuantizerFastScan(EMBEDDING_SIZE, 64, 4, _IP, faiss.AdditiveQuantizer.ST_LUT_nonorm)
    quantiser = faiss.downcast_Quantizer(index.aq)
    quantiser.max_beam_size, quantiser.train_type, quantiser.cp.niter = 1, faiss.ResidualQuantizer.Train_default, 5
    return scan(sample, index, sample.centred, _OF_CODES)


def inverted(sample: Sample) -> Built:
    """Cells by k-means, of which the nearest are scanned."""
    cells = math.isqrt(len(sample.vectors))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(EMBEDDING_SIZE), EMBEDDING_SIZE, cells, _IP)
    return sweep(sample, index, sample.vectors, "nprobe", _PROBES)


def merged(sample: Sample) -> Built:
    """The mean direction of a photo's vectors that are near the first of them."""
    exact = sample.vectors.reshape(sample.embeddings.shape)
    cosines = exact @ exact.transpose(0, 2, 1)
    leads = np.zeros(exact.shape[:2], bool)
    sums = np.zeros_like(exact)
    every = np.arange(len(sample))
    for token in range(QUERY_TOKENS):
        near = leads & (cosines[:, token] > _MERGED_ABOVE)
        leads[:, token] = ~near.any(axis=1)
        sums[every, np.where(leads[:, token], token, near.argmax(axis=1))] += exact[:, token]
    left = sums[leads]
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    index = _scalar(_FP16)
    index.add(left)
    owners = np.nonzero(leads)[0]
    return Built(index, [_setting(sample, index, owners, f"{_COMPARED} photos", 4 * _COMPARED + 64, _COMPARED)])


@dataclasses.dataclass(frozen=True, slots=True)
class _Exact:
    """All vectors, in memory."""

    sample: Sample

    def vectors(self, content_ids: Photos, tokens: Photos) -> NDArray[np.float16]:
        """As the disk would give them."""
        return self.sample.embeddings[content_ids, tokens]

    def embeddings(self, content_ids: Photos, checksums: Photos) -> tuple[Photos, NDArray[np.float16]]:  # noqa: ARG002
        """All of them are there."""
        return content_ids, self.sample.embeddings[content_ids]


def library(sample: Sample) -> Built:
    """As a large library does it."""
    index = CompressedIndex.trained(sample.embeddings[:TRAINING_PICTURES], len(sample), sample.typical)
    every = np.arange(len(sample))
    index.add(every, every, sample.embeddings)
    index.choose_widths()
    exact = _Exact(sample)

    def found(query: Vectors) -> Photos:
        near = index.near(query, TOP).content_ids
        return near[first_places(near)]

    def search(query: Vectors) -> Photos:
        return np.array([each.content_id for each in index.nearest(query, TOP, None, exact)])

    return Built(index, [Setting("as chosen", found, search)])


def _scalar(kind: int) -> Any:
    return faiss.IndexScalarQuantizer(EMBEDDING_SIZE, kind, _IP)


def _hnsw() -> Any:
    return faiss.IndexHNSWSQ(EMBEDDING_SIZE, _FP16, 16, _IP)


def _nsg() -> Any:
    return faiss.IndexNSGSQ(EMBEDDING_SIZE, _FP16, 32, _IP)


def _product() -> Any:
    return faiss.IndexPQFastScan(EMBEDDING_SIZE, 64, 4, _IP)


def _rabitq() -> Any:
    return faiss.IndexRaBitQFastScan(EMBEDDING_SIZE, _IP)


WAYS: Mapping[str, Build] = {
    "exact scan, fp16": lambda it: scan(it, _scalar(_FP16), it.vectors),
    "merged above cosine 0.9, fp16": merged,
    "scalar, 8 bits": lambda it: scan(it, _scalar(faiss.ScalarQuantizer.QT_8bit), it.vectors),
    "scalar, 4 bits": lambda it: scan(it, _scalar(faiss.ScalarQuantizer.QT_4bit), it.vectors),
    "product, 64 × 4 bits": lambda it: scan(it, _product(), it.vectors, _OF_CODES),
    "PCA to 128, product, 64 × 4 bits": lambda it: subspace(it, 128),
    "turned, product, 128 × 4 bits": lambda it: subspace(it, 256),
    "OPQ to 128, product, 64 × 4 bits": optimised,
    "residual, 64 × 4 bits": residual,
    "RaBitQ, 1 bit": lambda it: scan(it, _rabitq(), it.centred, _OF_CODES),
    "IVF, flat": inverted,
    "HNSW, 32 vectors": lambda it: sweep(it, _hnsw(), it.vectors, "efSearch", _OF_VECTORS),
    "NSG, 32 vectors": lambda it: sweep(it, _nsg(), it.vectors, "search_L", _OF_VECTORS),
    "mean, fp16": lambda it: scan(it, _scalar(_FP16), it.means, _OF_MEANS),
    "HNSW, mean": lambda it: sweep(it, _hnsw(), it.means, "efSearch", _OF_MEANS),
    "NSG, mean": lambda it: sweep(it, _nsg(), it.means, "search_L", _OF_MEANS),
    "ours": library,
}
