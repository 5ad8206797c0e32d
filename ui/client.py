"""A client of the search service: one method a route, frozen data classes out, ``ServiceError`` when it fails."""

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from indexer.errors import ServiceError

DEFAULT_SERVICE = "http://127.0.0.1:8765"


class ServiceUnreachable(ServiceError):
    """Nothing answers at the service's address."""


class ServiceTooSlow(ServiceError):
    """The service is there, but did not answer in time."""


class ServiceWarmingUp(ServiceError):
    """The service is there and its model is still loading: ask again in a moment."""


class NotFound(ServiceError):
    """The service has no photo or job of that id, or the photo's file is gone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """What to look for. Nothing but the defaults: nothing."""

    text: str = ""
    without: tuple[str, ...] = ()
    """Texts that a photo must not show."""
    like_photo: int | None = None
    """Id of an indexed photo that results should resemble."""
    like_image: bytes | None = dataclasses.field(default=None, repr=False)
    """An image file that results should resemble."""
    folder: str | None = None
    after: datetime.date | None = None
    before: datetime.date | None = None
    """Both dates inclusive."""
    camera: str | None = None
    formats: tuple[str, ...] = ()
    min_match: float | None = None
    """Lowest ITM probability shown, 0…1."""
    top: int = 24
    offset: int = 0

    @property
    def asks(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.text or self.like_photo is not None or self.like_image)

    @property
    def filtered(self) -> bool:
        """Whether it looks at a part of the library only."""
        return any((self.folder, self.after, self.before, self.camera, self.formats))


@dataclasses.dataclass(frozen=True, slots=True)
class Photo:
    """One photo file of the library."""

    id: int
    path: str
    width: int
    height: int
    size: int
    """Bytes."""
    format: str
    taken_at: datetime.datetime | None
    camera: str | None
    latitude: float | None
    longitude: float | None
    copies: tuple[str, ...]
    """Other files of the same picture."""

    @property
    def name(self) -> str:
        """File name, whichever system the service runs on."""
        return self.path.replace("\\", "/").rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """A photo and how well it fits the search."""

    rank: int
    photo: Photo
    match: float | None
    """ITM probability 0…1; None where the matching head did not look."""
    similarity: float
    """ITC similarity −1…1."""


@dataclasses.dataclass(frozen=True, slots=True)
class Results:
    """One page of an answer."""

    results: tuple[Result, ...]
    total: int
    """Ranked photos to page through."""
    considered: int
    """Distinct pictures that passed the filters."""
    took_ms: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Facet:
    """A value to filter by, and how many photos have it."""

    value: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facets:
    """What the library can be filtered by."""

    folders: tuple[Facet, ...]
    cameras: tuple[Facet, ...]
    formats: tuple[Facet, ...]
    earliest: datetime.datetime | None
    latest: datetime.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What the library holds."""

    directory: str
    photos: int
    """Files."""
    pictures: int
    """Distinct pictures among them."""
    failed: int
    missing: int
    folders: tuple[Facet, ...]
    model: str | None
    """Name of the model that searches use."""
    index: str
    """Kind of vector index."""
    size: int
    """Bytes on disk, all parts together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be indexed."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far an indexing job is."""

    stage: str
    """"scanning", "indexing", "saving" or "done"."""
    total: int
    done: int
    failed: int
    photos_per_second: float
    seconds_left: float | None
    current: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """An indexing job of the service."""

    id: str
    state: str
    """"running", "done", "cancelled" or "failed"."""
    folders: tuple[str, ...]
    progress: Progress | None
    summary: Mapping[str, Any] | None
    error: str | None

    @property
    def running(self) -> bool:
        """Whether it still goes on."""
        return self.state == "running"


class Client:
    """Talks to one search service. Safe to use from several threads.

    ``timeout`` is how many seconds it may keep silent before it has given its answer.

    Every method raises ServiceUnreachable when nothing answers, ServiceTooSlow when the answer does not come in time,
    ServiceWarmingUp while the model loads, NotFound for an unknown id, and ServiceError for any other refusal, each
    with the service's own message. Nothing is retried.
    """

    def __init__(self, service: str = DEFAULT_SERVICE, token: str | None = None, *, timeout: float = 60) -> None:
        self.service = service.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # No proxy from the environment: the service is the user's own machine, or one they named.
        self._http = httpx.Client(
            base_url=self.service, headers=headers, timeout=httpx.Timeout(timeout, connect=3), trust_env=False
        )

    @classmethod
    def from_environment(cls) -> Self:
        """The service that PHOTOSEEK_SERVICE names, with the token of PHOTOSEEK_TOKEN."""
        return cls(os.environ.get("PHOTOSEEK_SERVICE") or DEFAULT_SERVICE, os.environ.get("PHOTOSEEK_TOKEN"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the model is loaded, so that searches are answered."""
        try:
            self._request("GET", "/readyz")
        except ServiceWarmingUp:
            return False
        return True

    def search(self, search: Search) -> Results:
        """One page of the ranking."""
        if search.like_image is None:
            document = self._json("GET", "/v1/search", params=_search_fields(search))
        else:
            document = self._json(
                "POST", "/v1/search", data=_search_fields(search), files={"image": ("photo", search.like_image)}
            )
        return _results(document)

    def photo(self, photo_id: int) -> Photo:
        """What is known about a photo."""
        return _photo(self._json("GET", f"/v1/photos/{photo_id}"))

    def thumbnail(self, photo_id: int) -> bytes:
        """A small picture, WebP."""
        return self._request("GET", f"/v1/photos/{photo_id}/thumbnail").content

    def file(self, photo_id: int) -> bytes:
        """The original file; NotFound when it is gone."""
        return self._request("GET", f"/v1/photos/{photo_id}/file").content

    def facets(self) -> Facets:
        """What the library can be filtered by."""
        return _facets(self._json("GET", "/v1/facets"))

    def status(self) -> Status:
        """What the library holds."""
        return _status(self._json("GET", "/v1/status"))

    def failures(self) -> tuple[Failure, ...]:
        """Files that could not be indexed."""
        rows = self._json("GET", "/v1/failures")["failures"]
        return tuple(Failure(row["path"], row["reason"]) for row in rows)

    def start_index(self, folder: str) -> Job:
        """Start indexing a folder of the service's machine."""
        return _job(self._json("POST", "/v1/index", json={"folders": [folder]}))

    def job(self, job_id: str) -> Job:
        """How an indexing job goes."""
        return _job(self._json("GET", f"/v1/jobs/{job_id}"))

    def jobs(self) -> tuple[Job, ...]:
        """The jobs since the service started, the latest last."""
        return tuple(_job(row) for row in self._json("GET", "/v1/jobs")["jobs"])

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; what it has indexed stays."""
        return _job(self._json("DELETE", f"/v1/jobs/{job_id}"))

    def _json(self, method: str, path: str, **content: Any) -> Any:
        response = self._request(method, path, **content)
        try:
            return response.json()
        except ValueError:
            raise ServiceError(f"What answers at {self.service} is not PhotoSeek. Check PHOTOSEEK_SERVICE.") from None

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **content)
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
            raise ServiceTooSlow(f"The service at {self.service} took too long to answer. Try again.") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ServiceUnreachable(f"No service answers at {self.service} ({error}).") from None
        if not response.is_success:
            raise _error(response)
        return response


def _error(response: httpx.Response) -> ServiceError:
    code, message = _refusal(response)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return ServiceError("The service wants another token. Set PHOTOSEEK_TOKEN to the one it was started with.")
    if response.status_code == httpx.codes.NOT_FOUND:
        return NotFound(message)
    return ServiceWarmingUp(message) if code == "model_loading" else ServiceError(message)


def _refusal(response: httpx.Response) -> tuple[str, str]:
    """Code and message of the service's error document; of our own where something else answered."""
    try:
        error = response.json()["error"]
        return error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        reason = f"{response.status_code} {response.reason_phrase}".strip()
        return "unknown", f"{response.url.host}:{response.url.port} answered with an error ({reason})."


def _search_fields(search: Search) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "q": search.text or None,
        "not": list(search.without),
        "like": search.like_photo,
        "folder": search.folder,
        "after": search.after and search.after.isoformat(),
        "before": search.before and search.before.isoformat(),
        "camera": search.camera,
        "format": list(search.formats),
        "min_match": search.min_match if search.text else None,
        "top": search.top,
        "offset": search.offset,
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _results(document: Mapping[str, Any]) -> Results:
    return Results(
        results=tuple(Result(row["rank"], _photo(row), row["match"], row["similarity"]) for row in document["results"]),
        total=document["total"],
        considered=document["considered"],
        took_ms=document["took_ms"],
    )


def _photo(row: Mapping[str, Any]) -> Photo:
    return Photo(
        id=row["id"],
        path=row["path"],
        width=row["width"],
        height=row["height"],
        size=row["size"],
        format=row["format"],
        taken_at=_moment(row["taken_at"]),
        camera=row["camera"],
        latitude=row["latitude"],
        longitude=row["longitude"],
        copies=tuple(row["copies"]),
    )


def _moment(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


def _facet_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[Facet, ...]:
    return tuple(Facet(row["value"], row["count"]) for row in rows)


def _facets(document: Mapping[str, Any]) -> Facets:
    return Facets(
        folders=_facet_rows(document["folders"]),
        cameras=_facet_rows(document["cameras"]),
        formats=_facet_rows(document["formats"]),
        earliest=_moment(document["earliest"]),
        latest=_moment(document["latest"]),
    )


def _status(document: Mapping[str, Any]) -> Status:
    model = document["model"]
    return Status(
        directory=document["directory"],
        photos=document["photos"],
        pictures=document["pictures"],
        failed=document["failed"],
        missing=document["missing"],
        folders=tuple(Facet(row["path"], row["photos"]) for row in document["folders"]),
        model=None if model is None else model["name"],
        index=document["index_kind"],
        size=sum(document["bytes"].values()),
    )


def _job(document: Mapping[str, Any]) -> Job:
    progress = document["progress"]
    return Job(
        id=document["id"],
        state=document["state"],
        folders=tuple(document["folders"]),
        progress=None if progress is None else Progress(**progress),
        summary=document["summary"],
        error=document["error"],
    )
