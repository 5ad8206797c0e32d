"""Pictures that searches bring or ask for, decoded in processes of their own: none can take the searcher down."""

import contextlib
import io
import queue
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.errors import PhotoUnreadable
from indexer.photos import (
    MAX_PIXELS,
    OPENED_FORMATS,
    START_LIMIT,
    THUMBNAIL_SIDE,
    TIME_LIMIT,
    decode,
    decoder_memory,
    decoding,
    open_rgb,
    read_photo,
    read_pixels,
    set_up_decoder,
    spawn_decoder,
)


class Decoding:
    """A few decoder processes, each started with its first picture. Safe to use from several threads.

    A picture that crashes a decoder, or takes it longer than ``seconds``, costs that picture: the process is replaced.
    So does one that takes more than `decoder_memory`, on Linux. An upload may have ``max_pixels``.
    """

    def __init__(self, processes: int, max_pixels: int = MAX_PIXELS, seconds: float = TIME_LIMIT) -> None:
        self._processes = processes
        self._max_pixels = max_pixels
        # The last one back goes first: its process runs already.
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(_Decoder(seconds, decoder_memory(processes)))

    def upload(self, data: bytes, side: int) -> Image.Image:
        """The picture in an uploaded file, squashed to ``side`` pixels. Raises PhotoUnreadable."""
        image: Image.Image = self.run(_squashed, data, side, self._max_pixels)
        return image

    def picture(self, path: Path) -> Image.Image:
        """A photo in full size, upright RGB. Raises PhotoUnreadable."""
        image: Image.Image = self.run(open_rgb, path)
        return image

    def pixels(self, path: Path, side: int) -> NDArray[np.uint8]:
        """A photo as (side, side, 3) RGB, squashed. Raises PhotoUnreadable."""
        pixels: NDArray[np.uint8] = self.run(read_pixels, path, side)
        return pixels

    def jpeg(self, path: Path) -> bytes:
        """A photo in full size, as JPEG. Raises PhotoUnreadable."""
        jpeg: bytes = self.run(_jpeg, path)
        return jpeg

    def thumbnail(self, path: Path) -> bytes:
        """A photo's thumbnail, WebP. Raises PhotoUnreadable."""
        webp: bytes = self.run(_thumbnail, path)
        return webp

    def run(self, work: Callable[..., Any], *arguments: object) -> Any:
        """What a function of a module returns, called in one of the processes. Raises PhotoUnreadable."""
        decoder = self._idle.get()
        try:
            return decoder.run(work, arguments)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End the processes, after what they are decoding now."""
        for _ in range(self._processes):
            self._idle.get().end()


class _Decoder:
    """One process, used by one thread at a time."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._memory = memory
        self._running: tuple[SpawnProcess, Connection] | None = None

    def run(self, work: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
        try:
            answer = self._answer(work, arguments)
        except TimeoutError:
            self.end()
            raise PhotoUnreadable(f"decoding it took longer than {self._seconds:g} seconds and was stopped") from None
        except PhotoUnreadable:  # none could be started
            raise
        except Exception:  # the connection ended, or what came cannot be unpickled
            self.end()
            raise PhotoUnreadable("the decoder crashed on it") from None
        if isinstance(answer, PhotoUnreadable):
            raise answer
        return answer

    def end(self) -> None:
        """Kill the process; the next picture starts another."""
        if self._running is not None:
            process, connection = self._running
            process.kill()
            process.join()
            process.close()
            connection.close()
            self._running = None

    def _answer(self, work: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
        if self._running is None:
            try:
                self._running = spawn_decoder(_work, self._memory, name="photoseek-picture")
            except OSError as error:
                raise PhotoUnreadable(f"a process to decode it cannot be started: {error.strerror or error}") from error
            _receive(self._running[1], START_LIMIT)
        connection = self._running[1]
        connection.send((work, arguments))
        return _receive(connection, self._seconds)


def _receive(connection: Connection, seconds: float) -> Any:
    if not connection.poll(seconds):
        raise TimeoutError
    return connection.recv()


def _work(connection: Connection, memory: int) -> None:
    """Run as a process: for each function and its arguments received, send what it returns, or PhotoUnreadable."""
    set_up_decoder(memory)
    connection.send(None)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            work, arguments = connection.recv()
            connection.send(_outcome(work, arguments))


def _outcome(work: Callable[..., Any], arguments: tuple[object, ...]) -> Any:
    try:
        with decoding():
            return work(*arguments)
    except PhotoUnreadable as error:
        return error


def _squashed(data: bytes, side: int, max_pixels: int) -> Image.Image:
    _refuse_large(data, max_pixels)
    return Image.fromarray(decode(data, "", side, thumbnail=False).pixels)


def _refuse_large(data: bytes, max_pixels: int) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=OPENED_FORMATS) as image:
            width, height = image.size
    except Exception:  # decoding it tells what is wrong
        return
    if width * height > max_pixels:
        raise PhotoUnreadable(
            f"the picture has {width}×{height} pixels; upload one of at most {max_pixels / 10**6:g} megapixels"
        )


def _jpeg(path: Path) -> bytes:
    jpeg = io.BytesIO()
    open_rgb(path).save(jpeg, "JPEG", quality=90)
    return jpeg.getvalue()


def _thumbnail(path: Path) -> bytes:
    webp = read_photo(path, THUMBNAIL_SIDE).thumbnail
    assert webp is not None
    return webp
