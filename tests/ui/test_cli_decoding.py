"""``photoseek search`` while the process that decodes a picture for it is killed."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from tests.command import COMMAND, ROOT, environment

PHOTOS = 3


@pytest.fixture(scope="module")
def library(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos without match features: those are made from the originals when a search reranks."""
    photos, library = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("library") / "of mine"
    for number in range(PHOTOS):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{number}.png")
    with Library.create(library) as created:
        created.limit_match_features(0)
        index_folders(created, model, [photos])
    return library


def search_with_a_crash(*arguments: str | Path, library: Path) -> subprocess.CompletedProcess[str]:
    """Search, and crash the first process that decodes."""
    search = subprocess.Popen(
        [*COMMAND, "search", *arguments],
        env=environment(library),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    decoder = None
    while decoder is None and search.poll() is None:
        decoder = next((child for child in psutil.Process(search.pid).children() if is_decoder(child)), None)
        time.sleep(0.05)
    if decoder is not None:
        decoder.send_signal(signal.SIGSEGV)
    output, errors = search.communicate(timeout=240)
    assert decoder is not None, f"it decoded in its own process\n{output}\n{errors}"
    return subprocess.CompletedProcess(search.args, search.returncode, output, errors)


def is_decoder(process: psutil.Process) -> bool:
    return "spawn_main" in " ".join(process.cmdline())


def test_like_a_picture_that_crashes_its_decoder(library: Path, tmp_path: Path) -> None:
    picture = tmp_path / "like this.png"
    Image.new("RGB", (50, 40), "red").save(picture)
    done = search_with_a_crash("--like", picture, library=library)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"photoseek: {picture}: the decoder crashed on it\n"


def test_a_photo_that_crashes_its_decoder_is_not_looked_at_again(library: Path) -> None:
    done = search_with_a_crash("noise", "--json", library=library)
    assert (done.returncode, done.stderr) == (0, "")
    matches = [result["match"] for result in json.loads(done.stdout)["results"]]
    assert len(matches) == PHOTOS
    assert matches.count(None) == 1
