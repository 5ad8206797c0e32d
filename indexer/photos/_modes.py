"""Pixels of any mode as 8-bit RGB, the way a person would see them.

Pillow's own ``convert("RGB")`` clips 16-bit grey to white and shows the hidden colours of transparent pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB copy of a loaded image; transparent parts are white.

    Raises ValueError: the mode has no meaning as a colour.
    """
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image) >> 8, _white_is_zero(image))
    if image.mode in ("I", "F"):
        return _grey(_stretched(np.asarray(image, dtype=np.float64)), _white_is_zero(image))
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(levels: NDArray[Any], white_is_zero: bool) -> Image.Image:
    levels = levels.astype(np.uint8)
    return Image.fromarray(255 - levels if white_is_zero else levels).convert("RGB")


def _white_is_zero(image: Image.Image) -> bool:
    """Whether it is a TIFF that counts from white; with 8 bits and fewer, Pillow turns them itself."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    return tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _stretched(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """To 0…255 between the least and the greatest: 32-bit and floating-point files do not say what is white."""
    levels = np.nan_to_num(levels, posinf=0.0, neginf=0.0)
    low, high = levels.min(), levels.max()
    return np.clip(levels, 0, 255) if low == high else (levels - low) / (high - low) * 255


def _on_white(image: Image.Image) -> Image.Image:
    background = Image.new("RGB", image.size, _WHITE)
    background.paste(image, mask=image.getchannel("A"))
    return background


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("LAB colours cannot be converted")
    return converted
