"""What a faster precision may move: nothing that a search shows."""

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.model import Model
from indexer.model.compact import CompactModel
from scripts.sample_library import SAMPLES, _package_directory

TEXTS = ["a cup of coffee on a table", "a woman in an orange suit", "a cat", "a rocket on the launch pad"]


def at(model: Model, dtype: torch.dtype) -> CompactModel:
    assert isinstance(model, CompactModel)
    return CompactModel(model._network, model._tokenizer, model.identity, model.match_weight, "cpu", dtype)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Eight photographs, and what no photo is: white, black and noise."""
    paths = [_package_directory(sample.package) / sample.path for sample in SAMPLES[:8]]
    photos = [np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in paths]
    odd = [np.full_like(photos[0], 255), np.zeros_like(photos[0])]
    noise = np.random.default_rng(0).integers(0, 256, photos[0].shape, dtype=np.uint8)
    return torch.from_numpy(np.stack([*photos, *odd, noise])).permute(0, 3, 1, 2)


def test_embeddings_move_by_less_than_what_they_are_kept_in_rounds(model: Model, pixels: torch.Tensor) -> None:
    exact, faster = (at(model, dtype).encode_images(pixels) for dtype in (torch.float32, torch.float16))
    assert faster.embeddings.dtype == faster.tokens.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact.embeddings, faster.embeddings, dim=-1).min() > 0.9998
    texts = model.encode_texts(TEXTS)
    similarities = [torch.einsum("iqd,td->tiq", each.embeddings, texts).amax(dim=-1) for each in (exact, faster)]
    torch.testing.assert_close(*similarities, atol=2e-3, rtol=0)
    assert not torch.equal(exact.embeddings, faster.embeddings)
