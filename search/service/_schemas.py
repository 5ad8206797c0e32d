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

    id: int = Field(description="Stays the photo's when its file is moved or edited.")
    path: str = Field(description="Absolute, on the service's machine; what is no UTF-8 in it is replaced.")
    taken_at: LocalTime | None = Field(description="Local time where it was taken, without a time zone.")
    camera: str | None = Field(description="Maker and model.")
    latitude: float | None = Field(description="Degrees north, WGS 84.")
    longitude: float | None = Field(description="Degrees east, WGS 84.")
    width: int = Field(description="Pixels, upright.")
    height: int = Field(description="Pixels, upright.")
    size: int = Field(description="Bytes.")
    format: str = Field(description="File format.", examples=["JPEG"])
    copies: list[str] = Field(description="Paths of other files of the same picture.")
    thumbnail: str = Field(description="Address of a small WebP.", examples=["/v1/photos/1/thumbnail"])
    file: str = Field(description="Address of the photo.", examples=["/v1/photos/1/file"])


class PhotoAnswer(PhotoFields):
    """What is known about a photo file."""

    folder: str = Field(description="The indexed folder that it is in.")
    modified_at: datetime.datetime = Field(description="When the file was last modified, as it was indexed.")


class ResultFields(PhotoFields):
    """A photo that was found."""

    rank: int = Field(description="1 is the best; goes on over the pages.")
    match: float | None = Field(description="Probability that photo and words match, 0 to 1; null if not reranked.")
    similarity: float = Field(description="ITC similarity to the query, -1 to 1.")


class SearchAnswer(_Schema):
    """One page of the ranking."""

    query: str | None = Field(description="The text that was searched; null if there was none.")
    took_ms: dict[str, float] = Field(
        description="Milliseconds of each stage, and of all.",
        examples=[{"encode": 4.1, "candidates": 1.2, "rerank": 151.0, "total": 156.9}],
    )
    considered: int = Field(description="Distinct pictures that the search looked at.")
    total: int = Field(description=f"Ranked pictures that can be paged through, at most {DEPTH}.")
    results: list[ResultFields] = Field(description="Best first.")


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

    stage: Stage = Field(description="What the job is at.")
    total: int = Field(description="Photos to read, unchanged ones not among them; while scanning, files seen so far.")
    done: int = Field(description="Of them: recorded, as indexed or as failed.")
    failed: int = Field(description="Of the done ones.")
    photos_per_second: float = Field(description="Over the last seconds; 0 before anything is done.")
    seconds_left: float | None = Field(description="Null as long as nothing can be said.")
    current: Printable | None = Field(description="The photo that was just recorded, or the folder being scanned.")


class SummaryAnswer(_Schema):
    """What a job did, in files."""

    added: int = Field(description="New photos, and photos that are back.")
    updated: int = Field(description="Photos whose file has another picture now.")
    moved: int = Field(description="Photos whose file has another path now.")
    unchanged: int = Field(description="Photos whose file is as it was.")
    removed: int = Field(description="Photos whose file is gone.")
    failed: int = Field(description="Files that could not be indexed, now or before.")
    embedded: int = Field(description="Pictures that the model looked at.")
    seconds: float = Field(description="How long the job took.")
    cancelled: bool = Field(description="Whether it ended before it was done.")
    notes: list[Printable] = Field(description="What else a person should know, a sentence each.")


class JobAnswer(_Schema):
    """An indexing job."""

    id: str = Field(description="What to ask for it by.")
    state: JobState = Field(description="How it is, or how it ended.")
    folders: list[Printable] = Field(description="Absolute paths, links followed.")
    started_at: datetime.datetime = Field(description="UTC.")
    finished_at: datetime.datetime | None = Field(description="UTC; null while it runs.")
    progress: ProgressAnswer | None = Field(description="The latest; null before the first.")
    summary: SummaryAnswer | None = Field(description="What it did; null while it runs, and if it failed.")
    error: Printable | None = Field(description="Why it failed; null if it did not.")

    @classmethod
    def of(cls, job: Job) -> "JobAnswer":
        return cls.model_validate(job)


class JobsAnswer(_Schema):
    """The jobs since the service started, the latest last."""

    jobs: list[JobAnswer] = Field(description="A hundred at most.")


class FacetAnswer(_Schema):
    """A value to filter by."""

    value: Printable = Field(description="As the filter takes it.")
    count: int = Field(description="Photos that have it.")


class FacetsAnswer(_Schema):
    """What the library can be filtered by."""

    folders: list[FacetAnswer] = Field(description="Every folder with photos in it or below it, by path.")
    cameras: list[FacetAnswer] = Field(description="By name.")
    formats: list[FacetAnswer] = Field(description="By name.")
    earliest: LocalTime | None = Field(description="First taken, in the camera's local time.")
    latest: LocalTime | None = Field(description="Last taken, in the camera's local time.")


class FailureAnswer(_Schema):
    """A file that could not be indexed."""

    path: Printable = Field(description="Absolute, on the service's machine.")
    reason: Printable = Field(description="Why, for people.")
    since: datetime.datetime = Field(description="When it first failed like that, UTC.")


class FailuresAnswer(_Schema):
    """Files that could not be indexed."""

    total: int = Field(description="On all pages.")
    failures: list[FailureAnswer] = Field(description="Of this page, by path.")


class IdentityAnswer(_Schema):
    """A model."""

    name: str = Field(description="Name, or path of its checkpoint.")
    revision: str = Field(description="Version of that model.")
    digest: str = Field(description="Of its weights, hexadecimal.")


class FolderAnswer(_Schema):
    """An indexed folder."""

    path: Printable = Field(description="Absolute, on the service's machine.")
    photos: int = Field(description="In it or below it.")


class ServiceAnswer(_Schema):
    """The service itself."""

    version: str = Field(description="Of PhotoSeek.")
    model_state: str = Field(description="loading, ready or failed.")
    model_error: str | None = Field(description="Why the model did not load.")
    device: str | None = Field(description="Where the model runs, once it is loaded.")


class StatusAnswer(_Schema):
    """What the library holds, and how the service is."""

    directory: Printable = Field(description="Where the library is, on the service's machine.")
    format_version: int = Field(description="Of the library's files.")
    photos: int = Field(description="Files that are there and indexed.")
    pictures: int = Field(description="Distinct pictures among them.")
    failed: int = Field(description="Files that are there and could not be indexed.")
    missing: int = Field(description="Files that were indexed and are gone.")
    folders: list[FolderAnswer] = Field(description="Every indexed folder, by path.")
    model: IdentityAnswer | None = Field(description="The model that the library is searched with.")
    vectors: int = Field(description="Vectors that a search looks at: 32 for each picture.")
    index_kind: str = Field(description="Exact or compressed, as the size of the library asks.")
    index_ram_bytes: int = Field(description="Bytes of memory that the index takes for one picture.")
    index_recall: float | None = Field(
        description="Share of the ten best pictures that searches find, as measured; null if there is no index yet."
    )
    bytes: dict[str, int] = Field(description="On disk, by part.")
    service: ServiceAnswer


class HealthAnswer(_Schema):
    """That it is so."""

    status: str = Field(default="ok", description="Always ok.")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: that these statuses carry an ErrorAnswer."""
    return {status: {"model": ErrorAnswer} for status in statuses}
