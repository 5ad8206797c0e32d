"""The published 224-pixel checkpoint, where it is in the local Hugging Face cache: known answers."""

import io

import httpx
import pytest
import torch
from PIL import Image

from indexer.model.blip2 import EncoderOptions, load_blip2
from indexer.model.blip2._hub import PUBLISHED, cached
from indexer.photos import squash

_PHOTO = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/demo.jpg"
_TEXT = "A woman and her dog sitting in a beach"


def test_known_answers() -> None:
    """ITM [0.0238, 0.9762] and ITC 0.4406 in float32, from transformers' own slow tests."""
    directory = cached(PUBLISHED["blip2"])
    if directory is None:
        pytest.skip("Salesforce/blip2-itm-vit-g (5 GB) is not in the local Hugging Face cache")
    try:
        photo = httpx.get(_PHOTO).raise_for_status().content
    except httpx.HTTPError as error:
        pytest.skip(f"{_PHOTO} could not be downloaded: {error}")
    model = load_blip2(directory, "cpu", encoder=EncoderOptions(dtype=torch.float32))
    pixels = squash(Image.open(io.BytesIO(photo)).convert("RGB"), model.image_size)
    features = model.encode_images(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
    probabilities = model.match(features.tokens, [_TEXT]).softmax(dim=1)
    similarity = (features.embeddings[0] @ model.encode_texts([_TEXT])[0]).max()
    torch.testing.assert_close(probabilities, torch.tensor([[0.0238, 0.9762]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(similarity, torch.tensor(0.4406), atol=1e-3, rtol=0)
