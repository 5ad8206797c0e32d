"""Tokens in 8 bits against a plain numpy oracle."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from indexer.model import Model, quantised, restored
from indexer.tokens import QuantisedTokens


def oracle(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, D): each channel to the nearest of 255 even steps between minus and plus its largest magnitude."""
    result = np.zeros_like(tokens)
    for channel in range(tokens.shape[1]):
        largest = np.abs(tokens[:, channel]).max()
        if largest > 0:
            result[:, channel] = np.round(tokens[:, channel] / largest * 127) * largest / 127
    return result


def belief_last(count: int, width: int) -> NDArray[np.float64]:
    """Tokens of which the last is far longer than the others in its first half, and zero in its second."""
    random = np.random.default_rng(0)
    tokens = random.normal(0, 1, (count, width))
    tokens[-1, : width // 2] *= 16
    tokens[-1, width // 2 :] = 0
    return tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equal_the_oracle(dtype: torch.dtype) -> None:
    tokens = torch.from_numpy(np.stack([belief_last(50, 256), belief_last(50, 256) * 1000])).to(dtype)
    kept = quantised(tokens)
    assert [photo.shape for photo in kept] == [(50, 256), (50, 256)]
    assert (kept[0].values.dtype.name, kept[0].scales.dtype.name) == ("int8", "float32")
    expected = np.stack([oracle(photo) for photo in tokens.double().numpy()])
    largest = np.abs(expected).max(axis=1, keepdims=True)
    # A value on the border of two steps may round either way in float32.
    assert (np.abs(restored(kept, "cpu").numpy() - expected) <= largest / 127 * 1.0001).all()
    assert np.mean(np.abs(restored(kept, "cpu").numpy() - expected) > 1e-5 * largest) < 1e-3
    step = largest / 127
    assert (np.abs(restored(kept, "cpu").double().numpy() - tokens.double().numpy()) <= step * 0.5001).all()


@pytest.mark.parametrize("value", [0.0, 1e-44, 1e-38, 3e38])
def test_channels_without_a_usable_scale_stay_finite(value: float) -> None:
    tokens = torch.full((1, 3, 2), value)
    tokens[:, :, 1] = 1
    back = restored(quantised(tokens), "cpu")
    assert torch.isfinite(back).all()
    torch.testing.assert_close(back, tokens, atol=1e-36, rtol=1e-6)


def test_a_photo_does_not_depend_on_its_batch_mates() -> None:
    tokens = torch.from_numpy(np.stack([belief_last(10, 16), belief_last(10, 16) * 100]))
    (alone,), both = quantised(tokens[:1]), quantised(tokens)
    np.testing.assert_array_equal(alone.values, both[0].values)
    np.testing.assert_array_equal(alone.scales, both[0].scales)


def test_the_compact_model_keeps_its_match_logits(model: Model) -> None:
    pixels = torch.randint(0, 256, (4, 3, model.image_size, model.image_size), dtype=torch.uint8)
    tokens = model.encode_images(pixels).tokens
    kept = quantised(tokens)
    assert all(isinstance(photo, QuantisedTokens) for photo in kept)
    assert kept[0].values.nbytes + kept[0].scales.nbytes <= 16_000
    texts = ["a dog on a beach"] * 4
    torch.testing.assert_close(model.match(restored(kept, "cpu"), texts), model.match(tokens, texts), atol=0.1, rtol=0)
