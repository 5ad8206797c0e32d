"""What goes into a library and what comes out of it, as plain frozen data."""

import dataclasses
import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.embedding import ModelIdentity
from indexer.facts import PhotoFacts
from indexer.tokens import QuantisedTokens


@dataclasses.dataclass(frozen=True, slots=True)
class Near:
    """A circle on the Earth."""

    latitude: float
    """Degrees, north positive."""
    longitude: float
    """Degrees, east positive."""
    km: float
    """Radius, in kilometres along the ground."""


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """Which photos a search looks at. What is not given does not restrict."""

    folder: Path | None = None
    """That folder and every folder below it."""
    after: datetime.date | None = None
    """Taken on that day or later; photos without a date do not pass."""
    before: datetime.date | None = None
    """Taken on that day or earlier; photos without a date do not pass."""
    camera: str | None = None
    """Part of the camera's name, in any case."""
    near: Near | None = None
    """Taken there; photos without a place do not pass."""
    formats: tuple[str, ...] = ()
    """Any of these format names, in any case."""


@dataclasses.dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file as it now is on disk, to be recorded."""

    folder_id: int
    relative_path: str
    """Below the folder, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int
    digest: str | None
    """Of the file's bytes; None if they could not be read."""
    failure: str | None = None
    """Why the file could not be read."""
    photo_id: int | None = None
    """The row that now is this file, when it was edited, touched or moved."""


@dataclasses.dataclass(frozen=True, slots=True)
class NewContent:
    """A picture to be recorded, or to be given the vectors of another model."""

    digest: str
    facts: PhotoFacts | None
    """None for a picture that failed, and for a known one of which the facts stay as they are."""
    failure: str | None = None
    """Why it could not be decoded."""
    embeddings: NDArray[np.float16] | None = None
    """(32, 256), of the model in use."""
    tokens: QuantisedTokens | None = None
    """Of the model in use, for the match-feature cache."""
    thumbnail: bytes | None = None
    """WebP, for the thumbnail cache."""


@dataclasses.dataclass(frozen=True, slots=True)
class KnownFile:
    """What the catalog says of one file."""

    photo_id: int
    size: int
    mtime_ns: int
    content_id: int | None
    digest: str | None
    missing: bool
    failed: bool
    embedded: bool
    """Whether its picture has a vector of the model in use."""


@dataclasses.dataclass(frozen=True, slots=True)
class KnownContent:
    """What the catalog says of one picture."""

    content_id: int
    failure: str | None
    embedded: bool
    """Whether it has a vector of the model in use."""
    missing_photos: tuple[int, ...]
    """Photos of it whose files are recorded as missing: a new file of the same bytes is one of these, moved."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unembedded:
    """A picture without a vector of the model in use."""

    content_id: int
    digest: str
    photo_id: int
    path: Path
    """One file of it that is present."""


@dataclasses.dataclass(frozen=True, slots=True)
class PhotoRecord:
    """One present photo file."""

    id: int
    content_id: int
    path: Path
    """Absolute."""
    folder: Path
    """The indexed folder that it is in."""
    size: int
    """Bytes."""
    modified_at: datetime.datetime
    """UTC."""
    facts: PhotoFacts


@dataclasses.dataclass(frozen=True, slots=True)
class FailureRecord:
    """A file that could not be indexed."""

    path: Path
    reason: str
    since: datetime.datetime
    """UTC: when this state of the file was first recorded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """A picture and how near it is to the query."""

    content_id: int
    similarity: float
    """Largest of the 32 dot products, −1…1."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model whose vectors the library holds."""

    identity: ModelIdentity
    active: bool
    """Whether searches use it."""
    embedded: int
    """Pictures that have its vectors."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facet:
    """A value to filter by, and how many present photos have it."""

    value: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facets:
    """What the library can be filtered by, counted over its present photos."""

    folders: tuple[Facet, ...]
    """Every folder with photos in it or below it, from the indexed folders downwards, by path."""
    cameras: tuple[Facet, ...]
    formats: tuple[Facet, ...]
    earliest: datetime.datetime | None
    """First taken, in the camera's local time."""
    latest: datetime.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class FolderStatus:
    """An indexed folder."""

    path: Path
    photos: int
    """Present photos in it or below it."""


@dataclasses.dataclass(frozen=True, slots=True)
class LibraryStatus:
    """What a library holds."""

    directory: Path
    format_version: int
    photos: int
    """Present files that are indexed."""
    pictures: int
    """Distinct pictures among them."""
    failed: int
    """Present files that could not be indexed."""
    missing: int
    """Files that were indexed and are gone."""
    folders: tuple[FolderStatus, ...]
    model: ModelIdentity | None
    """The active one."""
    vectors: int
    """Vectors of the active model that a search looks at: 32 for each picture."""
    index_kind: str
    """"exact …", or "compressed …", as the size of the library asks."""
    index_ram_bytes: int
    """Memory that the index takes for one picture."""
    index_recall: float | None
    """Share of the ten best pictures that searches find, as measured by typical queries when the index was made or had
    changed much; 1 for an exact one, none if it has not been made yet."""
    bytes: dict[str, int]
    """On disk: "catalog", "vectors", "thumbnails", "match_features"."""
    match_features: int
    """Pictures that have match features, counted once for each model."""
    match_cache_bytes: int
    """How large the match features may become."""


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of a library found."""

    findings: tuple[str, ...]
    repaired: tuple[str, ...] = ()
    """Those of the findings that were put right."""
    notes: tuple[str, ...] = ()
    """What else a person should know, a sentence each: nothing of it is wrong."""

    @property
    def remaining(self) -> tuple[str, ...]:
        """Findings that are still so."""
        return tuple(finding for finding in self.findings if finding not in self.repaired)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        return not self.remaining
