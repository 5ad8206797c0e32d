"""A model that is loaded when it is needed."""

import dataclasses
import threading
from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import CheckpointInvalid, ModelError, ModelNotFound
from indexer.library import Library
from indexer.model import Model
from indexer.pending_model import PendingModel, model_when_needed
from indexer.pipeline import index_folders


def test_the_shipped_model_is_known_before_it_is_loaded(model: Model) -> None:
    pending = model_when_needed("compact", "cpu")
    assert isinstance(pending, PendingModel)
    assert (pending.identity, pending.image_size) == (model.identity, model.image_size)


def test_it_is_loaded_once() -> None:
    pending = model_when_needed("compact", "cpu")
    assert isinstance(pending, PendingModel)
    assert pending.load() is pending.load()
    assert pending.load().identity == pending.identity
    assert pending.load().image_size == pending.image_size


def test_what_cannot_be_loaded_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        model_when_needed(str(tmp_path / "nothing"), "cpu")


def test_another_model_in_its_place_is_refused(model: Model) -> None:
    pending = PendingModel(dataclasses.replace(model.identity, digest="0" * 64), model.image_size, lambda: model)
    with pytest.raises(CheckpointInvalid, match="changed"):
        pending.load()


def test_a_run_loads_it_for_what_is_new(model: Model, tmp_path: Path) -> None:
    loaded: list[int] = []

    def load() -> Model:
        loaded.append(1)
        return model

    (tmp_path / "photos").mkdir()
    pending = PendingModel(model.identity, model.image_size, load)
    with Library.create(tmp_path / "library") as library:
        index_folders(library, pending, [tmp_path / "photos"], workers=1)
        assert not loaded
        Image.new("RGB", (40, 30)).save(tmp_path / "photos/a.png")
        assert index_folders(library, pending, [tmp_path / "photos"], workers=1).embedded == 1
        assert index_folders(library, pending, [tmp_path / "photos"], workers=1).unchanged == 1
        assert library.active_model() == model.identity
    assert len(loaded) == 1


def test_photos_are_read_while_it_is_loaded(model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos/a.png")
    (tmp_path / "photos/b.png").write_bytes(b"no picture")
    one_is_done = threading.Event()

    def load() -> Model:
        assert one_is_done.wait(60)
        return model

    with Library.create(tmp_path / "library") as library:
        summary = index_folders(
            library,
            PendingModel(model.identity, model.image_size, load),
            [tmp_path / "photos"],
            workers=1,
            on_progress=lambda progress: one_is_done.set() if progress.failed else None,
        )
    assert (summary.embedded, summary.failed) == (1, 1)


def test_what_goes_wrong_when_it_is_loaded_ends_the_run_and_keeps_what_was_done(model: Model, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/broken.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 30)).save(tmp_path / "photos/a.png")
    one_is_done = threading.Event()

    def load() -> Model:
        assert one_is_done.wait(60)
        raise CheckpointInvalid("changed")

    with Library.create(tmp_path / "library") as library:
        with pytest.raises(CheckpointInvalid, match="changed"):
            index_folders(
                library,
                PendingModel(model.identity, model.image_size, load),
                [tmp_path / "photos"],
                workers=1,
                on_progress=lambda progress: one_is_done.set() if progress.failed else None,
            )
        assert [failure.path.name for failure in library.failures()] == ["broken.png"]


def test_a_certain_gpu_is_looked_for_at_once() -> None:
    with pytest.raises(ModelError, match="cuda:99"):
        model_when_needed("compact", "cuda:99")
