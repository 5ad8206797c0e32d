"""Photos on a CPU: the committed graph, computed by ONNX Runtime, against the network in PyTorch."""

import copy
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import indexer.model
from indexer.errors import CheckpointInvalid
from indexer.model import Model
from indexer.model.compact import CompactModel, load_compact
from indexer.model.compact._image_graph import ImageGraph
from indexer.model.compact._network import CompactNetwork
from scripts.sample_library import SAMPLES, _package_directory

_SHIPPED = Path(indexer.model.__file__).parent / "checkpoints" / "compact"


@pytest.fixture(scope="module")
def network(model: Model) -> CompactNetwork:
    assert isinstance(model, CompactModel)
    return model._network


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Fourteen photographs, and what no photo is: white, black and noise."""
    paths = [_package_directory(sample.package) / sample.path for sample in SAMPLES[:14]]
    photos = [np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in paths]
    odd = [np.full_like(photos[0], 255), np.zeros_like(photos[0])]
    noise = np.random.default_rng(0).integers(0, 256, photos[0].shape, dtype=np.uint8)
    return torch.from_numpy(np.stack([*photos, *odd, noise])).permute(0, 3, 1, 2)


def assert_same(features: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(features[0], expected[0], atol=1e-3, rtol=1e-4)  # tokens: of length 16
    torch.testing.assert_close(features[1], expected[1], atol=1e-4, rtol=0)  # embeddings: of length 1


@torch.inference_mode()
def test_photos_are_what_the_network_makes_of_them(model: Model, network: CompactNetwork, pixels: torch.Tensor) -> None:
    tokens, embeddings = network.encode_images(pixels)
    for count in (0, 1, 17):  # 17: more than ONNX Runtime is given at once
        features = model.encode_images(pixels[:count])
        assert_same((features.tokens, features.embeddings), (tokens[:count], embeddings[:count]))


@torch.inference_mode()
def test_other_weights_need_no_other_graph(network: CompactNetwork, pixels: torch.Tensor) -> None:
    """Every weight is moved, so that none can be a constant of the graph."""
    torch.manual_seed(0)
    retrained = copy.deepcopy(network)
    for weight in retrained.state_dict().values():
        weight.mul_(1 + 0.02 * torch.randn_like(weight))
    moved = retrained.encode_images(pixels[:2])
    assert_same(ImageGraph(retrained.state_dict()).encode_images(pixels[:2]), moved)
    assert (moved[1] - network.encode_images(pixels[:2])[1]).abs().max() > 0.01


def test_a_weight_that_the_graph_needs_is_named(network: CompactNetwork) -> None:
    weights = network.state_dict()
    del weights["encoder.stem.weight"]
    with pytest.raises(CheckpointInvalid, match=r"encode_images\.onnx .*encoder\.stem\.weight \[32, 3, 3, 3\]"):
        ImageGraph(weights)


def test_a_weight_of_another_shape_is_named(network: CompactNetwork) -> None:
    weights = network.state_dict()
    weights["query_gate"] = weights["query_gate"].view(4, 8)
    with pytest.raises(CheckpointInvalid, match=r"query_gate \[32\]"):
        ImageGraph(weights)


def test_several_threads_may_encode_from_the_first_photo_on(pixels: torch.Tensor) -> None:
    fresh = load_compact(_SHIPPED, "cpu")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: fresh.encode_images(pixels[:1]).embeddings, range(8)))
    assert all(torch.equal(each, results[0]) for each in results)


def test_texts_and_matches_need_no_onnx_runtime(
    model: Model, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = model.encode_images(pixels[:1])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # to import it is an error from here on
    fresh = load_compact(_SHIPPED, "cpu")
    fresh.encode_texts(["a cat"])
    fresh.match(features.tokens, ["a cat"], features.embeddings)
    with pytest.raises(ImportError):
        fresh.encode_images(pixels[:1])


def test_onnx_runtime_is_told_not_to_report(model: Model, pixels: torch.Tensor) -> None:
    model.encode_images(pixels[:1])
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
