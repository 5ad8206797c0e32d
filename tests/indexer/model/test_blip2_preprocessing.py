"""What the BLIP-2 image encoder sees, against the reference's Pillow-backed processor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Blip2ForImageTextRetrieval, BlipImageProcessorPil

from indexer.model.blip2 import EncoderOptions, load_blip2
from indexer.photos import squash
from tests.indexer.model.blip2_checkpoint import save_checkpoint


@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (56, 56), (30, 41), (500, 57)])
def test_tokens_equal_those_of_the_reference_processor(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Squash and normalisation together, for photos larger and smaller than the model's, wide and tall."""
    save_checkpoint(tmp_path, image_size=56)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    pixels = torch.from_numpy(squash(photo, 56).copy()).permute(2, 0, 1)[None]
    ours = load_blip2(tmp_path, "cpu", encoder=EncoderOptions(dtype=torch.float32)).encode_images(pixels).tokens
    processed = BlipImageProcessorPil(size={"height": 56, "width": 56})(photo, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        theirs = Blip2ForImageTextRetrieval.from_pretrained(tmp_path).vision_model(processed).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
