"""What indexing the same folder again does after each thing that can happen to a file, with the real command."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from scripts.sample_library import write_samples
from tests.command import photoseek

COUNTS = ("added", "updated", "moved", "unchanged", "removed", "failed", "embedded")


class Folder:
    """A folder of photos, and what the command says of it."""

    def __init__(self, path: Path, library: Path) -> None:
        self.path = path
        self.library = library

    def index(self) -> dict[str, int]:
        """The counts of a run that are not 0."""
        summary = json.loads(photoseek("index", self.path, "--json", library=self.library).stdout)
        return {name: summary[name] for name in COUNTS if summary[name]}

    def found(self) -> set[str]:
        """Names of all photos that a search considers."""
        document = json.loads(photoseek("search", "a photo", "--rerank", "0", "--json", library=self.library).stdout)
        paths = [path for result in document["results"] for path in (result["path"], *result["copies"])]
        return {str(Path(path).relative_to(self.path)) for path in paths}

    def failures(self) -> dict[str, str]:
        """Reason by name."""
        lines = photoseek("failures", library=self.library).stdout.splitlines()
        return {Path(path).name: reason for path, reason in (line.split("\t") for line in lines)}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Five photos, one of them in a folder below, and a file that is no photo for all its name says."""
    write_samples(tmp_path / "samples")
    photos = tmp_path / "photos"
    (photos / "trip").mkdir(parents=True)
    for name in ("coffee.png", "chelsea.png", "rocket.jpg", "coins.png"):
        shutil.copyfile(tmp_path / "samples" / name, photos / name)
    shutil.copyfile(tmp_path / "samples" / "china.jpg", photos / "trip" / "china.jpg")
    (photos / "broken.jpg").write_bytes(b"this is no JPEG")
    return Folder(photos, tmp_path / "library")


def test_each_change_does_what_it_should(folder: Folder) -> None:
    photos = folder.path
    everything = {"coffee.png", "chelsea.png", "rocket.jpg", "coins.png", "trip/china.jpg"}
    assert folder.index() == {"added": 5, "failed": 1, "embedded": 5}
    assert folder.found() == everything
    assert list(folder.failures()) == ["broken.jpg"]
    assert folder.failures()["broken.jpg"]

    assert folder.index() == {"unchanged": 5, "failed": 1}, "nothing changed"

    os.utime(photos / "coffee.png", (1e9, 1e9))
    assert folder.index() == {"unchanged": 5, "failed": 1}, "touched"

    (photos / "coffee.png").rename(photos / "trip" / "espresso.png")
    assert folder.index() == {"moved": 1, "unchanged": 4, "failed": 1}, "renamed"
    assert folder.found() == everything - {"coffee.png"} | {"trip/espresso.png"}

    shutil.copyfile(photos / "coins.png", photos / "trip" / "coins.png")
    assert folder.index() == {"added": 1, "unchanged": 5, "failed": 1}, "copied"
    assert folder.found() == everything - {"coffee.png"} | {"trip/espresso.png", "trip/coins.png"}

    with Image.open(photos / "rocket.jpg") as rocket:
        rocket.convert("L").save(photos / "rocket.jpg")
    assert folder.index() == {"updated": 1, "unchanged": 5, "failed": 1, "embedded": 1}, "edited"

    (photos / "chelsea.png").unlink()
    assert folder.index() == {"removed": 1, "unchanged": 5, "failed": 1}, "deleted"
    assert folder.found() == {"rocket.jpg", "coins.png", "trip/china.jpg", "trip/espresso.png", "trip/coins.png"}

    shutil.copyfile(photos / "coins.png", photos / "broken.jpg")
    assert folder.index() == {"updated": 1, "unchanged": 5}, "mended"
    assert folder.failures() == {}
    assert "broken.jpg" in folder.found()
