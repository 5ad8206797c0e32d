"""Decoder processes of searches: whatever a picture does to one, the next picture is decoded."""

import contextlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import PhotoUnreadable
from indexer.photos import decoder_memory, open_rgb, read_pixels, squash
from search.decoding import Decoding
from tests.limits import room_for_files
from tests.search.conftest import picture

PIXELS = 451 * 300
"""Of the picture of a cat."""


@pytest.fixture(scope="module")
def decoding() -> Iterator[Decoding]:
    decoding = Decoding(processes=1, max_pixels=PIXELS, seconds=60)
    yield decoding
    decoding.close()


def png(image: Image.Image) -> bytes:
    data = BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


class Garbled:
    """What fails when it is unpickled."""

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("no number",)


def garble() -> Garbled:
    return Garbled()


def fail() -> None:
    raise RuntimeError("a plugin's mistake")


def balloon() -> int:
    return len(bytearray(2**40))


def hang() -> None:
    time.sleep(600)


def remark() -> None:
    logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded: 95")


def test_an_upload_is_what_the_engine_would_make_of_it(decoding: Decoding) -> None:
    cat = picture("chelsea.png")
    assert np.array_equal(np.array(decoding.upload(png(cat), 64)), squash(cat, 64))


def test_pixels_of_an_upload_at_the_limit(decoding: Decoding) -> None:
    assert decoding.upload(png(Image.new("L", (PIXELS, 1))), 8).size == (8, 8)
    with pytest.raises(PhotoUnreadable, match=r"at most 0\.1353 megapixels"):
        decoding.upload(png(Image.new("L", (PIXELS + 1, 1))), 8)


def test_an_upload_of_another_format_is_not_looked_into(decoding: Decoding) -> None:
    with pytest.raises(PhotoUnreadable, match="not a picture in a format that PhotoSeek reads"):
        decoding.upload(b"P6 1000 1000 255 ", 8)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_says_so(decoding: Decoding, data: bytes) -> None:
    with pytest.raises(PhotoUnreadable):
        decoding.upload(data, 8)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (crash, "crashed"),
        (garble, "crashed"),
        (fail, "cannot be decoded: a plugin's mistake"),
        pytest.param(
            balloon, "memory", marks=pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
        ),
    ],
)
def test_a_picture_that_takes_its_decoder_down(decoding: Decoding, work: Callable[[], object], reason: str) -> None:
    with pytest.raises(PhotoUnreadable, match=reason):
        decoding.run(work)
    assert decoding.upload(png(picture("chelsea.png")), 8).size == (8, 8)


def test_a_picture_that_takes_too_long() -> None:
    decoding = Decoding(processes=1, max_pixels=PIXELS, seconds=0.5)
    with pytest.raises(PhotoUnreadable, match=r"longer than 0\.5 seconds"):
        decoding.run(hang)
    decoding.close()


def test_a_process_that_cannot_be_started() -> None:
    with contextlib.closing(Decoding(processes=1)) as decoding:
        with room_for_files(3), pytest.raises(PhotoUnreadable, match="cannot be started: Too many open files"):
            decoding.upload(b"", 8)
        assert decoding.upload(png(picture("chelsea.png")), 8).size == (8, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "heic"])
def test_a_photo_in_full_size(decoding: Decoding, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cat.{suffix}"
    picture("chelsea.png").save(path)
    decoded = decoding.picture(path)
    assert (decoded.mode, decoded.size) == ("RGB", (451, 300))
    assert np.array_equal(np.array(decoded), np.array(open_rgb(path)))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
def test_memory_of_several_processes() -> None:
    with contextlib.closing(Decoding(processes=64)) as decoding:
        limit, _ = decoding.run(resource.getrlimit, resource.RLIMIT_AS)
        pages = int(decoding.run(Path.read_text, Path("/proc/self/statm")).split()[0])
        assert limit - pages * resource.getpagesize() <= decoder_memory(64)


def test_a_photo_as_jpeg_and_as_thumbnail(decoding: Decoding, tmp_path: Path) -> None:
    cat = picture("chelsea.png")
    cat.save(tmp_path / "cat.png")
    jpeg = Image.open(BytesIO(decoding.jpeg(tmp_path / "cat.png")))
    assert (jpeg.format, jpeg.size) == ("JPEG", cat.size)
    assert np.abs(np.array(jpeg).astype(int) - np.array(open_rgb(tmp_path / "cat.png"))).mean() < 3
    webp = Image.open(BytesIO(decoding.thumbnail(tmp_path / "cat.png")))
    assert (webp.format, webp.size) == ("WEBP", cat.size)
    assert np.array_equal(decoding.pixels(tmp_path / "cat.png", 64), read_pixels(tmp_path / "cat.png", 64))


def test_what_a_decoder_prints_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(Decoding(processes=1)) as decoding:
        decoding.run(os.write, 2, b"TIFFReadDirectory: Warning, Unknown field with tag 37724.")
        decoding.run(remark)
    assert capfd.readouterr().err == ""
