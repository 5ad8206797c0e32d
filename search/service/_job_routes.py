from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Path as PathParameter
from fastapi.sse import EventSourceResponse, ServerSentEvent

from search.service._errors import busy
from search.service._jobs import Job
from search.service._schemas import IndexRequest, JobAnswer, JobsAnswer, ProgressAnswer, errors
from search.service._service import CurrentService

router = APIRouter(prefix="/v1", tags=["indexing"])


async def _job(service: CurrentService, job_id: Annotated[str, PathParameter(max_length=64)]) -> Job:
    return service.jobs.get(job_id)


AskedJob = Annotated[Job, Depends(_job)]


async def _watched_job(service: CurrentService, asked: AskedJob) -> Job:
    if len(asked.watchers) >= service.settings.watchers:
        raise busy("Too many clients follow this job. Try again, or ask for the job itself.")
    return asked


WatchedJob = Annotated[Job, Depends(_watched_job)]


def _event(name: str, answer: type[ProgressAnswer | JobAnswer]) -> dict[str, Any]:
    """An event of that name, for OpenAPI: its data is text, as all of a stream is, and that text is JSON."""
    content = {"$ref": f"#/components/schemas/{answer.__name__}"}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    return {"properties": {"event": {"const": name}, "data": data}}


_EVENTS = {"itemSchema": {"oneOf": [_event("progress", ProgressAnswer), _event("summary", JobAnswer)]}}


@router.post("/index", status_code=202, summary="Index folders", responses=errors(400, 408, 409, 411, 413, 422))
async def index(service: CurrentService, asked: IndexRequest, response: Response) -> JobAnswer:
    """Starts a job and answers at once; the job's events tell how it goes. One job runs at a time.

    Only folders that the service allows, or that its library has already.
    """
    service.loading.get()
    job = service.jobs.start(tuple(service.folders.resolve(folder) for folder in asked.folders))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobAnswer.of(job)


@router.get("/jobs", summary="All jobs")
async def jobs(service: CurrentService) -> JobsAnswer:
    """The jobs since the service started, the latest last."""
    return JobsAnswer(jobs=[JobAnswer.of(job) for job in service.jobs.all()])


@router.get("/jobs/{job_id}", summary="How a job goes", responses=errors(404, 422))
async def job(asked: AskedJob) -> JobAnswer:
    """Its state, its progress, and its summary when it has ended."""
    return JobAnswer.of(asked)


@router.delete("/jobs/{job_id}", status_code=202, summary="Cancel a job", responses=errors(404, 422))
async def cancel(asked: AskedJob) -> JobAnswer:
    """The job ends soon; what it has indexed by then stays. A job that has ended is left as it is."""
    asked.cancelled.set()
    return JobAnswer.of(asked)


@router.get(
    "/jobs/{job_id}/events",
    summary="A job as it happens",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": _EVENTS}}, **errors(404, 422)},
)
async def events(asked: WatchedJob) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` for every step, and at last `summary`, the whole job."""
    async for progress in asked.changes():
        yield ServerSentEvent(event="progress", data=ProgressAnswer.model_validate(progress))
    yield ServerSentEvent(event="summary", data=JobAnswer.of(asked))
