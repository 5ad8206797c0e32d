"""The service's log: one JSON object a line, an event each.

No event holds words that were searched, a token, the name of a photo or what one shows; requests are told by route,
never by address. Errors are told by kind and place, because their messages may quote any of these.
"""

import datetime
import json
import logging
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

LogLevel = Literal["info", "warning", "error"]

_LOG = logging.getLogger("photoseek")


def log_event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Log an event with fields of JSON types; of an error, its kind and where it was raised."""
    _LOG.log(level, name, extra={"fields": fields}, exc_info=error)


def log_to_stderr(level: LogLevel) -> None:
    """Write events of that level and above to standard error, and warnings of all libraries with them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, _number(level)), force=True)
    logging.captureWarnings(True)
    _LOG.setLevel(_number(level))


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (UTC), level and event, then the fields; ``logger`` where a library speaks."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
        }
        if record.name != _LOG.name:
            line["logger"] = record.name
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line |= _told(*record.exc_info)
        return json.dumps(line, default=str)


def _told(kind: type[BaseException] | None, _: BaseException | None, trace: TracebackType | None) -> dict[str, Any]:
    if kind is None:
        return {}
    frames = traceback.extract_tb(trace)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": f"{kind.__module__}.{kind.__qualname__}", "at": places[-10:]}


def _number(level: LogLevel) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
