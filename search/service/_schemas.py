"""What travels over HTTP, as OpenAPI documents it."""

import datetime
from pathlib import Path
from typing import Annotated, Any

from PIL.Image import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from indexer.errors import QueryInvalid
from indexer.library import Filters, Near
from indexer.progress import Stage
from search.document import printable
from search.query import DEPTH, MAX_TEXT, MAX_WITHOUT, SearchQuery
from search.service._jobs import Job, JobState

MAX_TOP = 200
"""Results of one page."""
MAX_RERANK = 500
"""Pictures that one request has the ITM head look at."""
MAX_ID = 2**63 - 1
"""Largest id that a catalog can hold."""

Printable = Annotated[str, BeforeValidator(printable)]
"""A path, or a sentence with one in it: names of files need not be UTF-8, but JSON must."""


LocalTime = Annotated[
    datetime.datetime, WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$"})
]
"""A time without a time zone, as cameras write it; the format "date-time" of JSON Schema would ask for one."""


class _Schema(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class SearchRequest(BaseModel):
    """A search. At least one of `q`, `like` and (uploaded) `image` says what to look for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"q": "two dogs running on a beach", "not": ["people"], "top": 20}]},
    )

    text: str | None = Field(
        None, alias="q", max_length=MAX_TEXT, description="What the photo shows.", examples=["two dogs on a beach"]
    )
    without: list[Annotated[str, Field(max_length=MAX_TEXT)]] = Field(
        [], alias="not", max_length=MAX_WITHOUT, description="What it must not show."
    )
    like: int | None = Field(None, ge=1, le=MAX_ID, description="Id of an indexed photo that results should resemble.")
    folder: str | None = Field(None, max_length=4096, description="Absolute path: photos in that folder or below it.")
    after: datetime.date | None = Field(None, description="Taken on that day or later.")
    before: datetime.date | None = Field(None, description="Taken on that day or earlier.")
    camera: str | None = Field(None, max_length=200, description="Part of the camera's name.")
    near: str | None = Field(
        None, max_length=100, description="Taken near a place: LATITUDE,LONGITUDE,KM.", examples=["48.86,2.35,10"]
    )
    formats: list[Annotated[str, Field(max_length=20)]] = Field(
        [], alias="format", max_length=20, description="File formats, such as JPEG."
    )
    min_match: float | None = Field(None, ge=0, le=1, description="Least match probability of a result.")
    top: int = Field(20, ge=1, le=MAX_TOP, description="Results of one page.")
    offset: int = Field(0, ge=0, le=DEPTH, description="Results to skip.")
    rerank: int = Field(50, ge=0, le=MAX_RERANK, description="Pictures that the matching head looks at.")

    def query(self, image: Image | None = None) -> SearchQuery:
        """The search that is asked for; QueryInvalid when it is impossible."""
        return SearchQuery(
            text=self.text,
            without=tuple(self.without),
            like=image,
            like_photo=self.like,
            filters=Filters(
                folder=None if self.folder is None else _folder(self.folder),
                after=self.after,
                before=self.before,
                camera=self.camera,
                near=None if self.near is None else _near(self.near),
                formats=tuple(self.formats),
            ),
            min_match=self.min_match,
            top=self.top,
            offset=self.offset,
            rerank=self.rerank,
        )


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_absolute():
        raise QueryInvalid(f"{text!r} is not a whole path. Give it from the root, such as /home/ada/Pictures.")
    return folder


def _near(text: str) -> Near:
    try:
        latitude, longitude, km = (float(part) for part in text.split(","))
    except ValueError:
        raise QueryInvalid(
            f"{text!r} is not a place. Write LATITUDE,LONGITUDE,KM, for example 48.86,2.35,10."
        ) from None
    return Near(latitude, longitude, km)


class ErrorDetail(_Schema):
    """What went wrong."""

    code: str = Field(description="Stable name of the error, for programs.", examples=["query_invalid"])
    message: str = Field(description="What was wrong and what to do about it, for people.")


class ErrorAnswer(_Schema):
    """Every answer that is not a success."""

    error: ErrorDetail


class PhotoFields(_Schema):
    """A photo file."""

    id: int
    path: str
    taken_at: LocalTime | None = Field(description="Local time where it was taken, without a time zone.")
    camera: str | None
    latitude: float | None
    longitude: float | None
    width: int = Field(description="Pixels, upright.")
    height: int = Field(description="Pixels, upright.")
    size: int = Field(description="Bytes.")
    format: str = Field(examples=["JPEG"])
    copies: list[str] = Field(description="Paths of other files of the same picture.")
    thumbnail: str = Field(description="Address of a small WebP.", examples=["/v1/photos/1/thumbnail"])
    file: str = Field(description="Address of the photo.", examples=["/v1/photos/1/file"])


class PhotoAnswer(PhotoFields):
    """What is known about a photo file."""

    folder: str = Field(description="The indexed folder that it is in.")
    modified_at: datetime.datetime


class ResultFields(PhotoFields):
    """A photo that was found."""

    rank: int = Field(description="1 is the best; goes on over the pages.")
    match: float | None = Field(description="Probability that photo and words match, 0 to 1; null if not reranked.")
    similarity: float = Field(description="ITC similarity to the query, -1 to 1.")


class SearchAnswer(_Schema):
    """One page of the ranking."""

    query: str | None
    took_ms: dict[str, float] = Field(
        description="Milliseconds of each stage, and of all.",
        examples=[{"encode": 4.1, "candidates": 1.2, "rerank": 151.0, "total": 156.9}],
    )
    considered: int = Field(description="Distinct pictures that the search looked at.")
    total: int = Field(description=f"Ranked pictures that can be paged through, at most {DEPTH}.")
    results: list[ResultFields]


class IndexRequest(BaseModel):
    """Folders to index."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"folders": ["/home/ada/Pictures"]}]})

    folders: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(
        min_length=1,
        max_length=100,
        description="Absolute paths on the service's machine; a leading ~ is its user's home.",
    )


class ProgressAnswer(_Schema):
    """How far a job is."""

    stage: Stage
    total: int
    done: int
    failed: int
    photos_per_second: float
    seconds_left: float | None
    current: Printable | None


class SummaryAnswer(_Schema):
    """What a job did, in files."""

    added: int
    updated: int
    moved: int
    unchanged: int
    removed: int
    failed: int
    embedded: int = Field(description="Pictures that the model looked at.")
    seconds: float
    cancelled: bool
    notes: list[Printable] = Field(description="What else a person should know, a sentence each.")


class JobAnswer(_Schema):
    """An indexing job."""

    id: str
    state: JobState
    folders: list[Printable]
    started_at: datetime.datetime
    finished_at: datetime.datetime | None
    progress: ProgressAnswer | None
    summary: SummaryAnswer | None
    error: Printable | None = Field(description="Why it failed.")

    @classmethod
    def of(cls, job: Job) -> "JobAnswer":
        return cls.model_validate(job)


class JobsAnswer(_Schema):
    """The jobs since the service started, the latest last."""

    jobs: list[JobAnswer]


class FacetAnswer(_Schema):
    """A value to filter by."""

    value: Printable
    count: int = Field(description="Photos that have it.")


class FacetsAnswer(_Schema):
    """What the library can be filtered by."""

    folders: list[FacetAnswer]
    cameras: list[FacetAnswer]
    formats: list[FacetAnswer]
    earliest: LocalTime | None
    latest: LocalTime | None


class FailureAnswer(_Schema):
    """A file that could not be indexed."""

    path: Printable
    reason: Printable
    since: datetime.datetime


class FailuresAnswer(_Schema):
    """Files that could not be indexed."""

    total: int
    failures: list[FailureAnswer]


class IdentityAnswer(_Schema):
    """A model."""

    name: str
    revision: str
    digest: str


class FolderAnswer(_Schema):
    """An indexed folder."""

    path: Printable
    photos: int


class ServiceAnswer(_Schema):
    """The service itself."""

    version: str
    model_state: str = Field(description="loading, ready or failed.")
    model_error: str | None = Field(description="Why the model did not load.")
    device: str | None = Field(description="Where the model runs, once it is loaded.")


class StatusAnswer(_Schema):
    """What the library holds, and how the service is."""

    directory: Printable
    format_version: int
    photos: int = Field(description="Files.")
    pictures: int = Field(description="Distinct pictures among them.")
    failed: int
    missing: int
    folders: list[FolderAnswer]
    model: IdentityAnswer | None = Field(description="The model that the library is searched with.")
    vectors: int
    index_kind: str
    index_ram_bytes: int = Field(description="Memory that the index takes for one picture.")
    index_recall: float | None = Field(
        description="Share of the ten best pictures that searches find, as measured; null if there is no index yet."
    )
    bytes: dict[str, int] = Field(description="On disk, by part.")
    service: ServiceAnswer


class HealthAnswer(_Schema):
    """That it is so."""

    status: str = "ok"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: that these statuses carry an ErrorAnswer."""
    return {status: {"model": ErrorAnswer} for status in statuses}
