"""What the real command does when a disk is not there, is full, or may not be written to."""

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.library import Library
from scripts.faults.corpus import write_corpus
from search.service import ServiceSettings
from tests.command import photoseek
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


def states(folder: Path) -> dict[Path, tuple[object, ...]]:
    """All about every file and folder but when it was last read; the time of change shows even a changed mode."""
    found: dict[Path, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        state = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) and os.access(path, os.R_OK) else None
        times = (state.st_mtime_ns, state.st_ctime_ns)
        found[path] = (content, state.st_ino, state.st_mode, state.st_nlink, state.st_size, times)
    return found


def test_no_original_changes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_corpus(folder, 40, seed=3)
    before = states(folder)
    settings = ServiceSettings(library=tmp_path / "library", device="cpu", allowed_folders=(folder,))
    with running(settings) as client:
        for _ in range(2):
            job = client.post("/v1/index", json={"folders": [str(folder)]}).json()
            client.get(f"/v1/jobs/{job['id']}/events")
        assert client.get(f"/v1/jobs/{job['id']}").json()["summary"]["unchanged"] > 40
        results = client.get("/v1/search", params={"q": "a photo", "top": 100}).json()["results"]
        assert len(results) > 30
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
        job = client.post("/v1/index", json={"folders": [str(photos)]}).json()
        client.get(f"/v1/jobs/{job['id']}/events")
        summary = client.get(f"/v1/jobs/{job['id']}").json()["summary"]
    assert (summary["removed"], summary["unchanged"]) == (0, 5)
    assert [f"5 of 10 photos in {photos} are not there" in note for note in summary["notes"]] == [True]

    summary = json.loads(photoseek("index", "--prune", "--json", photos, library=library).stdout)
    assert (summary["removed"], summary["notes"]) == (5, [])
    assert present() == "5"
    assert "exclude each other" in photoseek("index", "--prune", "--watch", photos, library=library, code=2).stderr
