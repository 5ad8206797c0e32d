"""Decoder processes that crash, hang, or are told to go."""

import hashlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from PIL import Image

from indexer.errors import PhotoSeekError
from indexer.photos import (
    Broken,
    Decoded,
    DecodedPhoto,
    DecoderPool,
    Failed,
    Hashed,
    Vanished,
    decoder_memory,
    read_photo,
)
from indexer.photos._memory import LEAST, MOST, usable_memory
from indexer.photos._worker import MOST_AHEAD, Later, Read, Step, work
from tests.indexer.photos.pictures import quadrants, save
from tests.limits import room_for_files

Events = queue.SimpleQueue[object]


@pytest.fixture
def events() -> Events:
    return queue.SimpleQueue()


@pytest.fixture
def pool(events: Events) -> Iterator[DecoderPool]:
    with DecoderPool(1, 32, events) as pool:
        yield pool


def children() -> list[psutil.Process]:
    """The decoder processes of this one, among the servers and the browser that other tests keep running."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def gibberish(connection: Connection, _image_size: int, _memory_limit: int) -> None:
    """A decoder whose memory was overwritten."""
    connection.send(None)
    connection.recv()
    connection.send_bytes(b"no pickle")
    connection.recv()


def next_hashed(events: Events) -> Hashed:
    event = events.get(timeout=60)
    assert isinstance(event, Hashed), event
    return event


def outcomes(events: Events, count: int, said: int = 0) -> dict[int, object]:
    """What becomes of so many photos, by key, when every one that is hashed is wanted; ``said`` were hashed before."""
    told: dict[int, object] = {}
    hashed: list[int] = []
    while len(told) < count:
        event = events.get(timeout=60)
        if isinstance(event, Hashed):
            hashed.append(event.key)
            event.answer(True)
        else:
            assert isinstance(event, Decoded | Failed | Vanished), event
            assert event.key not in told
            told[event.key] = event
    assert len(hashed) == len(set(hashed)) <= count - said
    return told


def test_what_is_hashed_is_what_is_decoded(pool: DecoderPool, events: Events, tmp_path: Path) -> None:
    path = save(quadrants(), tmp_path / "a.jpg")
    expected = read_photo(path, 32)
    digest, state = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(), path.stat()
    pool.submit(7, path)
    hashed = next_hashed(events)
    save(Image.new("RGB", (50, 50)), path)
    hashed.answer(True)
    decoded = events.get(timeout=60)
    assert (hashed.key, hashed.digest) == (7, digest)
    assert (hashed.size, hashed.mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert isinstance(decoded, Decoded)
    assert decoded.key == 7
    assert decoded.photo.facts == expected.facts
    assert (decoded.photo.pixels == expected.pixels).all()
    assert decoded.photo.thumbnail == expected.thumbnail


def test_an_unwanted_picture_is_not_decoded(pool: DecoderPool, events: Events, tmp_path: Path) -> None:
    for key in (1, 2):
        pool.submit(key, save(quadrants(), tmp_path / f"{key}.png"))
    next_hashed(events).answer(False)
    second = next_hashed(events)
    assert second.key == 2
    second.answer(False)


@pytest.mark.timeout(60)
def test_what_is_not_there_or_not_a_photo(pool: DecoderPool, events: Events, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "text.jpg").write_text("Not a picture.")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 2 << 30)
    for key, name in enumerate(["none.jpg", "fifo.jpg", "huge.jpg", "text.jpg"]):
        pool.submit(key, tmp_path / name)
    assert events.get(timeout=60) == Vanished(0)
    assert events.get(timeout=60) == Failed(1, "not a regular file")
    huge = events.get(timeout=60)
    assert isinstance(huge, Failed)
    assert "2,147,483,648 bytes" in huge.reason
    next_hashed(events).answer(True)
    assert events.get(timeout=60) == Failed(3, "not a picture in a format that PhotoSeek reads")


def test_what_nobody_thought_of_costs_one_photo(
    events: Events, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with DecoderPool(1, 0, events) as pool:  # no picture can be squashed to nothing
        pool.submit(0, tmp_path / "a\0.png")
        assert events.get(timeout=60) == Failed(0, "cannot be read: embedded null byte")
        (process,) = children()
        pool.submit(1, save(quadrants(), tmp_path / "1.png"))
        next_hashed(events).answer(True)
        assert events.get(timeout=60) == Failed(1, "cannot be decoded: height and width must be > 0")
        assert children() == [process]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("death", "reason"),
    [(signal.SIGSEGV, "the decoder crashed on it (SIGSEGV)"), (signal.SIGKILL, "the machine may be out of memory")],
)
def test_a_crash_costs_one_photo(
    pool: DecoderPool, events: Events, tmp_path: Path, death: signal.Signals, reason: str
) -> None:
    for key in range(3):
        pool.submit(key, save(quadrants(), tmp_path / f"{key}.png"))
    hashed = next_hashed(events)
    (process,) = children()
    process.send_signal(death)
    hashed.answer(True)
    failed = events.get(timeout=60)
    assert isinstance(failed, Failed)
    assert failed.key == 0
    assert reason in failed.reason
    assert [type(event) for _, event in sorted(outcomes(events, 2).items())] == [Decoded, Decoded]


@pytest.mark.parametrize("changed", [False, True])
def test_a_crash_does_not_cost_the_photo_that_was_read_ahead(
    pool: DecoderPool, events: Events, tmp_path: Path, changed: bool
) -> None:
    pool.submit(0, save(Image.new("L", (12_000, 9_000)), tmp_path / "0.png"))
    pool.submit(1, save(quadrants(), tmp_path / "1.png"))
    next_hashed(events).answer(True)
    ahead = next_hashed(events)  # while the first is decoded
    if changed:
        save(Image.new("RGB", (50, 50)), tmp_path / "1.png")
    children()[0].kill()
    ahead.answer(True)
    told = outcomes(events, 2, said=2)
    assert isinstance(told[0], Failed)
    if changed:
        assert told[1] == Failed(1, "the file changed while it was indexed; it is read again in the next run")
    else:
        assert isinstance(told[1], Decoded)
        assert told[1].photo.facts.width == quadrants().width


def test_a_hang_costs_one_photo(events: Events, tmp_path: Path) -> None:
    with DecoderPool(1, 32, events, time_limit=3.0) as pool:
        pool.submit(0, save(quadrants(), tmp_path / "0.png"))
        hashed = next_hashed(events)
        (process,) = children()
        process.suspend()
        hashed.answer(True)
        assert events.get(timeout=60) == Failed(0, "reading it took longer than 3 seconds and was stopped")
        assert not process.is_running()
        pool.submit(1, save(quadrants(), tmp_path / "1.png"))
        next_hashed(events).answer(True)
        assert isinstance(events.get(timeout=60), Decoded)


def test_a_hang_of_the_disk_costs_the_photo_that_is_read(events: Events, tmp_path: Path) -> None:
    with DecoderPool(1, 32, events, time_limit=3.0) as pool:
        pool.submit(0, save(quadrants(), tmp_path / "0.png"))
        hashed = next_hashed(events)
        pool.submit(1, save(quadrants(), tmp_path / "1.png"))
        children()[0].suspend()
        hashed.answer(True)
        told = outcomes(events, 2, said=1)
    assert told[1] == Failed(1, "reading it took longer than 3 seconds and was stopped")
    assert isinstance(told[0], Decoded)


def test_a_large_file_is_not_read_beside_another(tmp_path: Path) -> None:
    small, large = (str(save(quadrants(*size), tmp_path / f"{size[0]}.bmp")) for size in ((60, 40), (4000, 3000)))
    assert Path(large).stat().st_size > MOST_AHEAD
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, 32, 1 << 30))
    process.start()
    theirs.close()
    answers: list[type] = []
    with ours:
        assert ours.recv() is None
        for step, count in (
            (Step(False, small), 1),
            (Step(True, large), 2),
            (Step(False, large), 1),
            (Step(True, small), 2),
            (Step(False, small), 1),
        ):
            ours.send(step)
            answers += [type(ours.recv()) for _ in range(count)]
    process.join(60)
    assert process.exitcode == 0
    assert answers == [Read, Later, DecodedPhoto, Read, Read, DecodedPhoto, Read]


def test_more_processes_join(events: Events, tmp_path: Path) -> None:
    with DecoderPool(1, 32, events) as pool:
        pool.submit(0, save(quadrants(), tmp_path / "0.png"))
        next_hashed(events)  # and let it wait
        pool.grow(2)
        pool.grow(1)
        pool.submit(1, tmp_path / "0.png")
        assert next_hashed(events).key == 1
        assert len(children()) == 2
    assert not children()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit that holds")
def test_a_file_that_balloons_costs_one_photo(events: Events, tmp_path: Path) -> None:
    with DecoderPool(1, 32, events, memory_limit=200 << 20) as pool:
        for key, side in enumerate((100, 12_000, 200)):  # the second: 18 KB on disk, 600 MB as colours
            pool.submit(key, save(Image.new("1", (side, side)), tmp_path / f"{key}.png"))
        told = outcomes(events, 3)
        (process,) = children()
        assert process.memory_info().rss < 600 << 20
    assert told[1] == Failed(1, "not enough memory to decode the picture")
    assert [type(told[key]) for key in range(3)] == [Decoded, Failed, Decoded]


@pytest.mark.parametrize("spare", [0, 2, 4])
def test_a_process_that_cannot_be_started_is_told(
    pool: DecoderPool, events: Events, tmp_path: Path, spare: int
) -> None:
    photo = save(quadrants(), tmp_path / "0.png")
    with room_for_files(spare):
        pool.submit(0, photo)
        broken = events.get(timeout=60)
    assert isinstance(broken, Broken)
    assert isinstance(broken.error, PhotoSeekError)
    assert "a decoder process cannot be started: Too many open files" in str(broken.error)


def test_an_answer_that_cannot_be_read_costs_one_photo(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DecoderPool(1, 32, events) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("indexer.photos._pool.work", gibberish)
            pool.submit(0, save(quadrants(), tmp_path / "0.png"))
            assert events.get(timeout=60) == Failed(0, "the decoder's answer cannot be read")
        pool.submit(1, tmp_path / "0.png")
        next_hashed(events).answer(True)
        assert isinstance(events.get(timeout=60), Decoded)


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_memory_of_all_decoders(workers: int) -> None:
    each = decoder_memory(workers)
    assert LEAST <= each <= MOST
    assert each == LEAST or each * workers <= usable_memory() // 2
    assert each == MOST or each * workers > usable_memory() // 2 - workers


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit that holds")
def test_one_of_many_decoders_reads_100_megapixels(events: Events, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("LA", (12_500, 8_000), (1, 2)).save(path, compress_level=1)  # a mode that takes many copies
    with DecoderPool(64, 32, events) as pool:
        pool.submit(0, path)
        next_hashed(events).answer(True)
        assert isinstance(events.get(timeout=120), Decoded)
        (process,) = children()
        limit, _ = process.rlimit(psutil.RLIMIT_AS)
        assert limit - process.memory_info().vms <= decoder_memory(64) + MOST_AHEAD


@pytest.mark.timeout(60)
def test_closing_ends_every_process_whatever_it_is_doing(events: Events, tmp_path: Path) -> None:
    with DecoderPool(3, 32, events) as pool:
        for key in range(6):
            pool.submit(key, save(Image.new("L", (6000, 4000)), tmp_path / f"{key}.png"))
        next_hashed(events).answer(True)
        next_hashed(events)  # and let it wait
        assert children()
    assert not children()
    assert not [thread for thread in threading.enumerate() if thread.name == "photoseek-decoder"]


def test_a_file_that_grows_while_it_is_read_is_taken_at_one_moment(
    pool: DecoderPool, events: Events, tmp_path: Path
) -> None:
    path, piece = tmp_path / "a.png", os.urandom(200_000)
    stop = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set() and file.tell() < 50_000_000:
                file.write(piece)
                stop.wait(0.002)

    path.touch()
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for key in range(10):
            pool.submit(key, path)
            event = events.get(timeout=60)
            if isinstance(event, Hashed):
                event.answer(False)
                then = path.read_bytes()[: event.size]
                assert event.digest == hashlib.blake2b(then, digest_size=16).hexdigest()
            else:
                assert isinstance(event, Failed)
                assert "kept changing" in event.reason
    finally:
        stop.set()
        writer.join()
