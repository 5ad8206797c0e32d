"""The query engine: candidates by ITC similarity, reranked by the ITM head."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from indexer.errors import ModelMismatch, PhotoNotFound
from indexer.library import Library, Neighbour
from indexer.model import Model, restored
from indexer.photos import read_pixels, squash
from indexer.tokens import QuantisedTokens
from search._features import MatchFeatures, ReadPixels
from search.query import DEPTH, SearchQuery, SearchResponse, SearchResult


@dataclasses.dataclass(frozen=True, slots=True)
class _Encoded:
    """The vectors of a query, each (256,) float32 and of unit length."""

    query: NDArray[np.float32]
    without: tuple[NDArray[np.float32], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Candidate:
    """A picture near the query, with what the ITM head needs of it."""

    content_id: int
    similarity: float
    tokens: QuantisedTokens
    embeddings: NDArray[np.float16]
    """(32, 256)."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Ranked:
    """A picture of the ranking."""

    content_id: int
    similarity: float
    match: float | None = None
    """ITM probability."""


class SearchEngine:
    """Answers queries over one library with one model.

    Safe to use from several threads, and while the library is being written to.
    """

    def __init__(self, library: Library, model: Model, read: ReadPixels = read_pixels) -> None:
        """``read`` decodes the originals of pictures whose match features the library's cache lacks."""
        self._library = library
        self._model = model
        self._features = MatchFeatures(library, model, read)

    def search(self, query: SearchQuery) -> SearchResponse:
        """Rank the library's pictures.

        The ``rerank`` most similar pictures come first, ordered by ``match_weight * ITM logit + similarity``; the
        others follow by similarity. The order does not depend on the page: pages of an unchanged library fit together.

        A picture is left out when a ``without`` text matches it: among those reranked, when its match probability is at
        least one half and above that of the search text; among the others, when it is more similar to the picture
        than the query is.

        Raises ModelMismatch when the library is searched with another model, and PhotoNotFound when there is no
        ``like_photo``.
        """
        clock = _Clock()
        if not self._holds_vectors():
            return SearchResponse(query, (), 0, 0, clock.times())
        liked = None if query.like_photo is None else self._library.photo(query.like_photo).content_id
        encoded = self._encode(query, liked)
        clock.lap("encode")
        considered = self._library.considered(query.filters)
        neighbours = self._candidates(query, encoded, liked)
        self._holds_vectors()  # again: another model may have become active since the query was encoded
        clock.lap("candidates")
        ranking = self._rank(query, encoded, neighbours)
        clock.lap("rerank")
        total = len(ranking) if _needs_all(query) else min(DEPTH, considered - self._hidden(query, liked))
        return SearchResponse(query, self._page(query, ranking), total, considered, clock.times())

    def _holds_vectors(self) -> bool:
        active = self._library.active_model()
        if active is None:
            return False
        own = self._model.identity
        if active != own:
            raise ModelMismatch(
                f"This library is searched with the model {active.name} ({active.revision}, {active.digest[:12]}), but "
                f"the one loaded is {own.name} ({own.revision}, {own.digest[:12]}). Start again with "
                f"--model {active.name}, or index the library's folders with --model {own.name}: its vectors are built "
                f"beside and then used."
            )
        return True

    def _encode(self, query: SearchQuery, liked: int | None) -> _Encoded:
        texts = [text for text in (query.text, *query.without) if text is not None]
        encoded = list(self._model.encode_texts(texts).float().cpu().numpy()) if texts else []
        parts = encoded[:1] if query.text is not None else []
        without = encoded[len(parts) :]
        if query.like is not None:
            parts.append(_unit_mean(self._embed(query.like)))
        if liked is not None:
            parts.append(_unit_mean(self._library.embeddings([liked])[0]))
        return _Encoded(parts[0] if len(parts) == 1 else _unit_mean(np.stack(parts)), tuple(without))

    def _embed(self, image: Image) -> NDArray[np.float32]:
        pixels = torch.from_numpy(squash(image, self._model.image_size)).permute(2, 0, 1)[None]
        embeddings: NDArray[np.float32] = self._model.encode_images(pixels).embeddings[0].float().cpu().numpy()
        return embeddings

    def _candidates(self, query: SearchQuery, encoded: _Encoded, liked: int | None) -> list[Neighbour]:
        wanted = DEPTH if _needs_all(query) else min(DEPTH, max(query.rerank, query.offset + query.top))
        if liked is None:
            return self._library.nearest(encoded.query, wanted, query.filters)
        neighbours = self._library.nearest(encoded.query, wanted + 1, query.filters)
        return [neighbour for neighbour in neighbours if neighbour.content_id != liked][:wanted]

    def _hidden(self, query: SearchQuery, liked: int | None) -> int:
        """Pictures that pass the filters and are not shown: the one that results should resemble."""
        return int(liked is not None and bool(self._library.photos_of([liked], query.filters).get(liked)))

    def _rank(self, query: SearchQuery, encoded: _Encoded, neighbours: Sequence[Neighbour]) -> list[_Ranked]:
        looked_at = neighbours[: query.rerank] if query.text is not None or query.without else []
        candidates = self._with_features(looked_at)
        reranked = self._rerank(query, candidates)
        if query.min_match is not None:
            return [ranked for ranked in reranked if ranked.match is not None and ranked.match >= query.min_match]
        seen = {candidate.content_id for candidate in candidates}
        others = [neighbour for neighbour in neighbours if neighbour.content_id not in seen]
        return reranked + self._leave_out(encoded, others)

    def _with_features(self, neighbours: Sequence[Neighbour]) -> list[_Candidate]:
        """Those that the ITM head can look at."""
        tokens = self._features.of([neighbour.content_id for neighbour in neighbours])
        content_ids, embeddings = self._embeddings(list(tokens))
        of = dict(zip(content_ids, embeddings, strict=True))
        return [
            _Candidate(near.content_id, near.similarity, tokens[near.content_id], of[near.content_id])
            for near in neighbours
            if near.content_id in of
        ]

    def _rerank(self, query: SearchQuery, candidates: Sequence[_Candidate]) -> list[_Ranked]:
        """Candidates, best first, without those that a ``without`` text matches."""
        similarities = np.array([candidate.similarity for candidate in candidates])
        kept = np.ones(len(candidates), dtype=bool)
        logits, match = np.zeros(len(candidates)), np.zeros(len(candidates))
        if query.text is not None:
            logits, match = self._match(candidates, query.text)
        for text in query.without:
            _, unwanted = self._match(candidates, text)
            kept &= (unwanted < 0.5) | (unwanted <= match)
        scores = self._model.match_weight * logits + similarities
        # Stable: equal scores stay in the order of similarity, on every page.
        return [
            _Ranked(
                candidates[row].content_id,
                candidates[row].similarity,
                None if query.text is None else float(match[row]),
            )
            for row in np.argsort(-scores, kind="stable")
            if kept[row]
        ]

    def _match(self, candidates: Sequence[_Candidate], text: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """ITM logits of a match, and its probabilities."""
        logits = np.zeros((len(candidates), 2))
        size = self._model.match_batch_size
        for start in range(0, len(candidates), size):
            batch = candidates[start : start + size]
            tokens = restored([candidate.tokens for candidate in batch], self._model.device)
            embeddings = torch.from_numpy(np.stack([candidate.embeddings for candidate in batch]))
            matched = self._model.match(tokens, [text] * len(batch), embeddings)
            logits[start : start + len(batch)] = matched.cpu().numpy()
        return logits[:, 1], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))

    def _leave_out(self, encoded: _Encoded, neighbours: Sequence[Neighbour]) -> list[_Ranked]:
        """Pictures by similarity, without those that a ``without`` text is nearer to."""
        ranked = {neighbour.content_id: _Ranked(neighbour.content_id, neighbour.similarity) for neighbour in neighbours}
        if not (encoded.without and ranked):
            return list(ranked.values())
        content_ids, embeddings = self._embeddings(list(ranked))
        if not content_ids:
            return []
        # The query's similarity again, by the same sum: a text to leave out that equals the query is not nearer.
        texts = np.stack((encoded.query, *encoded.without), axis=1)
        asked, *unwanted = (embeddings.astype(np.float32) @ texts).max(axis=1).T
        nearer = (np.stack(unwanted) > asked).any(axis=0)
        return [ranked[content_id] for content_id, left_out in zip(content_ids, nearer, strict=True) if not left_out]

    def _embeddings(self, content_ids: list[int]) -> tuple[list[int], NDArray[np.float16]]:
        """The pictures, without those that were dropped since they were found, and their (n, 32, 256) vectors."""
        try:
            return content_ids, self._library.embeddings(content_ids)
        except PhotoNotFound:
            held = {}
            for content_id in content_ids:
                with contextlib.suppress(PhotoNotFound):
                    held[content_id] = self._library.embeddings([content_id])
            return list(held), np.concatenate([np.empty((0, 32, 256), np.float16), *held.values()])

    def _page(self, query: SearchQuery, ranking: Sequence[_Ranked]) -> tuple[SearchResult, ...]:
        shown = ranking[query.offset : query.offset + query.top]
        photos = self._library.photos_of([picture.content_id for picture in shown], query.filters)
        results = []
        for rank, picture in enumerate(shown, start=query.offset + 1):
            files = photos.get(picture.content_id)
            if files:  # else its last file went missing since the candidates were found
                copies = tuple(file.path for file in files[1:])
                results.append(SearchResult(rank, files[0], copies, picture.similarity, picture.match))
        return tuple(results)


class _Clock:
    """Times the stages of one search, in milliseconds."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps = {"encode": 0.0, "candidates": 0.0, "rerank": 0.0}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._laps[stage] = (now - self._last) * 1000
        self._last = now

    def times(self) -> dict[str, float]:
        return {**self._laps, "total": (time.perf_counter() - self._start) * 1000}


def _needs_all(query: SearchQuery) -> bool:
    """Whether only the whole ranking tells how many pictures remain."""
    return bool(query.without) or query.min_match is not None


def _unit_mean(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mean of (n, 256) vectors, scaled to unit length: (256,)."""
    mean = vectors.astype(np.float32).mean(axis=0)
    unit: NDArray[np.float32] = mean / np.linalg.norm(mean)
    return unit
