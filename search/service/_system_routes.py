from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from search.service._schemas import (
    FacetsAnswer,
    FailuresAnswer,
    HealthAnswer,
    ServiceAnswer,
    StatusAnswer,
    errors,
)
from search.service._service import VERSION, CurrentService

router = APIRouter(tags=["system"])


@router.get("/v1/status", summary="What the library holds")
def status(service: CurrentService) -> StatusAnswer:
    """Counts and sizes, the model the library is searched with, and how the service is."""
    library = service.library.status()
    loading = service.loading
    own = ServiceAnswer(version=VERSION, model_state=loading.state, model_error=loading.error, device=loading.device)
    fields = {name: getattr(library, name) for name in StatusAnswer.model_fields if name != "service"}
    return StatusAnswer.model_validate({**fields, "service": own})


@router.get("/v1/facets", summary="What to filter by")
def facets(service: CurrentService) -> FacetsAnswer:
    """The library's folders, cameras and formats with counts, and the span of its dates."""
    return FacetsAnswer.model_validate(service.library.facets())


@router.get("/v1/failures", summary="Files that could not be indexed", responses=errors(422))
def failures(
    service: CurrentService,
    top: Annotated[int, Query(ge=1, le=1000, description="Failures of one page.")] = 1000,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Failures to skip.")] = 0,
) -> FailuresAnswer:
    """Each with its reason. A file is tried again when it changes."""
    found = service.library.failures()
    return FailuresAnswer.model_validate({"total": len(found), "failures": found[offset : offset + top]})


@router.get("/healthz", summary="Whether the service runs")
async def healthz() -> HealthAnswer:
    """Answers at once, also while the model loads or searches run."""
    return HealthAnswer()


@router.get("/readyz", summary="Whether searches are answered", responses=errors(503))
async def readyz(service: CurrentService) -> HealthAnswer:
    """503 until the model is loaded."""
    service.loading.get()
    return HealthAnswer()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(service: CurrentService) -> PlainTextResponse:
    """Requests by route and status; histograms of each stage of a search."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")
