"""The breakdown of a run accounts for its time."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.library import Library
from indexer.model import Model
from indexer.pipeline import index_folders
from indexer.profile import Stopwatch


def test_a_run_says_where_its_time_went(model: Model, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    with Library.create(tmp_path / "library") as library:
        first = index_folders(library, model, [tmp_path], workers=2)
        again = index_folders(library, model, [tmp_path], workers=2)
    stages = {(each.worker, each.stage) for each in first.profile.stages}
    assert stages == {
        *(("run", stage) for stage in ("scan", "compare", "look up pictures", "commit", "save vectors")),
        *(("decoders", stage) for stage in ("start", "read and digest", "decode")),
        *(("model", stage) for stage in ("load", "encode")),
        *((worker, "wait") for worker in ("run", "decoders", "model")),
    }
    assert first.profile.seconds == first.seconds
    for worker in ("run", "decoders", "model"):
        assert sum(each.share for each in first.profile.stages if each.worker == worker) == pytest.approx(1)
    assert 0 < first.profile.model_waited < 1
    assert {each.worker for each in again.profile.stages} == {"run"}
    assert again.profile.model_waited == 1


def test_shares_are_of_all_processes_and_what_fails_counts() -> None:
    stopwatch = Stopwatch()
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"), stopwatch.timed("decoders", "decode"):
            raise ValueError("broken")
    profile = stopwatch.profile(10.0, {"decoders": 4})
    stage, wait = profile.stages
    assert stage.seconds > 0
    assert stage.share == pytest.approx(stage.seconds / 40)
    assert (wait.worker, wait.stage) == ("decoders", "wait")
    assert wait.share == pytest.approx(1 - stage.share)


def test_the_longest_stage_comes_first_and_waiting_last() -> None:
    stopwatch = Stopwatch()
    with stopwatch.timed("run", "long"):
        with stopwatch.timed("run", "short"):
            pass
        time.sleep(0.001)
    assert [each.stage for each in stopwatch.profile(100.0, {}).stages] == ["long", "short", "wait"]
