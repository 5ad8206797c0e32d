"""What the real command does when a disk is not there, is full, or may not be written to."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
