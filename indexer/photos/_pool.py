"""Decoder processes as the pipeline sees them: paths in, events out, and no photo can take the run down.

Each process has a thread here that talks to it. A process that crashes or hangs is replaced, at the cost of the one
photo it was reading.
"""

import contextlib
import dataclasses
import multiprocessing
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
from indexer.photos._worker import Gone, Read, Unreadable, work
from indexer.profile import Stopwatch

TIME_LIMIT = 60.0
"""Seconds for reading, and again for decoding, one photo. The slowest honest ones (large RAW) take a few."""
_START_LIMIT = 120.0
_TICK = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Hashed:
    """A file was read. Its decoder waits until `answer` is called."""

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
        limits = _Limits(time_limit, memory_limit or decoder_memory(workers))
        self._tasks: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()
        self._closing = threading.Event()
        watch = stopwatch or Stopwatch()
        self._decoders = [
            _Decoder(self._tasks, events, image_size, limits, watch, self._closing) for _ in range(workers)
        ]
        for decoder in self._decoders:
            decoder.start()

    def submit(self, key: int, path: Path) -> None:
        """Read a file; the events of it carry the key."""
        self._tasks.put((key, path))

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


class _CannotStartError(PhotoSeekError):
    pass


class _DiedError(Exception):
    """The process crashed, or was stopped because it hung; the message is the reason for a person."""


class _Decoder(threading.Thread):
    """The thread of one process."""

    def __init__(
        self,
        tasks: "queue.SimpleQueue[tuple[int, Path]]",
        events: "queue.SimpleQueue[object]",
        image_size: int,
        limits: _Limits,
        stopwatch: Stopwatch,
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

    def run(self) -> None:
        try:
            while not self._closing.is_set():
                with contextlib.suppress(queue.Empty):
                    self._read(*self._tasks.get(timeout=_TICK))
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

    def _read(self, key: int, path: Path) -> None:
        with self._stopwatch.timed("decoders", "start"):
            connection = self._connected()
        try:
            self._converse(connection, key, path)
        except _DiedError as error:
            self._discard()
            if not self._closing.is_set():
                self._events.put(Failed(key, str(error)))

    def _converse(self, connection: Connection, key: int, path: Path) -> None:
        with self._stopwatch.timed("decoders", "read and digest"):
            answer = self._ask(connection, str(path))
        match answer:
            case Read(digest, size, mtime_ns):
                answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
                self._events.put(Hashed(key, digest, size, mtime_ns, answers))
                wanted = self._answer(answers)
            case Gone():
                return self._events.put(Vanished(key))
            case Unreadable(reason):
                return self._events.put(Failed(key, reason))
        if not wanted:
            return self._decline(connection)
        with self._stopwatch.timed("decoders", "decode"):
            answer = self._ask(connection, True)
        match answer:
            case DecodedPhoto() as photo:
                self._events.put(Decoded(key, photo))
            case Unreadable(reason):
                self._events.put(Failed(key, reason))
        return None

    def _answer(self, answers: "queue.SimpleQueue[bool]") -> bool:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=_TICK)
        return False

    def _decline(self, connection: Connection) -> None:
        try:
            connection.send(False)
        except OSError:  # it died while it waited, which costs nothing; the next file gets a new one
            self._discard()

    def _ask(self, connection: Connection, message: object) -> object:
        try:
            connection.send(message)
            if connection.poll(self._limits.seconds):
                return connection.recv()
        except Exception:  # the connection ended, or what came cannot be unpickled
            raise _DiedError(self._cause_of_death()) from None
        raise _DiedError(f"reading it took longer than {self._limits.seconds:g} seconds and was stopped")

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
        context = multiprocessing.get_context("spawn")  # never fork: torch and FAISS have threads in this process
        try:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work,
                args=(theirs, self._image_size, self._limits.memory),
                name="photoseek-decoder",
                daemon=True,
            )
            with theirs:
                process.start()
        except OSError as error:
            raise _CannotStartError(
                f"a decoder process cannot be started: {error.strerror or error}. Close what else is open, or raise "
                "the limit, and index again: it goes on where it stopped."
            ) from error
        self._connection, self._process = ours, process

    def _expect_ready(self, connection: Connection) -> None:
        try:
            if connection.poll(_START_LIMIT):
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
