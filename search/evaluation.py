"""The published retrieval protocol: how often the right photo, or the right caption, comes first.

Every caption asks for its photo among all photos, and every photo for one of its captions among all captions: by ITC
similarity alone, and after the ITM head reranked the k most similar (Li et al., 2023, https://arxiv.org/abs/2301.12597,
and the retrieval evaluation of salesforce/LAVIS). The photos are indexed into a throw-away library first, by the code
that indexes any folder, so that what is measured is what a search uses.
"""

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.errors import AnnotationsInvalid, QueryInvalid
from indexer.library import Library
from indexer.model import EMBEDDING_SIZE, Model, ModelIdentity, restored
from indexer.pipeline import index_folders
from search._annotations import AnnotatedPhoto, read_annotations
from search._features import MatchFeatures
from search._metrics import Recall, area_under_roc, calibration_error, recall
from search._ranking_task import RankingTask
from search.decoding import Decoding

_TEXT_BATCH = 256
_PHOTO_BLOCK = 64
_NO_LIMIT = 2**62
_PAIR_WINDOW = 1024
"""Pairs whose match features are in memory at once; within them, texts of a like length make a batch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Direction:
    """How well the queries of one direction were answered."""

    queries: int
    itc: Recall
    """By similarity alone."""
    itm: Recall | None
    """After reranking; None when nothing was reranked."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        measured = {"queries": self.queries, "itc": self.itc.as_dict()}
        return measured if self.itm is None else measured | {"itm": self.itm.as_dict()}


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """How far the match probability tells captions' own photos from as many random other ones."""

    auroc: float
    """Area under the receiver operating characteristic, 0.5 (chance) to 1."""
    ece: float
    """Expected calibration error, 0 (best) to 1."""
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"auroc": round(self.auroc, 4), "ece": round(self.ece, 4), "pairs": self.pairs}


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, of which model."""

    model: ModelIdentity
    photos: int
    captions: int
    rerank: int
    sample: int | None
    seed: int
    seconds: float
    text_to_image: Direction | None
    """None without captions, as the next."""
    image_to_text: Direction | None
    names: Direction | None
    """"a photo of a LABEL", right with any photo of that label; None without labels."""
    itm_calibration: Calibration | None
    """None without captions, with a single photo, or when nothing was reranked."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON: recalls in percent, intervals as ``[low, high]``; what was not measured is absent."""
        document: dict[str, Any] = {
            "model": dataclasses.asdict(self.model),
            "photos": self.photos,
            "captions": self.captions,
            "rerank": self.rerank,
            "sample": self.sample,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
        }
        for name in ("text_to_image", "image_to_text", "names"):
            direction: Direction | None = getattr(self, name)
            if direction is not None:
                document[name] = direction.as_dict()
        if self.itm_calibration is not None:
            document["itm_calibration"] = self.itm_calibration.as_dict()
        return document


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far an evaluation has come: photos, texts or pairs of one stage."""

    stage: Literal["indexing", "encoding", "matching"]
    done: int
    total: int


def _ignore(_: EvaluationProgress) -> None:
    pass


def evaluate(
    annotations: Path,
    model: Model,
    *,
    rerank: int = 128,
    sample: int | None = None,
    seed: int = 0,
    on_progress: Callable[[EvaluationProgress], None] = _ignore,
) -> Evaluation:
    """Measure ``model`` on the photos and captions that ``annotations`` lists (see ``read_annotations``).

    ``rerank`` candidates of each query are reranked by ``match_weight * ITM logit + ITC similarity``; with 0, none.
    ``sample`` takes that many random queries of each direction; the galleries stay whole. ``seed`` seeds the sample,
    the random pairs and the bootstrap.

    Photos are decoded in other processes. Raises AnnotationsInvalid (also when a photo cannot be read: over fewer
    photos recall would be higher), and QueryInvalid on a negative ``rerank`` or a ``sample`` of none.
    """
    if rerank < 0 or (sample is not None and sample < 1):
        raise QueryInvalid("An evaluation reranks 0 or more candidates and samples 1 or more queries.")
    started = time.monotonic()
    photos = read_annotations(annotations)
    texts = _Texts.of(photos)
    random = np.random.default_rng(seed)
    with (
        tempfile.TemporaryDirectory(prefix="photoseek-evaluate-") as directory,
        Library.create(Path(directory) / "library") as library,
        contextlib.closing(Decoding(processes=1)) as decoding,
    ):
        library.limit_match_features(_NO_LIMIT)  # each is asked for again and again, in an order that favours none
        content_ids = _index(library, model, photos, Path(directory) / "photos", on_progress)
        similarities = _similarities(library, model, content_ids, texts.all, on_progress)
        tasks = {name: task.sample(sample, random) for name, task in _tasks(texts, similarities).items()}
        candidates = {name: task.candidates(rerank) for name, task in tasks.items()}
        pairs = {name: task.pairs(candidates[name]) for name, task in tasks.items()}
        if rerank and "text_to_image" in tasks and len(photos) > 1:
            pairs["calibration"] = _random_pairs(tasks["text_to_image"], len(photos), random)
        features = MatchFeatures(library, model, decoding.pixels)
        logits = _match(library, model, features, content_ids, texts.all, pairs, on_progress)
    directions = {
        name: Direction(
            queries=len(task.query_key),
            itc=recall(task.ranks(), seed),
            itm=recall(task.reranked(candidates[name], logits[name][..., 1], model.match_weight), seed)
            if rerank
            else None,
        )
        for name, task in tasks.items()
    }
    return Evaluation(
        model=model.identity,
        photos=len(photos),
        captions=len(texts.owner),
        rerank=rerank,
        sample=sample,
        seed=seed,
        seconds=time.monotonic() - started,
        text_to_image=directions.get("text_to_image"),
        image_to_text=directions.get("image_to_text"),
        names=directions.get("names"),
        itm_calibration=_calibration(logits["calibration"]) if "calibration" in logits else None,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Texts:
    """Every caption of every photo, then a question for every label."""

    all: tuple[str, ...]
    owner: NDArray[np.int64]
    """(captions,): index of the photo that each caption is of."""
    label: NDArray[np.int64]
    """(photos,): index of each photo's label; -1 without one."""

    @classmethod
    def of(cls, photos: Sequence[AnnotatedPhoto]) -> "_Texts":
        labels = sorted({photo.label for photo in photos if photo.label is not None})
        number = {label: index for index, label in enumerate(labels)}
        captions = [caption for photo in photos for caption in photo.captions]
        return cls(
            all=(*captions, *(f"a photo of a {label}" for label in labels)),
            owner=np.repeat(np.arange(len(photos)), [len(photo.captions) for photo in photos]),
            label=np.array([-1 if photo.label is None else number[photo.label] for photo in photos]),
        )


def _index(
    library: Library,
    model: Model,
    photos: Sequence[AnnotatedPhoto],
    folder: Path,
    on_progress: Callable[[EvaluationProgress], None],
) -> list[int]:
    """Index the photos; returns the content of each."""
    folder.mkdir()
    names = [f"{number}{photo.path.suffix}" for number, photo in enumerate(photos)]
    for name, photo in zip(names, photos, strict=True):
        _borrow(photo.path, folder / name)
    summary = index_folders(
        library,
        model,
        [folder],
        on_progress=lambda now: on_progress(EvaluationProgress("indexing", now.done, len(photos))),
    )
    if summary.cancelled:
        raise KeyboardInterrupt
    with library.writer() as writer:
        files = {name: file for folder_id in writer.folders() for name, file in writer.known_files(folder_id).items()}
    reasons = {failure.path.name: failure.reason for failure in library.failures()}
    content_ids = [files[name].content_id if name in files else None for name in names]
    unread = [
        f"{photo.path} ({reasons.get(name, 'its name is not that of a photo')})"
        for photo, name, content_id in zip(photos, names, content_ids, strict=True)
        if content_id is None or name in reasons
    ]
    if unread:
        raise AnnotationsInvalid(
            f"{len(unread)} of the {len(photos)} photos cannot be indexed, the first of them {unread[0]}. "
            "Take them out of the annotations, or repair them."
        )
    return [content_id for content_id in content_ids if content_id is not None]


def _borrow(file: Path, to: Path) -> None:
    """Make a photo appear in another folder, without a copy of it on the same disk."""
    try:
        to.hardlink_to(file.resolve())  # the indexer follows no symbolic link that leads out of its folder
    except OSError:  # another disk, or somebody else's file
        shutil.copyfile(file, to)


def _similarities(
    library: Library,
    model: Model,
    content_ids: Sequence[int],
    texts: Sequence[str],
    on_progress: Callable[[EvaluationProgress], None],
) -> NDArray[np.float32]:
    """(photos, texts) ITC similarities: the maximum over the 32 embeddings of a photo."""
    encoded = torch.empty(len(texts), EMBEDDING_SIZE, device=model.device)
    order = sorted(range(len(texts)), key=lambda text: len(texts[text]))  # texts of a like length need little padding
    for start in range(0, len(order), _TEXT_BATCH):
        batch = order[start : start + _TEXT_BATCH]
        encoded[batch] = model.encode_texts([texts[text] for text in batch]).float()
        on_progress(EvaluationProgress("encoding", start + len(batch), len(texts)))
    similarities = np.empty((len(content_ids), len(texts)), np.float32)
    for start in range(0, len(content_ids), _PHOTO_BLOCK):
        block = torch.from_numpy(library.embeddings(content_ids[start : start + _PHOTO_BLOCK])).to(model.device).float()
        similarities[start : start + len(block)] = (block @ encoded.T).amax(dim=1).cpu().numpy()
    return similarities


def _tasks(texts: _Texts, similarities: NDArray[np.float32]) -> dict[str, RankingTask]:
    """The directions that have queries. A pair's number is ``photo * texts + text``."""
    photo = np.arange(len(similarities))
    photo_key = photo * len(texts.all)
    captions = len(texts.owner)
    asking = np.unique(texts.owner)
    labels = np.arange(len(texts.all) - captions)
    tasks = {
        "text_to_image": RankingTask(similarities[:, :captions].T, texts.owner, photo, np.arange(captions), photo_key),
        "image_to_text": RankingTask(
            similarities[asking, :captions], asking, texts.owner, photo_key[asking], np.arange(captions)
        ),
        "names": RankingTask(similarities[:, captions:].T, labels, texts.label, captions + labels, photo_key),
    }
    return {name: task for name, task in tasks.items() if len(task.query_key)}


def _random_pairs(task: RankingTask, photos: int, random: np.random.Generator) -> NDArray[np.int64]:
    """(2, Q) pairs of each caption: with another photo, with its own."""
    other = (task.query_group + random.integers(1, photos, len(task.query_group))) % photos
    return task.query_key + task.gallery_key[np.stack([other, task.query_group])]


def _match(
    library: Library,
    model: Model,
    features: MatchFeatures,
    content_ids: Sequence[int],
    texts: Sequence[str],
    pairs: Mapping[str, NDArray[np.int64]],
    on_progress: Callable[[EvaluationProgress], None],
) -> dict[str, NDArray[np.float32]]:
    """ITM logits (…, 2) of pairs (…), each distinct pair matched once."""
    distinct = np.unique(np.concatenate([numbers.ravel() for numbers in pairs.values()]))
    logits = np.empty((len(distinct), 2), np.float32)
    for start in range(0, len(distinct), _PAIR_WINDOW):
        numbers = distinct[start : start + _PAIR_WINDOW].tolist()
        contents = [content_ids[number // len(texts)] for number in numbers]
        asked = [texts[number % len(texts)] for number in numbers]
        tokens = features.of(sorted(set(contents)))
        if len(tokens) < len(set(contents)):
            raise AnnotationsInvalid(
                "A photo could not be read a second time. Start again, with nothing changing them."
            )
        embeddings = dict(zip(tokens, torch.from_numpy(library.embeddings(list(tokens))), strict=True))
        order = sorted(range(len(numbers)), key=lambda pair: len(asked[pair]))
        size = model.match_batch_size
        for first in range(0, len(order), size):
            batch = order[first : first + size]
            seen = restored([tokens[contents[pair]] for pair in batch], model.device)
            known = torch.stack([embeddings[contents[pair]] for pair in batch])
            matched = model.match(seen, [asked[pair] for pair in batch], known)
            logits[start + np.array(batch)] = matched.float().cpu().numpy()
        on_progress(EvaluationProgress("matching", start + len(order), len(distinct)))
    return {name: logits[np.searchsorted(distinct, numbers)] for name, numbers in pairs.items()}


def _calibration(logits: NDArray[np.float32]) -> Calibration:
    """Of logits (2, Q, 2): of captions with another photo, and with their own."""
    probabilities = torch.from_numpy(logits).double().softmax(dim=-1)[..., 1].numpy()
    positive = np.zeros(probabilities.shape, np.bool_)
    positive[1] = True
    return Calibration(
        auroc=area_under_roc(probabilities.ravel(), positive.ravel()),
        ece=calibration_error(probabilities.ravel(), positive.ravel()),
        pairs=probabilities.size,
    )
