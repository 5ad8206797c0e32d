"""What the real command and service do when a disk, a library or a photo is not there, full, locked or forbidden."""

import contextlib
import functools
import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from indexer.library import Library
from scripts.faults.corpus import write_corpus
from search.service import ServiceSettings
from tests.command import photoseek
from tests.disks import leave_room, remount
from tests.search.service.conftest import running


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos, half of them in a folder that may be another disk."""
    for n in range(10):
        path = tmp_path / "photos" / ("disk" if n < 5 else "here") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(n).integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return tmp_path / "photos"


def job_of(client: httpx.Client, folder: Path) -> dict[str, Any]:
    """An indexing job that has ended."""
    started = client.post("/v1/index", json={"folders": [str(folder)]}).json()
    client.get(f"/v1/jobs/{started['id']}/events")
    ended: dict[str, Any] = client.get(f"/v1/jobs/{started['id']}").json()
    return ended


def states(folder: Path) -> dict[Path, tuple[object, ...]]:
    """All about every file and folder, but when a folder was last listed; the time of change shows a changed mode."""
    found: dict[Path, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        state = path.lstat()
        content, times = None, [state.st_mtime_ns, state.st_ctime_ns]
        if stat.S_ISREG(state.st_mode):
            times.append(state.st_atime_ns)
            if os.access(path, os.R_OK):
                with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as file:  # noqa: PTH123  a descriptor
                    content = file.read()
        found[path] = (content, state.st_ino, state.st_mode, state.st_nlink, state.st_size, times)
    return found


def test_no_original_changes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_corpus(folder, 100, seed=3)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (0, path.stat().st_mtime))  # of one read lately, many disks would not record another reading
    before = states(folder)
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", allowed_folders=(folder,))
    with running(settings) as client:
        for _ in range(2):
            job = job_of(client, folder)
        assert job["summary"]["unchanged"] > 30
        results = client.get("/v1/search", params={"q": "a photo", "top": 100}).json()["results"]
        assert len(results) > 20
        for result in results[:10]:
            assert client.get(result["thumbnail"]).is_success
            assert client.get(result["file"]).is_success
            assert client.get(result["file"], params={"original": True}).is_success
    with Library.open(tmp_path / "library") as library:
        assert library.verify(repair=True).ok
    assert states(folder) == before


def test_a_disk_that_is_not_mounted_empties_nothing_until_told_so(photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"

    def present() -> str:
        facts = dict(line.split("\t") for line in photoseek("status", library=library).stdout.splitlines())
        return facts["Photos"]

    photoseek("index", photos, library=library)
    shutil.move(photos / "disk", tmp_path / "disk")
    (photos / "disk").mkdir()
    run = photoseek("index", photos, library=library)
    assert "0 removed" in run.stdout
    assert f"5 of 10 photos in {photos} are not there" in run.stderr
    assert "photoseek index --prune" in run.stderr
    assert present() == "10"

    with running(ServiceSettings(library=library, device="cpu")) as client:
        summary = job_of(client, photos)["summary"]
        assert (summary["removed"], summary["unchanged"]) == (0, 5)
        assert [f"5 of 10 photos in {photos} are not there" in note for note in summary["notes"]] == [True]

        shutil.move(photos, tmp_path / "gone")
        summary = job_of(client, photos)["summary"]
        assert summary["removed"] == 0
        assert [f"{photos} is gone or empty, like a disk" in note for note in summary["notes"]] == [True]
        assert len(client.get("/v1/search", params={"q": "a photo"}).json()["results"]) == 10
        shutil.move(tmp_path / "gone", photos)

    summary = json.loads(photoseek("index", "--prune", "--json", photos, library=library).stdout)
    assert (summary["removed"], summary["notes"]) == (5, [])
    assert present() == "5"
    assert "exclude each other" in photoseek("index", "--prune", "--watch", photos, library=library, code=2).stderr


def one_line(stderr: str) -> str:
    """The error that a command ended with, after what it told of its progress."""
    (line,) = (line for line in stderr.splitlines() if line.startswith("photoseek: "))
    assert stderr.endswith(f"{line}\n")
    return line


def test_a_disk_that_is_full_and_then_read_only(photos: Path, disk: Path) -> None:
    library = disk / "library"
    Library.create(library).close()
    leave_room(disk, 150_000)
    assert f"The disk that holds {library}" in one_line(photoseek("index", photos, library=library, code=1).stderr)
    remount(disk, "size=50m")
    assert "0 failed" in photoseek("index", photos, library=library).stdout
    photoseek("verify", library=library)

    shutil.rmtree(library / "features")
    remount(disk, "ro")
    refused = photoseek("index", photos, library=library, code=1)
    assert "cannot be written to: Read-only file system" in one_line(refused.stderr)
    assert len(photoseek("search", "a photo", "--paths", library=library).stdout.splitlines()) == 10
    assert "Photos\t10" in photoseek("status", library=library).stdout
    remount(disk, "rw")
    assert "10 unchanged" in photoseek("index", photos, library=library).stdout


def test_a_service_whose_disk_is_full(photos: Path, disk: Path) -> None:
    library = disk / "library"
    with running(ServiceSettings(library=library, device="cpu", allowed_folders=(photos,))) as client:
        leave_room(disk, 150_000)
        job = job_of(client, photos)
        assert (job["state"], f"The disk that holds {library}" in job["error"]) == ("failed", True)
        assert client.get("/v1/search", params={"q": "a photo"}).is_success
        remount(disk, "size=50m")
        assert job_of(client, photos)["summary"]["failed"] == 0
        assert len(client.get("/v1/search", params={"q": "a photo"}).json()["results"]) == 10


def test_a_service_whose_library_is_deleted_and_made_again(photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    photoseek("index", photos, library=library)
    with running(ServiceSettings(library=library, device="cpu")) as client:
        search = functools.partial(client.get, "/v1/search", params={"q": "a photo"})
        assert len(search().json()["results"]) == 10
        shutil.rmtree(library)
        start = client.post("/v1/index", json={"folders": [str(photos)]})
        for refused in (search(), start, client.get("/v1/status"), client.get("/v1/photos/1/thumbnail")):
            assert (refused.status_code, refused.json()["error"]["code"]) == (500, "library_error")
            assert "photoseek index FOLDER --library" in refused.json()["error"]["message"]
        assert client.get("/healthz").is_success
        photoseek("index", photos / "here", library=library)
        assert len(search().json()["results"]) == 5


def test_damage_to_what_can_be_made_again_is_told(photos: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    photoseek("index", photos, library=library)
    damaged = [library / "vectors.faiss", *library.glob("thumbnails/*/*"), next(library.glob("features/*/*/*"))]
    for path in damaged:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    searched = photoseek("search", "a photo", "--paths", library=library)
    assert len(searched.stdout.splitlines()) == 10
    assert "vectors.faiss was damaged: its checksum differs." in searched.stderr
    assert "Match features damaged: 1." in searched.stderr
    assert "vectors.faiss was damaged" in photoseek("index", photos, library=library).stderr
    found = photoseek("verify", library=library, code=1)
    assert found.stdout.count("is damaged\tnot repaired") == found.stdout.count("thumbnails: ") == 10
    assert "is made again" in photoseek("verify", "--repair", library=library).stderr
    assert "Thumbnails missing: 10 of 10." in photoseek("verify", library=library).stderr


def test_a_catalog_that_another_program_has_locked(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    monkeypatch.setattr("indexer.library._sqlite.PATIENCE_S", 0.1)  # else half a minute
    with running(ServiceSettings(library=library, device="cpu", allowed_folders=(photos,))) as client:
        with contextlib.closing(sqlite3.connect(library / "catalog.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            job = job_of(client, photos)
            assert (job["state"], "Another program has locked the catalog" in job["error"]) == ("failed", True)
            assert client.get("/v1/search", params={"q": "a photo"}).is_success
        assert job_of(client, photos)["summary"]["added"] == 10


def test_a_library_that_is_being_written_to_or_of_a_newer_format(photos: Path, tmp_path: Path) -> None:
    directory = tmp_path / "library"
    with Library.create(directory) as library, library.writer():
        for writing in (("index", photos), ("verify", "--repair")):
            refused = photoseek(*writing, library=directory, code=1)
            assert f"Process {os.getpid()} is writing to the library {directory}" in one_line(refused.stderr)
        assert "Photos\t0" in photoseek("status", library=directory).stdout
    with contextlib.closing(sqlite3.connect(directory / "catalog.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (directory / "catalog.sqlite").read_bytes()
    for command in (("status",), ("index", photos), ("verify", "--repair")):
        assert "Update PhotoSeek" in one_line(photoseek(*command, library=directory, code=1).stderr)
    assert (directory / "catalog.sqlite").read_bytes() == before


@pytest.fixture
def under() -> tuple[str, ...]:
    """A command that makes root a user as any other: it may no longer read and write what its permissions forbid."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may read and write anything")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


def test_a_photo_that_may_not_be_read(photos: Path, tmp_path: Path, under: tuple[str, ...]) -> None:
    library, closed = tmp_path / "library", photos / "here" / "7.png"
    closed.chmod(0)
    if under:
        os.chown(photos / "here" / "8.png", 12345, -1)  # another user's, to be read as any other
    assert "9 added, 0 updated, 0 moved, 0 unchanged, 0 removed, 1 failed" in (
        photoseek("index", photos, library=library, under=under).stdout
    )
    failures = photoseek("failures", library=library, under=under).stdout
    assert failures == f"{closed}\tcannot be read: Permission denied\n"
    closed.chmod(0o600)
    assert "9 unchanged, 0 removed, 0 failed" in photoseek("index", photos, library=library, under=under).stdout
    assert photoseek("failures", library=library, under=under).stdout == ""


def test_a_library_that_may_not_be_written_to(photos: Path, tmp_path: Path, under: tuple[str, ...]) -> None:
    library = tmp_path / "library"
    library.mkdir(mode=0o500)
    refused = photoseek("index", photos, library=library, code=1, under=under)
    assert "Permission denied" in one_line(refused.stderr)
    library.chmod(0)
    for command in (("index", photos), ("status",)):
        assert "Permission denied" in one_line(photoseek(*command, library=library, code=1, under=under).stderr)
    library.chmod(0o700)
    assert "10 added" in photoseek("index", photos, library=library, under=under).stdout
    shutil.rmtree(library / "features")
    library.chmod(0o500)
    found = photoseek("search", "a photo", "--paths", library=library, under=under)
    assert len(found.stdout.splitlines()) == 10
    assert "10 unchanged" in photoseek("index", photos, library=library, under=under).stdout  # nothing to write
    Image.new("RGB", (32, 48), "red").save(photos / "another.png")
    refused = photoseek("index", photos, library=library, code=1, under=under)
    assert "cannot be opened for writing" in one_line(refused.stderr)
