import contextlib
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from search.service import _job_routes, _photo_routes, _search_routes, _system_routes
from search.service._admission import Admission
from search.service._errors import add_error_handlers
from search.service._metrics import RequestObserver
from search.service._schemas import errors
from search.service._security import Guard
from search.service._service import VERSION, Service
from search.service._settings import ServiceSettings

_DESCRIPTION = (
    'Type what you remember; get the photo. Every error has one shape: `{"error": {"code", "message"}}`. '
    "A service with a token wants it in every request: `Authorization: Bearer TOKEN`."
)


def create_app(settings: ServiceSettings) -> FastAPI:
    """The service as an ASGI application; its model starts to load when the server starts.

    Opens the library, and creates it when there is none. Raises LibraryTooNew or LibraryDamaged.
    """
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.loading.start()
        yield
        await service.close()

    # The documentation page brings its own scripts: the usual one would fetch them from the internet.
    app = FastAPIOffline(
        redoc_url=None,
        title="PhotoSeek",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        responses=errors(401, 403, 421, 500, 503),
        # For the documentation page, which asks for a token then; Guard is what checks it.
        dependencies=[Depends(HTTPBearer(auto_error=False))],
    )
    app.state.service = service
    for routes in (_search_routes, _photo_routes, _job_routes, _system_routes):
        app.include_router(routes.router)
    add_error_handlers(app)
    app.add_middleware(Admission, settings=settings)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(RequestObserver, metrics=service.metrics)  # the last is the outermost: tells of refusals too
    _document_errors_as_json(app)
    return app


def _document_errors_as_json(app: FastAPI) -> None:
    """FastAPI documents errors with the media type of the route's success, such as an image's."""
    for routes in app.openapi()["paths"].values():
        for route in routes.values():
            for status, answer in route["responses"].items():
                if status.startswith(("4", "5")):
                    answer["content"] = {"application/json": next(iter(answer["content"].values()))}
