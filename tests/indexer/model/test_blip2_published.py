"""The published checkpoints: what their files hold; where the local Hugging Face cache has them, known answers, and
those of ``forward``.
"""

import io
import json

import httpx
import pytest
import torch
from PIL import Image
from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig, Blip2VisionConfig

from indexer.model.blip2 import EncoderOptions, load_blip2
from indexer.model.blip2._hub import PUBLISHED, cached
from indexer.photos import squash
from tests.indexer.model.blip2_reference import reference

_PHOTO = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/demo.jpg"
_TEXT = "A woman and her dog sitting in a beach"


@pytest.mark.parametrize(("image_size", "published"), [(224, 4_688_228_552), (364, 4_690_593_992)])
def test_the_expected_weights_fill_the_published_file_to_the_byte(image_size: int, published: int) -> None:
    """Sizes that the Hub shows for model.safetensors: names take room in its header, so one too many would show."""
    qformer = Blip2QFormerConfig(vocab_size=30523, use_qformer_text_input=True)
    config = Blip2Config(vision_config=Blip2VisionConfig(image_size=image_size), qformer_config=qformer)
    with torch.device("meta"):
        weights = Blip2ForImageTextRetrieval(config).state_dict()
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in sorted(weights.items()):
        start, end = end, end + 4 * weight.numel()
        header[name] = {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    assert 8 + -(-length // 8) * 8 + end == published


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_the_reference_model(name: str) -> None:
    """Both heads in float32, on noise: this needs no network. Takes 10 GB of memory."""
    directory = cached(PUBLISHED[name])
    if directory is None:
        pytest.skip(f"{PUBLISHED[name].repository} (5 GB) is not in the local Hugging Face cache")
    model = load_blip2(directory, "cpu", encoder=EncoderOptions(dtype=torch.float32))
    texts = [_TEXT, "two dogs"]
    size = model.image_size
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = model.encode_images(pixels)
    similarities = (features.embeddings @ model.encode_texts(texts).T).amax(dim=1)
    logits = model.match(features.tokens, texts)
    torch.testing.assert_close(similarities, reference(directory, pixels, texts, itm=False), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, reference(directory, pixels, texts, itm=True), atol=1e-4, rtol=0)


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
