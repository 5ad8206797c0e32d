"""The service's log: one JSON object a line, an event each; written by a thread, so that no request waits for it.

No event holds words that were searched, a token, the name of a photo or what one shows; requests are told by route,
never by address. Errors are told by kind and place, because their messages may quote any of these.
"""

import contextlib
import datetime
import json
import logging
import os
import queue
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

LogLevel = Literal["info", "warning", "error"]

_LOG = logging.getLogger("photoseek")
_STDERR = 2
_KEPT_LINES = 10_000
"""Lines that may wait to be written; what exceeds them is counted, and left out."""
_LAST_WORDS_S = 2.0
"""How long the last lines may take to queue, and to write: who does not read the log keeps no service from ending."""


def log_event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Log an event with fields of JSON types; of an error, its kind and where it was raised."""
    _LOG.log(level, name, extra={"fields": fields}, exc_info=error)


@contextlib.contextmanager
def logging_to_stderr(level: LogLevel) -> Iterator[None]:
    """Write events of that level and above to standard error, and warnings of all libraries with them."""
    lines = LineWriter(_STDERR, _KEPT_LINES)
    lines.setFormatter(JsonLines())
    logging.basicConfig(handlers=[lines], level=max(logging.WARNING, _number(level)), force=True)
    logging.captureWarnings(True)
    _LOG.setLevel(_number(level))
    try:
        yield
    finally:
        lines.finish(_LAST_WORDS_S)


class LineWriter(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own: a pipe that nobody reads holds up only that.

    Not a `logging.handlers.QueueListener`: that waits for its last line without end, and so does the interpreter at its
    own end for a stream, or a handler's lock, that a blocked thread holds.
    """

    def __init__(self, descriptor: int, most: int) -> None:
        """Lines beyond ``most`` that wait are dropped; the log tells how many, once there is room again."""
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(most)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line; never wait."""
        try:
            if self._dropped:
                self._lines.put_nowait(self.format(_dropped(self._dropped)))
                self._dropped = 0
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def finish(self, seconds: float) -> None:
        """Write what waits, as far as it is taken in that time."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=seconds)
        self._thread.join(seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            data = f"{line}\n".encode()
            with contextlib.suppress(OSError):  # closed at the other end
                while data:
                    data = data[os.write(self._descriptor, data) :]


def _dropped(count: int) -> logging.LogRecord:
    fields = {"fields": {"lines": count}}
    return _LOG.makeRecord(_LOG.name, logging.WARNING, __file__, 0, "log not read", (), None, extra=fields)


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
