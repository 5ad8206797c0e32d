"""The frozen encoder's view of every training photo, computed once and kept on disk as memory-mapped arrays."""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from indexer.model.compact._encoder import CLASSES, FEATURE_SIZE, GRID, ImageEncoder
from scripts.training.photos import Photo

_SIDE = 224
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Features:
    """Views of N photos: ``tokens`` (N, views, 49, 1280) float16 and ``logits`` (N, views, 1000) float16."""

    tokens: npt.NDArray[np.float16]
    logits: npt.NDArray[np.float16]


def cached(
    folder: Path, name: str, photos: Sequence[Photo], crops: int, mirror: bool, encoder: ImageEncoder
) -> Features:
    """Load the features of ``photos`` from ``folder``, computing those that are not there yet."""
    views = 1 + mirror + crops
    folder.mkdir(parents=True, exist_ok=True)
    tokens = _open(folder / f"{name}.tokens.npy", (len(photos), views, GRID * GRID, FEATURE_SIZE))
    logits = _open(folder / f"{name}.logits.npy", (len(photos), views, CLASSES))
    progress = folder / f"{name}.done"
    done = int(progress.read_text()) if progress.exists() else 0
    for start, pixels in _batches(photos, done, mirror, crops):
        count = len(pixels) // views
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            features = encoder(pixels)
            beliefs = encoder.classify(features)
        tokens[start : start + count] = features.half().numpy().reshape(count, views, GRID * GRID, FEATURE_SIZE)
        logits[start : start + count] = beliefs.half().numpy().reshape(count, views, CLASSES)
        progress.write_text(str(start + count))
        print(f"features of {name}: {start + count} of {len(photos)} photos", flush=True)
    return Features(tokens, logits)


def _open(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float16]:
    mode = "r+" if path.exists() else "w+"
    array: npt.NDArray[np.float16] = np.lib.format.open_memmap(path, mode, np.float16, shape)
    if array.shape != shape:
        raise SystemExit(f"{path} is of another set of photos: delete its folder and run again.")
    return array


def _batches(photos: Sequence[Photo], done: int, mirror: bool, crops: int) -> Iterator[tuple[int, Tensor]]:
    starts = range(done, len(photos), _BATCH)
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(_views, photos[s : s + _BATCH], s, mirror, crops) for s in starts[:2]]
        for index, start in enumerate(starts):
            pixels = pending.pop(0).result()
            if index + 2 < len(starts):
                following = starts[index + 2]
                pending.append(pool.submit(_views, photos[following : following + _BATCH], following, mirror, crops))
            yield start, pixels


def _views(photos: Sequence[Photo], seed: int, mirror: bool, crops: int) -> Tensor:
    """(len(photos) * views, 3, 224, 224): the whole photo, its mirror image, then random crops, photo by photo."""
    random = np.random.default_rng(seed)
    squares: list[Image.Image] = []
    for photo in photos:
        with Image.open(photo.path) as opened:
            image = opened.convert("RGB")
        squares.append(image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        if mirror:
            squares.append(squares[-1].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        squares.extend(_random_crop(image, random) for _ in range(crops))
    stacked = np.stack([np.asarray(square) for square in squares])
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float().sub_(127).div_(128)
    return pixels.contiguous(memory_format=torch.channels_last)


def _random_crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    width, height = (side * random.uniform(0.65, 0.95) for side in image.size)
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    crop = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop
