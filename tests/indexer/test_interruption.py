"""A run that is killed or interrupted, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from indexer.library import Library
from indexer.model import Model

_PHOTOS = 24
_PROGRAM = """
if __name__ == "__main__":  # the decoders import this file too, and need none of it
    import json, sys
    from pathlib import Path

    from indexer.library import Library
    from indexer.model import load_model
    from indexer.pipeline import index_folders

    with Library.create(Path(sys.argv[1])) as library:
        summary = index_folders(
            library,
            load_model("compact", "cpu"),
            [Path(sys.argv[2])],
            on_progress=lambda progress: print(progress.stage, progress.done, flush=True),
            workers=1,
        )
    print(json.dumps(summary.as_dict()))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(_PHOTOS):
        noise = np.random.default_rng(n).integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{n:02}.png")
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(_PROGRAM)
    return path


def start(program: Path, library: Path, photos: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, program, library, photos],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def lines_until_some_are_done(run: subprocess.Popen[str]) -> Iterator[str]:
    assert run.stdout is not None
    for line in run.stdout:
        yield line
        if line.startswith("indexing") and not line.endswith(" 0\n"):
            return


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


def test_killed_it_loses_nothing_and_leaves_nothing_behind(
    program: Path, tmp_path: Path, photos: Path, model: Model
) -> None:
    directory = tmp_path / "library"
    run = start(program, directory, photos)
    list(lines_until_some_are_done(run))
    helpers = psutil.Process(run.pid).children(recursive=True)
    assert helpers
    run.kill()
    run.communicate()
    wait_until_gone(helpers)
    with Library.open(directory) as library:
        kept = library.status().photos
        assert 0 < kept <= _PHOTOS
        query = model.encode_texts(["noise"])[0].numpy()
        assert len(library.nearest(query, 100)) == kept

    output, errors = start(program, directory, photos).communicate(timeout=240)
    summary = json.loads(output.splitlines()[-1])
    assert (summary["added"], summary["unchanged"]) == (_PHOTOS - kept, kept), errors
    with Library.open(directory) as library:
        status = library.status()
        assert (status.photos, status.pictures, status.failed, status.missing) == (_PHOTOS, _PHOTOS, 0, 0)
        assert library.verify().ok


def test_interrupted_it_ends_cleanly(program: Path, tmp_path: Path, photos: Path) -> None:
    run = start(program, tmp_path / "library", photos)
    list(lines_until_some_are_done(run))
    helpers = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the decoders too
    started = time.monotonic()
    output, errors = run.communicate(timeout=240)
    summary = json.loads(output.splitlines()[-1])
    assert (run.returncode, errors) == (0, ""), f"after {time.monotonic() - started:.1f} s"
    assert summary["cancelled"]
    assert 0 < summary["added"] <= _PHOTOS
    wait_until_gone(helpers)
    with Library.open(tmp_path / "library") as library:
        assert library.status().photos == summary["added"]
        assert library.verify().ok
