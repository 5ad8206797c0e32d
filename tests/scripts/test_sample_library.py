import subprocess
import sys
from pathlib import Path

from PIL import Image

from scripts.sample_library import SAMPLES, write_samples
from tests.command import ROOT


def test_every_sample_is_a_picture_with_a_credit(tmp_path: Path) -> None:
    photos = write_samples(tmp_path)

    assert len(set(photos)) == len(SAMPLES)
    for photo in photos:
        with Image.open(photo) as image:
            image.load()
    credited = [line.split(": ")[0] for line in (tmp_path / "CREDITS.txt").read_text().splitlines()]
    assert credited == [photo.name for photo in photos]


def test_a_photo_that_is_there_is_left_alone_and_a_broken_one_mended(tmp_path: Path) -> None:
    coffee, *others = sorted(write_samples(tmp_path), key=lambda photo: photo.name != "coffee.png")
    whole = coffee.read_bytes()
    before = {photo: photo.stat().st_mtime_ns for photo in others}
    coffee.write_bytes(whole[:1000])

    write_samples(tmp_path)

    assert coffee.read_bytes() == whole
    assert {photo: photo.stat().st_mtime_ns for photo in others} == before


def test_as_a_command(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "sample_library.py"
    folder = tmp_path / "new" / "photos"

    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=True)
    misused = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)

    assert done.stdout == f"{len(SAMPLES)} sample photos are in {folder}\n"
    assert (folder / "coffee.png").exists()
    assert misused.returncode == 1
    assert "usage" in misused.stderr
