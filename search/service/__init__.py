"""The search service: the query engine and the library over HTTP."""

from search.service._app import create_app
from search.service._server import serve
from search.service._settings import DEFAULT_PORT, ServiceSettings

__all__ = ["DEFAULT_PORT", "ServiceSettings", "create_app", "serve"]
