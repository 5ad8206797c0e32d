"""Which formats Pillow opens for us, and what they are called."""

import pillow_heif
from PIL import Image

FORMAT_NAMES = {
    "JPEG": "JPEG",
    "MPO": "JPEG",  # a JPEG with more pictures behind it: Pillow's name for most phone photos
    "PNG": "PNG",
    "WEBP": "WEBP",
    "GIF": "GIF",
    "TIFF": "TIFF",
    "BMP": "BMP",
    "DIB": "BMP",
    "HEIF": "HEIF",
    "AVIF": "AVIF",
}
"""What Pillow calls a format → what `PhotoFacts.format` calls it. No other format is opened, whatever Pillow knows."""

Image.init()  # Pillow loads the rarer formats only on a second look, which naming the formats skips
# Thumbnails inside a HEIC may be cropped, so they never stand in for the picture. One thread: workers fill the cores.
pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
OPENED_FORMATS = tuple(name for name in FORMAT_NAMES if name in Image.OPEN)
"""What to name when opening: an MPO is opened as the JPEG that it begins with."""
