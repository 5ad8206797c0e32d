import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from indexer.errors import CheckpointInvalid, ModelError, ModelNotFound
from indexer.model import Model, available_models, load_model, other_gpus
from indexer.model.blip2 import Blip2Model
from indexer.model.blip2._hub import PUBLISHED
from tests.indexer.model.blip2_checkpoint import save_checkpoint


def test_compact_is_the_default(model: Model) -> None:
    assert model.identity.name == "compact"
    assert model.device == "cpu"
    assert available_models()[0].name == "compact"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ModelNotFound, match=r"'clip'.*compact, blip2, blip2-coco"):
        load_model("clip")


def test_a_directory_is_recognised_by_its_config(tmp_path: Path) -> None:
    model = load_model(str(save_checkpoint(tmp_path, image_size=56)), "cpu")
    assert isinstance(model, Blip2Model)
    assert model.identity.name == str(tmp_path)


def test_a_relative_path_and_an_absolute_one_are_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "mine", image_size=56)
    monkeypatch.chdir(tmp_path)
    assert load_model("mine", "cpu").identity == load_model(str(tmp_path / "mine"), "cpu").identity


def test_a_directory_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("config", ["{", "[]", json.dumps({"model_type": "clip"})])
def test_a_directory_with_something_else(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointInvalid, match=r"config\.json"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "mps", ""])
def test_an_unknown_device(tmp_path: Path, device: str) -> None:
    save_checkpoint(tmp_path, image_size=56)
    with pytest.raises(ModelError, match="Use auto, cpu, cuda"):
        load_model(str(tmp_path), device)


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, image_size=56)
    with pytest.raises(ModelError, match="CUDA devices here"):
        load_model(str(tmp_path), f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize(
    ("device", "others"), [("cuda", ("cuda:1", "cuda:2")), ("cuda:0", ()), ("cuda:1", ()), ("cpu", ())]
)
def test_the_gpus_that_share_the_work(device: str, others: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beside "cuda" on a machine of three; a GPU chosen by number, and the CPU, work alone."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert other_gpus(device) == others


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_a_published_model_without_network_says_how_to_get_it(tmp_path: Path) -> None:
    program = "from indexer.model import load_model; load_model('blip2-coco')"
    result = run(program, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert result.returncode == 1
    assert "ModelError" in result.stderr
    assert "hf download Salesforce/blip2-itm-vit-g-coco" in result.stderr


def test_a_published_model_loads_from_the_cache_without_network(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--Salesforce--blip2-itm-vit-g-coco"
    save_checkpoint(repository / "snapshots" / PUBLISHED["blip2-coco"].revision, image_size=56)
    program = "from indexer.model import load_model; print(load_model('blip2-coco', 'cpu').identity)"
    result = run(program, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert "ModelIdentity(name='blip2-coco', revision='bb5d9ef6" in result.stdout, result.stderr


def test_the_compact_model_does_not_wait_for_transformers() -> None:
    program = "import sys; from indexer.model import load_model; load_model('compact', 'cpu')"
    assert run(f"{program}; print('transformers' in sys.modules)").stdout.strip() == "False"
