"""Decoder processes as the pipeline sees them: paths in, events out, and no photo can take the run down.

Each process has a thread here that talks to it, and reads the next file before it decodes one: so it need not wait
until somebody has found out whether the next is wanted. A process that crashes or hangs is replaced, at the cost of the
one photo it was busy with.
"""

import contextlib
import dataclasses
import queue
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from indexer.errors import PhotoSeekError
from indexer.photos._decode import DecodedPhoto
from indexer.photos._memory import decoder_memory
from indexer.photos._process import START_LIMIT, spawn_decoder
from indexer.photos._worker import Gone, Later, Read, Step, Unreadable, work
from indexer.profile import Stopwatch

TIME_LIMIT = 60.0
"""Seconds for reading, and again for decoding, one photo. The slowest honest ones (large RAW) take a few."""
_TICK = 0.1
_CHANGED = "the file changed while it was indexed; it is read again in the next run"


@dataclasses.dataclass(frozen=True, slots=True)
class Hashed:
    """A file was read. It is kept until `answer` is called; its decoder may wait for that."""

    key: int
    digest: str
    """Of the file's bytes, hexadecimal."""
    size: int
    mtime_ns: int
    _answers: "queue.SimpleQueue[bool]" = dataclasses.field(repr=False)

    def answer(self, wanted: bool) -> None:
        """Say whether the picture is wanted: then `Decoded` or `Failed` follows, else nothing more of this file."""
        self._answers.put(wanted)


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, after `Hashed`."""

    key: int
    photo: DecodedPhoto


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A file that cannot be read (instead of `Hashed`) or decoded (after it)."""

    key: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Vanished:
    """A file that is no longer there (instead of `Hashed`)."""

    key: int


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """Nothing more is decoded: no decoder process can be started, or its thread failed."""

    error: Exception


DecoderEvent = Hashed | Decoded | Failed | Vanished | Broken


class DecoderPool:
    """Decoder processes. Leave it as a context manager: the processes are gone then, whatever they were doing."""

    def __init__(
        self,
        workers: int,
        image_size: int,
        events: "queue.SimpleQueue[object]",
        time_limit: float = TIME_LIMIT,
        memory_limit: int | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Start ``workers`` threads, each of which starts its process with its first photo.

        Photos are squashed to ``image_size`` pixels; every `DecoderEvent` is put into ``events``; ``time_limit`` is
        seconds for reading, and again for decoding, one photo; ``memory_limit`` is bytes for both, on Linux only
        (`decoder_memory`).
        """
        self._tasks: queue.SimpleQueue[_Photo] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._limits = _Limits(time_limit, memory_limit or decoder_memory(workers))
        self._outside = events, image_size, stopwatch or Stopwatch()
        self._decoders: list[_Decoder] = []
        self.grow(workers)

    def grow(self, workers: int) -> None:
        """Have at least so many processes, each with as much memory as those before."""
        added = [
            _Decoder(self._tasks, *self._outside, self._limits, self._closing)
            for _ in range(workers - len(self._decoders))
        ]
        self._decoders += added
        for decoder in added:
            decoder.start()

    def submit(self, key: int, path: Path) -> None:
        """Read a file; the events of it carry the key."""
        self._tasks.put(_Photo(key, path))

    def close(self) -> None:
        """End every process at once, and wait until they are gone."""
        self._closing.set()
        for decoder in self._decoders:
            decoder.kill()
        for decoder in self._decoders:
            decoder.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclasses.dataclass(frozen=True, slots=True)
class _Limits:
    seconds: float
    memory: int


@dataclasses.dataclass(slots=True)
class _Photo:
    key: int
    path: Path
    digest: str | None = None
    """Once `Hashed` has been told."""
    answers: "queue.SimpleQueue[bool]" = dataclasses.field(default_factory=queue.SimpleQueue)


class _CannotStartError(PhotoSeekError):
    pass


class _DiedError(Exception):
    """The process crashed; the message is the reason for a person."""


class _HungError(_DiedError):
    """The process took too long, and was stopped."""


class _Decoder(threading.Thread):
    """The thread of one process."""

    def __init__(
        self,
        tasks: "queue.SimpleQueue[_Photo]",
        events: "queue.SimpleQueue[object]",
        image_size: int,
        stopwatch: Stopwatch,
        limits: _Limits,
        closing: threading.Event,
    ) -> None:
        super().__init__(name="photoseek-decoder", daemon=True)
        self._tasks = tasks
        self._events = events
        self._image_size = image_size
        self._limits = limits
        self._stopwatch = stopwatch
        self._closing = closing
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._starting = threading.Lock()
        self._held: _Photo | None = None
        """The one that the process has read."""
        self._first: _Photo | None = None
        """One that must be read before any other: again, or now that there is room for it."""

    def run(self) -> None:
        try:
            while not self._closing.is_set():
                held, self._held = self._held, None
                wanted = held if held is not None and self._answer(held.answers) else None
                then = self._next(wait=wanted is None)
                if wanted is not None or then is not None:
                    self._step(wanted, then)
        except Exception as error:  # whatever it is must be told: the run waits for this thread
            if not self._closing.is_set():
                self._events.put(Broken(error))
        finally:
            self._discard()

    def kill(self) -> None:
        """End the process from another thread; ours notices. None is started once `closing` is set."""
        with self._starting:
            if self._process is not None and self._process.is_alive():
                self._process.kill()

    def _answer(self, answers: "queue.SimpleQueue[bool]") -> bool:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=_TICK)
        return False

    def _next(self, wait: bool) -> _Photo | None:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return self._tasks.get(timeout=_TICK) if wait else self._tasks.get_nowait()
        except queue.Empty:
            return None

    def _step(self, wanted: _Photo | None, then: _Photo | None) -> None:
        """Decode the photo that was read, and before that read another."""
        unread = then
        with self._stopwatch.timed("decoders", "start"):
            connection = self._connected()
        try:
            self._tell(connection, Step(wanted is not None, None if then is None else str(then.path)))
            if then is not None:
                with self._stopwatch.timed("decoders", "read and digest"):
                    answer = self._receive(connection)
                unread = None
                self._told_of_file(then, answer)
            if wanted is not None:
                with self._stopwatch.timed("decoders", "decode"):
                    answer = self._receive(connection)
                self._told_of_picture(wanted, answer)
        except _DiedError as error:
            # Reading a file can hang, but crashes nothing.
            if wanted is not None and (unread is None or not isinstance(error, _HungError)):
                self._replace(wanted, unread or self._held, str(error))
            else:
                self._replace(unread, wanted, str(error))
                if wanted is not None:
                    wanted.answers.put(True)  # as it was

    def _told_of_file(self, photo: _Photo, answer: object) -> None:
        match answer:
            case Read(digest, size, mtime_ns) if photo.digest is None:
                photo.digest, self._held = digest, photo
                self._events.put(Hashed(photo.key, digest, size, mtime_ns, photo.answers))
            case Read(digest) if digest == photo.digest:
                self._held = photo
            case Read() | Gone() if photo.digest is not None:
                self._events.put(Failed(photo.key, _CHANGED))
            case Gone():
                self._events.put(Vanished(photo.key))
            case Unreadable(reason):
                self._events.put(Failed(photo.key, reason))
            case Later():
                self._first = photo

    def _told_of_picture(self, photo: _Photo, answer: object) -> None:
        match answer:
            case DecodedPhoto():
                self._events.put(Decoded(photo.key, answer))
            case Unreadable(reason):
                self._events.put(Failed(photo.key, reason))

    def _replace(self, guilty: _Photo | None, innocent: _Photo | None, reason: str) -> None:
        """End the process, at the cost of one photo; another that it had, or was to have, is read again."""
        self._discard()
        if self._closing.is_set() or guilty is None:
            return
        self._events.put(Failed(guilty.key, reason))
        if innocent is not None:
            self._held, self._first = None, innocent

    def _tell(self, connection: Connection, step: Step) -> None:
        try:
            connection.send(step)
        except OSError:  # it died while it waited
            raise _DiedError(self._cause_of_death()) from None

    def _receive(self, connection: Connection) -> object:
        try:
            if connection.poll(self._limits.seconds):
                return connection.recv()
        except Exception:  # the connection ended, or what came cannot be unpickled
            raise _DiedError(self._cause_of_death()) from None
        raise _HungError(f"reading it took longer than {self._limits.seconds:g} seconds and was stopped")

    def _connected(self) -> Connection:
        if self._connection is None:
            with self._starting:
                if self._closing.is_set():
                    raise _CannotStartError("closing")
                self._start()
            assert self._connection is not None
            self._expect_ready(self._connection)
        return self._connection

    def _start(self) -> None:
        try:
            self._process, self._connection = spawn_decoder(
                work, self._image_size, self._limits.memory, name="photoseek-decoder"
            )
        except OSError as error:
            raise _CannotStartError(
                f"a decoder process cannot be started: {error.strerror or error}. Close what else is open, or raise "
                "the limit, and index again: it goes on where it stopped."
            ) from error

    def _expect_ready(self, connection: Connection) -> None:
        try:
            if connection.poll(START_LIMIT):
                connection.recv()
                return
        except (EOFError, OSError):
            pass
        raise _CannotStartError("a decoder process ended as soon as it was started; its message is on standard error")

    def _cause_of_death(self) -> str:
        assert self._process is not None
        self._process.join(timeout=1.0)
        code = self._process.exitcode
        if code is None:
            return "the decoder's answer cannot be read"
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the machine may be out of memory" if -code == signal.SIGKILL else ""
            return f"the decoder crashed on it ({name}{hint})"
        return f"the decoder crashed on it (exit status {code})"

    def _discard(self) -> None:
        with self._starting:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._process.close()
            if self._connection is not None:
                self._connection.close()
            self._process = self._connection = None
