"""What the BLIP-2 image encoder sees of a photo file, against the reference's Pillow-backed processor.

The processor turns no photo upright, clips 16-bit levels and shows the hidden colours of transparent pixels; so it is
given the picture that a person would see.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval, BlipImageProcessorPil

from indexer.model.blip2 import Blip2Model, EncoderOptions, load_blip2
from indexer.photos import read_photo, squash
from tests.indexer.model.blip2_checkpoint import save_checkpoint

SIZE = 56
RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (90, 70, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (90, 70), dtype=np.uint8)
ALPHA = RANDOM.choice(np.array([0, 255], np.uint8), (90, 70))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tiny"), image_size=SIZE)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Blip2Model:
    return load_blip2(checkpoint, "cpu", encoder=EncoderOptions(dtype=torch.float32))


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Callable[[Image.Image], Tensor]:
    network = Blip2ForImageTextRetrieval.from_pretrained(checkpoint).vision_model
    processor = BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})

    @torch.inference_mode()
    def tokens(photo: Image.Image) -> Tensor:
        seen: Tensor = network(processor(photo, return_tensors="pt")["pixel_values"]).last_hidden_state
        return seen

    return tokens


def ours(model: Blip2Model, pixels: np.ndarray) -> Tensor:
    return model.encode_images(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]).tokens


@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (56, 56), (30, 41), (500, 57)])
def test_squash_and_normalisation(
    model: Blip2Model, reference: Callable[[Image.Image], Tensor], shape: tuple[int, int]
) -> None:
    """For photos larger and smaller than the model's, wide and tall."""
    photo = Image.fromarray(RANDOM.integers(0, 256, (*shape, 3), dtype=np.uint8))
    torch.testing.assert_close(ours(model, squash(photo, SIZE)), reference(photo), atol=1e-5, rtol=0)


def on_white(rgb: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(ALPHA[..., None] == 0, np.uint8(255), rgb))


def sixteen_bit(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint16) * 257)


PALETTE = Image.fromarray(RGB).quantize(32)
CASES = {
    "RGB": (Image.fromarray(RGB), Image.fromarray(RGB)),
    "1": (Image.fromarray(GREY).convert("1"), Image.fromarray(GREY).convert("1")),
    "L": (Image.fromarray(GREY), Image.fromarray(GREY)),
    "LA": (Image.fromarray(np.dstack([GREY, ALPHA])), on_white(np.dstack([GREY] * 3))),
    "P": (PALETTE, PALETTE.convert("RGB")),
    "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), on_white(RGB)),
    "I;16": (sixteen_bit(GREY), Image.fromarray(GREY)),
    "CMYK": (Image.fromarray(RGB).convert("CMYK"), Image.fromarray(RGB).convert("CMYK")),
}


@pytest.mark.parametrize("mode", CASES)
def test_photos_of_every_mode(
    model: Blip2Model, reference: Callable[[Image.Image], Tensor], mode: str, tmp_path: Path
) -> None:
    stored, seen = CASES[mode]
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    stored.save(path)
    with Image.open(path) as opened:
        assert opened.mode == mode
    pixels = read_photo(path, SIZE, thumbnail=False).pixels
    torch.testing.assert_close(ours(model, pixels), reference(seen), atol=1e-5, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_of_every_orientation(
    model: Blip2Model, reference: Callable[[Image.Image], Tensor], orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, exif=exif, quality=95)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
    assert upright is not None
    pixels = read_photo(path, SIZE, thumbnail=False).pixels
    torch.testing.assert_close(ours(model, pixels), reference(upright), atol=1e-5, rtol=0)
