"""The engine against a plain numpy ranking of all embeddings."""

import contextlib
import dataclasses
import datetime
import math
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.errors import ModelMismatch, PhotoNotFound
from indexer.facts import PhotoFacts
from indexer.library import Filters, IndexedFile, Library, Near, Neighbour, NewContent
from indexer.model import Model, ModelIdentity, restored
from indexer.model.compact import CompactModel
from indexer.photos import read_photo
from search.engine import SearchEngine
from search.query import DEPTH, SearchQuery, SearchResponse
from tests.search.conftest import LargeLibrary, Variant, picture

Passes = Callable[[Variant], bool]


@dataclasses.dataclass(frozen=True)
class Expected:
    """One picture of the brute-force ranking."""

    content_id: int
    similarity: float
    match: float | None


def unit(vector: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = vector / np.linalg.norm(vector)
    return scaled


def brute_force(
    model: Model, variants: dict[int, Variant], query: SearchQuery, passes: Passes, vector: np.ndarray, liked: int = 0
) -> list[Expected]:
    """Every picture is scored; nothing is batched, widened, cached or cut short but at the depth of a search."""

    def similarity(variant: Variant, to: np.ndarray) -> float:
        return float((variant.embeddings.astype(np.float32) @ to).max())

    def match(variant: Variant, text: str) -> tuple[float, float]:
        assert variant.tokens is not None
        tokens, embeddings = restored([variant.tokens], model.device), torch.from_numpy(variant.embeddings)[None]
        no, yes = model.match(tokens, [text], embeddings)[0].tolist()
        return yes, 1 / (1 + math.exp(no - yes))

    without = [model.encode_texts([text])[0].numpy() for text in query.without]
    scored = {
        content_id: similarity(variant, vector)
        for content_id, variant in variants.items()
        if passes(variant) and content_id != liked
    }
    nearest = sorted(scored, key=lambda content_id: (-scored[content_id], content_id))[:DEPTH]
    reranked, rest = [], []
    for place, content_id in enumerate(nearest):
        variant = variants[content_id]
        looked_at = place < query.rerank and variant.tokens is not None and bool(query.text or query.without)
        if looked_at:
            logit, probability = match(variant, query.text) if query.text else (0.0, 0.0)
            unwanted = [match(variant, text)[1] for text in query.without]
            if not any(each >= 0.5 and each > probability for each in unwanted):
                order = model.match_weight * logit + scored[content_id]
                shown = Expected(content_id, scored[content_id], probability if query.text else None)
                reranked.append((order, shown))
        elif all(similarity(variant, text) <= scored[content_id] for text in without):
            rest.append(Expected(content_id, scored[content_id], None))
    best_first = [shown for _, shown in sorted(reranked, key=lambda pair: -pair[0])]
    if query.min_match is not None:
        return [shown for shown in best_first if shown.match is not None and shown.match >= query.min_match]
    return best_first + rest


def assert_same(response: SearchResponse, expected: list[Expected]) -> None:
    offset, top = response.query.offset, response.query.top
    known = {each.content_id: each for each in expected}
    page = [known.pop(result.photo.content_id) for result in response.results]
    for shown, each in zip(page, expected[offset : offset + top], strict=True):
        # Two that are equally similar up to rounding may stand in either order.
        assert shown == each or (shown.match is each.match is None and abs(shown.similarity - each.similarity) < 1e-6)
    assert [result.rank for result in response.results] == list(range(offset + 1, offset + len(page) + 1))
    for result, each in zip(response.results, page, strict=True):
        assert result.similarity == pytest.approx(each.similarity, abs=1e-5)
        assert result.match == (None if each.match is None else pytest.approx(each.match, abs=1e-4))
    assert response.total == len(expected)


def everything(_: Variant) -> bool:
    return True


TEXT_QUERIES = [
    SearchQuery(text="a cat", rerank=0),
    SearchQuery(text="a cat"),
    SearchQuery(text="a cup of coffee", rerank=33, top=150),
    SearchQuery(text="a rocket", rerank=64, top=30),
    SearchQuery(text="stars in the sky", without=("a cat", "coffee"), top=60, rerank=30),
    SearchQuery(text="a person", without=("an astronaut",), rerank=0, top=100),
    SearchQuery(text="a person", without=("a person",), top=100),
    SearchQuery(text="a cat", min_match=0.5, rerank=40, top=100),
    SearchQuery(text="old coins", top=20, offset=40),
    SearchQuery(text="old coins", top=20, offset=990, rerank=10),
    SearchQuery(text="old coins", top=20, offset=DEPTH),
]


@pytest.mark.parametrize("query", TEXT_QUERIES)
def test_results_equal_brute_force(model: Model, large: LargeLibrary, query: SearchQuery) -> None:
    response = SearchEngine(large.library, model).search(query)
    vector = model.encode_texts([query.text or ""])[0].numpy()
    assert_same(response, brute_force(model, large.variants, query, everything, vector))
    assert response.considered == len(large.variants)


class FewPairs(CompactModel):
    """The compact model on a device that matches seven pairs at once."""

    def __init__(self, model: CompactModel) -> None:
        self.__dict__.update(vars(model))
        self.matched: list[int] = []

    @property
    def match_batch_size(self) -> int:
        return 7

    def match(self, tokens: torch.Tensor, texts: Sequence[str], embeddings: torch.Tensor | None = None) -> torch.Tensor:
        self.matched.append(len(tokens))
        return super().match(tokens, texts, embeddings)


def test_candidates_are_matched_as_many_at_once_as_the_model_takes(model: Model, large: LargeLibrary) -> None:
    assert isinstance(model, CompactModel)
    few = FewPairs(model)
    query = SearchQuery(text="a cat", rerank=20, top=1000)
    response = SearchEngine(large.library, few).search(query)
    assert few.matched[:-1] == [7] * (len(few.matched) - 1)
    assert 1 <= few.matched[-1] <= 7
    assert sum(few.matched) == sum(result.match is not None for result in response.results) > 7
    vector = model.encode_texts(["a cat"])[0].numpy()
    assert_same(response, brute_force(model, large.variants, query, everything, vector))


def km_between(facts: PhotoFacts, latitude: float, longitude: float) -> float:
    if facts.latitude is None or facts.longitude is None:
        return math.inf
    a, b = math.radians(facts.latitude), math.radians(latitude)
    angle = math.radians(facts.longitude - longitude)
    cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(angle)
    return 6371 * math.acos(min(1, cosine))


FILTERS: list[tuple[Filters, Passes]] = [
    (Filters(camera="canon"), lambda each: each.facts.camera == "Canon EOS 5D"),
    (Filters(formats=("png", "HEIF")), lambda each: each.facts.format in ("PNG", "HEIF")),
    (
        Filters(after=datetime.date(2003, 4, 5), before=datetime.date(2009, 10, 5)),
        lambda each: (
            each.facts.taken_at is not None
            and datetime.date(2003, 4, 5) <= each.facts.taken_at.date() <= datetime.date(2009, 10, 5)
        ),
    ),
    (Filters(near=Near(20, 60, 800)), lambda each: km_between(each.facts, 20, 60) <= 800),
    (
        Filters(camera="nikon", formats=("JPEG",), after=datetime.date(2010, 1, 1)),
        lambda each: (
            each.facts.camera == "NIKON D90"
            and each.facts.format == "JPEG"
            and each.facts.taken_at is not None
            and each.facts.taken_at.year >= 2010
        ),
    ),
    (Filters(camera="Leica"), lambda _: False),
]


@pytest.mark.parametrize(("filters", "passes"), FILTERS)
def test_filters_narrow_what_is_ranked(model: Model, large: LargeLibrary, filters: Filters, passes: Passes) -> None:
    query = SearchQuery(text="a cat", filters=filters, rerank=20, top=1000)
    response = SearchEngine(large.library, model).search(query)
    vector = model.encode_texts(["a cat"])[0].numpy()
    assert_same(response, brute_force(model, large.variants, query, passes, vector))
    assert response.considered == sum(map(passes, large.variants.values()))


def test_folder_filter(model: Model, large: LargeLibrary) -> None:
    folder = next(iter(large.variants.values())).path.parent
    query = SearchQuery(text="a rocket", filters=Filters(folder=folder), top=1000)
    response = SearchEngine(large.library, model).search(query)
    assert {result.photo.path for result in response.results} == {
        each.path for each in large.variants.values() if each.path.parent == folder
    }


def test_pages_continue_each_other(model: Model, large: LargeLibrary) -> None:
    engine = SearchEngine(large.library, model)
    whole = engine.search(SearchQuery(text="a cat", without=("coffee",), top=90, rerank=20)).results
    pages = [
        engine.search(SearchQuery(text="a cat", without=("coffee",), top=30, offset=at, rerank=20))
        for at in (0, 30, 60)
    ]
    assert [result for page in pages for result in page.results] == list(whole)


@pytest.mark.parametrize("text", [None, "a rocket"])
def test_like_an_indexed_photo_equals_brute_force(model: Model, large: LargeLibrary, text: str | None) -> None:
    liked = next(iter(large.variants))
    photo_id = large.library.photos_of([liked])[liked][0].id
    vector = unit(large.variants[liked].embeddings.astype(np.float32).mean(axis=0))
    if text is not None:
        vector = unit(vector + model.encode_texts([text])[0].numpy())
    query = SearchQuery(text=text, like_photo=photo_id, top=1000)
    response = SearchEngine(large.library, model).search(query)
    expected = brute_force(model, large.variants, query, everything, vector, liked)
    assert_same(response, expected)
    assert liked not in {result.photo.content_id for result in response.results}


def test_total_does_not_count_the_liked_photo(model: Model, large: LargeLibrary) -> None:
    photo = large.library.photos_of([next(iter(large.variants))]).popitem()[1][0]
    query = SearchQuery(like_photo=photo.id, filters=Filters(folder=photo.path.parent), top=1000)
    response = SearchEngine(large.library, model).search(query)
    assert response.total == len(response.results) == response.considered - 1


def test_like_an_image_equals_brute_force(model: Model, large: LargeLibrary, tmp_path: Path) -> None:
    image = picture("coffee.png")
    image.save(tmp_path / "coffee.png")
    pixels = torch.from_numpy(read_photo(tmp_path / "coffee.png", model.image_size).pixels).permute(2, 0, 1)[None]
    vector = unit(model.encode_images(pixels).embeddings[0].numpy().mean(axis=0))
    query = SearchQuery(like=image, without=("a cat",), top=100)
    response = SearchEngine(large.library, model).search(query)
    assert_same(response, brute_force(model, large.variants, query, everything, vector))
    assert all(result.match is None for result in response.results)


def test_stages_are_timed(model: Model, large: LargeLibrary) -> None:
    took = SearchEngine(large.library, model).search(SearchQuery(text="a cat")).took_ms
    assert set(took) == {"encode", "candidates", "rerank", "total"}
    assert took["encode"] > 0
    assert took["candidates"] > 0
    assert took["rerank"] > 0
    assert took["total"] >= took["encode"] + took["candidates"] + took["rerank"]


def test_unknown_photo_to_resemble(model: Model, large: LargeLibrary) -> None:
    with pytest.raises(PhotoNotFound):
        SearchEngine(large.library, model).search(SearchQuery(like_photo=10**9))


def test_empty_library_answers_with_nothing(model: Model, tmp_path: Path) -> None:
    with Library.create(tmp_path) as library:
        response = SearchEngine(library, model).search(SearchQuery(text="a cat"))
    assert (response.results, response.total, response.considered) == ((), 0, 0)


class SmallLibrary:
    """A library of real files, each picture recorded as the pipeline would, but without match features."""

    def __init__(self, library: Library, folder: Path, model: Model) -> None:
        self.library = library
        self.folder = folder
        self.model = model

    def add(self, name: str, *copies: str) -> Path:
        path = self.folder / name
        picture(name).save(path)
        pixels = torch.from_numpy(read_photo(path, self.model.image_size).pixels).permute(2, 0, 1)[None]
        embeddings = self.model.encode_images(pixels).embeddings[0].numpy().astype(np.float16)
        for copy in copies:
            (self.folder / copy).write_bytes(path.read_bytes())
        with self.library.writer() as writer:
            writer.use_model(self.model.identity)
            folder = writer.add_folder(self.folder)
            files = []
            for each in (name, *copies):
                stat = (self.folder / each).stat()
                files.append(IndexedFile(folder, each, stat.st_size, stat.st_mtime_ns, name))
            facts = read_photo(path, self.model.image_size).facts
            writer.commit(files, [NewContent(name, facts, embeddings=embeddings)])
            writer.refresh_vectors()
        return path


@pytest.fixture
def small(model: Model, tmp_path: Path) -> SmallLibrary:
    (tmp_path / "photos").mkdir()
    return SmallLibrary(Library.create(tmp_path / "library"), tmp_path / "photos", model)


def test_missing_match_features_are_made_once_from_the_original(model: Model, small: SmallLibrary) -> None:
    path = small.add("chelsea.png")
    engine = SearchEngine(small.library, model)
    first = engine.search(SearchQuery(text="a cat")).results[0]
    assert first.match is not None
    assert list(small.library.match_features(model.identity, [first.photo.content_id])) == [first.photo.content_id]
    path.unlink()
    assert engine.search(SearchQuery(text="a cat")).results[0].match == first.match


def test_a_photo_whose_file_is_gone_keeps_its_similarity(model: Model, small: SmallLibrary) -> None:
    small.add("chelsea.png").unlink()
    result = SearchEngine(small.library, model).search(SearchQuery(text="a cat")).results[0]
    assert result.match is None
    assert result.similarity > 0


def test_an_edited_file_is_not_taken_for_the_indexed_picture(model: Model, small: SmallLibrary) -> None:
    path = small.add("chelsea.png")
    picture("coffee.png").save(path)
    assert SearchEngine(small.library, model).search(SearchQuery(text="a cat")).results[0].match is None


def test_copies_are_one_result(model: Model, small: SmallLibrary) -> None:
    path = small.add("chelsea.png", "again.png")
    response = SearchEngine(small.library, model).search(SearchQuery(text="a cat"))
    assert response.total == response.considered == len(response.results) == 1
    result = response.results[0]
    assert {result.photo.path, *result.copies} == {path, path.with_name("again.png")}


def test_a_picture_indexed_meanwhile_is_found(model: Model, small: SmallLibrary) -> None:
    small.add("chelsea.png")
    with Library.open(small.library.directory) as reader:
        engine = SearchEngine(reader, model)
        assert engine.search(SearchQuery(text="a cup of coffee")).considered == 1
        path = small.add("coffee.png")
        response = engine.search(SearchQuery(text="a cup of coffee"))
        assert response.considered == 2
        assert response.results[0].photo.path == path


def test_a_library_of_another_model_is_refused(model: Model, small: SmallLibrary) -> None:
    small.add("chelsea.png")
    engine = SearchEngine(small.library, model)
    assert engine.search(SearchQuery(text="a cat")).results
    other = ModelIdentity("other", "7", "0" * 64)
    with small.library.writer() as writer:
        writer.use_model(other)
        writer.activate(other)
    with pytest.raises(ModelMismatch, match="--model other"):
        engine.search(SearchQuery(text="a cat"))


class DroppingLibrary(Library):
    """A library in which a writer drops a picture between two stages of every search."""

    def nearest(self, query: np.ndarray, k: int, filters: Filters = Filters()) -> list[Neighbour]:  # noqa: B008
        found = super().nearest(query, k, filters)
        with contextlib.closing(sqlite3.connect(self.directory / "catalog.sqlite")) as catalog, catalog:
            catalog.execute("DELETE FROM embedding WHERE content_id = ?", (found[1].content_id,))
        return found


def test_a_picture_that_is_dropped_meanwhile_is_skipped(large: LargeLibrary, model: Model, tmp_path: Path) -> None:
    query = SearchQuery(text="a cat", without=("a rocket",), rerank=0)
    before = SearchEngine(large.library, model).search(query).results
    shutil.copytree(large.library.directory, tmp_path / "library")
    with DroppingLibrary.open(tmp_path / "library") as library:
        after = SearchEngine(library, model).search(query).results
    assert [each.photo.id for each in after[:10]] == [before[0].photo.id, *(each.photo.id for each in before[2:11])]
