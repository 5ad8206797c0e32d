"""How large match features may become: set by one command, kept by the library, told by another."""

import re
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from ui.cli import app


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def told(library: Path) -> str:
    (fact,) = re.findall(r"^Match features\W+(.*)$", run("status", "--library", str(library)), re.MULTILINE)
    return str(fact).strip()


def test_is_set_kept_and_told(tmp_path: Path) -> None:
    photos, library = tmp_path / "photos", tmp_path / "library"
    photos.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{number}.png")
    run("index", str(photos), "--library", str(library))
    assert told(library) == "2 pictures, 14 KB each, at most 4.0 GB"
    run("index", str(photos), "--library", str(library), "--match-cache-mb", "0")
    assert told(library) == "none yet, at most 0 B"
    run("index", str(photos), "--library", str(library))
    assert told(library).endswith("at most 0 B")
