"""What is asked of a library, and what is answered."""

import dataclasses
import math
from pathlib import Path

from PIL.Image import Image

from indexer.errors import QueryInvalid
from indexer.library import Filters, PhotoRecord

DEPTH = 1000
"""Pictures a search ranks at most; pages end there. Nobody leafs further, and it bounds what one request costs."""
MAX_TEXT = 1000
"""Characters of one text. The model reads its first 50 words."""
MAX_WITHOUT = 8
"""Texts that results must not match; each costs another rerank."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A search. At least one of ``text``, ``like`` and ``like_photo`` says what to look for.

    Raises QueryInvalid when it asks for something impossible.
    """

    text: str | None = None
    """What the photo shows, in words."""
    without: tuple[str, ...] = ()
    """What it must not show, in words."""
    like: Image | None = None
    """A picture it should resemble: upright RGB, as ``indexer.photos.open_rgb`` gives it."""
    like_photo: int | None = None
    """Id of an indexed photo it should resemble; that picture itself is not among the results."""
    filters: Filters = dataclasses.field(default_factory=Filters)
    min_match: float | None = None
    """Least match probability, 0 to 1. Pictures that were not reranked have none, and are left out."""
    top: int = 20
    """Results of one page."""
    offset: int = 0
    """Results to skip: the next page's is this page's plus ``top``."""
    rerank: int = 50
    """How many of the most similar pictures the ITM head looks at. 0 ranks by similarity alone."""

    def __post_init__(self) -> None:
        if self.text is None and self.like is None and self.like_photo is None:
            raise QueryInvalid("The search is empty. Say what to look for in words, or give a photo to resemble.")
        if self.like is not None and self.like_photo is not None:
            raise QueryInvalid("Two photos to resemble. Give either a picture or the id of an indexed photo, not both.")
        _check_text("The search text", self.text)
        if len(self.without) > MAX_WITHOUT:
            raise QueryInvalid(f"{len(self.without)} texts to leave out. Give at most {MAX_WITHOUT}.")
        for text in self.without:
            _check_text("A text to leave out", text)
        _check_range("top", self.top, 1, DEPTH)
        _check_range("offset", self.offset, 0, DEPTH)
        _check_range("rerank", self.rerank, 0, DEPTH)
        self._check_min_match()
        _check_filters(self.filters)

    def _check_min_match(self) -> None:
        if self.min_match is None:
            return
        _check_range("The minimum match", self.min_match, 0, 1)
        if self.text is None:
            raise QueryInvalid("A minimum match needs a search text: without words there is nothing to match.")
        if self.rerank == 0:
            raise QueryInvalid("A minimum match needs reranking: set rerank to how many pictures to look at.")


@dataclasses.dataclass(frozen=True, slots=True)
class SearchResult:
    """One distinct picture that was found."""

    rank: int
    """1 is the best; goes on over the pages."""
    photo: PhotoRecord
    copies: tuple[Path, ...]
    """Other files of the same picture that pass the filters."""
    similarity: float
    """ITC similarity to the query, -1 to 1: the maximum over the picture's 32 embeddings."""
    match: float | None
    """ITM probability that picture and text match, 0 to 1; None if it was not reranked."""


@dataclasses.dataclass(frozen=True, slots=True)
class SearchResponse:
    """The answer to a query: one page of the ranking."""

    query: SearchQuery
    results: tuple[SearchResult, ...]
    total: int
    """Ranked pictures that can be paged through; at most ``DEPTH``."""
    considered: int
    """Distinct pictures that the search looked at: those that pass the filters."""
    took_ms: dict[str, float]
    """Milliseconds: ``encode``, ``candidates``, ``rerank``, and ``total`` of everything."""


def _check_text(name: str, text: str | None) -> None:
    if text is None:
        return
    if not text.strip():
        raise QueryInvalid(f"{name} is empty. Say what to look for in words, for example: a dog on a beach.")
    if len(text) > MAX_TEXT:
        raise QueryInvalid(f"{name} has {len(text)} characters. Give at most {MAX_TEXT}.")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise QueryInvalid(f"{name} is {value}. Give a number from {least} to {most}.")


def _check_filters(filters: Filters) -> None:
    if filters.after is not None and filters.before is not None and filters.after > filters.before:
        raise QueryInvalid(
            f"No photo is taken after {filters.after} and before {filters.before}. Swap the two dates, or drop one."
        )
    if filters.folder is not None and "\0" in str(filters.folder):
        raise QueryInvalid("The folder's name has a NUL in it, as no folder has. Give the path of an indexed folder.")
    if filters.near is None:
        return
    _check_range("The latitude", filters.near.latitude, -90, 90)
    _check_range("The longitude", filters.near.longitude, -180, 180)
    if not (filters.near.km > 0 and math.isfinite(filters.near.km)):
        raise QueryInvalid(f"The distance is {filters.near.km} km. Give a number above 0.")
