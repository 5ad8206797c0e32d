"""How fast BLIP-2 encodes photos and reranks candidates: the loop that tutorials show, batched transformers, and ours.

    python scripts/bench_encode.py --json              # full-size random weights: a GPU, 6 GB of disk for a while
    python scripts/bench_encode.py --tiny              # a network of the same shape that a CPU runs in a minute

The first three rates are of pixels that are ready in memory; ``from_jpeg_per_s`` is a whole indexing run over JPEGs of
12 megapixels (0.5 with ``--tiny``, which computes in one thread). All are measured in one process, one after the other,
each as the best of two runs after one that is not counted, and the speed of matrix products beside them.
"""

import argparse
import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
)

from indexer.library import Library
from indexer.model import quantised, restored
from indexer.model.blip2 import Blip2Model, EncoderOptions, load_blip2
from indexer.pipeline import index_folders

_TEXT = "a dog on a beach"
_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "on", "beach")
_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    photos: int
    """Photos that are encoded, and JPEGs that are indexed."""
    alone: int
    """Of them, those that go through one at a time: the slow way need not take the whole time."""
    candidates: int
    jpeg: tuple[int, int]
    matrix: int
    """Side of the matrices whose product is the peak."""


_FULL = Sizes(photos=1024, alone=64, candidates=100, jpeg=(4000, 3000), matrix=8192)
_TINY = Sizes(photos=32, alone=8, candidates=100, jpeg=(800, 600), matrix=512)
_SMALLEST = Sizes(photos=3, alone=2, candidates=2, jpeg=(64, 48), matrix=64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small network and few photos")
    parser.add_argument("--smallest", action="store_true", help="with --tiny: a handful, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="prepare our image encoder with torch.compile")
    options = parser.parse_args(arguments)
    sizes = _FULL if not options.tiny else _SMALLEST if options.smallest else _TINY
    with (
        tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory,
        one_thread() if options.tiny else contextlib.nullcontext(),
    ):
        measured = measure(Path(directory), options.device, sizes, tiny=options.tiny, compiled=options.compile)
    if options.json:
        print(json.dumps(measured))
    else:
        for name, value in measured.items():
            print(f"{name:24} {value}")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile one thread of the CPU computes a product.

    Those of a tiny network are so short that several threads, on a machine with other work, mostly wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(directory: Path, device: str, sizes: Sizes, *, tiny: bool, compiled: bool) -> dict[str, object]:
    """Everything, as the JSON object that is printed."""
    config = save_checkpoint(directory / "model", device, tiny=tiny)
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    theirs = Theirs(directory / "model", device, dtype)
    ours = load_blip2(directory / "model", device, encoder=EncoderOptions(compiled=compiled))
    side = ours.image_size
    pixels = torch.randint(0, 256, (sizes.photos, 3, side, side), dtype=torch.uint8)
    per_s = ours_per_s(ours, pixels)
    peak = peak_tflops(device, ours.encode_images(pixels[:1]).tokens.dtype, sizes.matrix)
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "peak_tflops": round(peak, 3),
        "tutorial_per_s": round(theirs.photos_per_s(pixels[: sizes.alone], 1), 3),
        "batched_per_s": round(theirs.photos_per_s(pixels, ours.batch_size), 3),
        "ours_per_s": round(per_s, 3),
        "ours_fraction_of_peak": round(per_s * photo_flop(config) / (peak * 1e12), 4),
        "from_jpeg_per_s": round(from_jpeg_per_s(directory, ours, sizes), 3),
        "rerank_ms": rerank_ms(theirs, ours, pixels[torch.arange(sizes.candidates) % sizes.photos]),
    }


def save_checkpoint(directory: Path, device: str, *, tiny: bool) -> Blip2VisionConfig:
    """Save random weights as the Hub saves them; returns the shape of the image encoder."""
    if tiny:
        vision = Blip2VisionConfig(
            hidden_size=176, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8, image_size=112
        )
        qformer = Blip2QFormerConfig(
            hidden_size=96, num_hidden_layers=4, num_attention_heads=6, intermediate_size=384, vocab_size=30523
        )
    else:
        vision, qformer = Blip2VisionConfig(image_size=224), Blip2QFormerConfig(vocab_size=30523)
    qformer.use_qformer_text_input = True
    qformer.encoder_hidden_size = vision.hidden_size
    config = Blip2Config(vision_config=vision, qformer_config=qformer, num_query_tokens=32)
    # In half precision from the start: in float32 it would take 5 GB of memory.
    with torch.device("meta"):
        network = Blip2ForImageTextRetrieval(config)
    nn.Module.half(network).to_empty(device=device)
    randomise(network)
    network.save_pretrained(directory)
    BertTokenizer(vocab={word: row for row, word in enumerate(_WORDS)}).save_pretrained(directory)
    return vision


@torch.no_grad()
def randomise(network: nn.Module) -> None:
    """Give a network weights of a trained one's size.

    What transformers starts the image encoder with is 0 in half precision, and a GPU multiplies zeros faster.
    """
    for name, weight in network.named_parameters():
        if "norm" in name.lower():
            nn.init.constant_(weight, 1.0 if name.endswith("weight") else 0.0)
        else:
            nn.init.normal_(weight, std=0.02)


def photo_flop(vision: Blip2VisionConfig) -> float:
    """Floating-point operations of the image encoder for one photo: 0.52e12 for ViT-g at 224 pixels."""
    width, inner = vision.hidden_size, vision.intermediate_size
    size, patch = cast("int", vision.image_size), cast("int", vision.patch_size)
    patches = (size // patch) ** 2
    tokens = patches + 1
    layer = 2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * tokens**2 * width
    return float(vision.num_hidden_layers * layer + 2 * patches * width * 3 * patch**2)


class Theirs:
    """``Blip2ForImageTextRetrieval.forward``, as tutorials call it."""

    def __init__(self, directory: Path, device: str, dtype: torch.dtype) -> None:
        self._network = Blip2ForImageTextRetrieval.from_pretrained(directory, dtype=dtype)
        nn.Module.to(self._network, device)
        self._text = BertTokenizer.from_pretrained(directory)(_TEXT, return_tensors="pt").to(device)
        self._device = device
        self._dtype = dtype

    def photos_per_s(self, pixels: Tensor, batch: int) -> float:
        """Through the ITC head, ``batch`` photos at a time."""

        def encode() -> None:
            for some in split(pixels, batch):
                self._forward(some, itm=False)

        return len(pixels) / seconds(encode, self._device)

    def match(self, pixels: Tensor, batch: int) -> None:
        """Through the ITM head with the text, ``batch`` photos at a time."""
        for some in split(pixels, batch):
            self._forward(some, itm=True)

    @torch.inference_mode()
    def _forward(self, pixels: Tensor, *, itm: bool) -> Tensor:
        rows = len(pixels) if itm else 1
        out = self._network(
            pixel_values=((pixels.float() / 255 - _MEAN) / _STD).to(self._device, self._dtype),
            input_ids=self._text["input_ids"].expand(rows, -1),
            attention_mask=self._text["attention_mask"].expand(rows, -1),
            use_image_text_matching_head=itm,
        )
        logits: Tensor = out.logits_per_image.cpu()
        return logits


def ours_per_s(model: Blip2Model, pixels: Tensor) -> float:
    """Photos that become what a library keeps of them, each second."""

    def encode() -> None:
        for some in split(pixels, model.batch_size):
            features = model.encode_images(some)
            features.embeddings.half().cpu()
            quantised(features.tokens)

    return len(pixels) / seconds(encode, model.device)


def peak_tflops(device: str, dtype: torch.dtype, side: int) -> float:
    """Rate of the product of two square matrices, in 10^12 operations a second."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: torch.mm(left, right), device, runs=10) / 1e12


def from_jpeg_per_s(directory: Path, model: Blip2Model, sizes: Sizes) -> float:
    """Photos of an indexing run, from JPEGs on disk to a library that can be searched, each second."""
    photos = directory / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(sizes.photos):
        # Enlarged noise compresses about as a photo does; plain noise would not.
        small = Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        small.resize(sizes.jpeg, Image.Resampling.BICUBIC).save(photos / f"{number}.jpg", quality=90)
    with Library.create(directory / "library") as library:
        summary = index_folders(library, model, [photos])
    return summary.embedded / summary.seconds


def rerank_ms(theirs: Theirs, model: Blip2Model, pixels: Tensor) -> dict[str, float]:
    """Milliseconds to match one text with the candidates."""
    cached = [
        tokens for some in split(pixels, model.batch_size) for tokens in quantised(model.encode_images(some).tokens)
    ]
    ways: dict[str, Callable[[], object]] = {
        "tutorial": lambda: theirs.match(pixels, 1),
        "batched": lambda: theirs.match(pixels, model.batch_size),
        "cached": lambda: model.match(restored(cached, model.device), [_TEXT] * len(cached)).cpu(),
    }
    return {name: round(seconds(way, model.device) * 1000, 3) for name, way in ways.items()}


def seconds(work: Callable[[], object], device: str, runs: int = 2) -> float:
    """How long it takes at best, after a run that loads, allocates and tunes."""
    took = []
    for _ in range(1 + runs):
        started = time.perf_counter()
        work()
        _wait(device)
        took.append(time.perf_counter() - started)
    return min(took[1:])


def split(rows: Tensor, batch: int) -> list[Tensor]:
    """Rows, at most ``batch`` at a time."""
    return [rows[start : start + batch] for start in range(0, len(rows), batch)]


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
