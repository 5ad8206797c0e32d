"""Which formats Pillow opens for us, and what they are called."""

import pillow_heif
from PIL import Image, TiffImagePlugin

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

# All TIFFs by libtiff, not only compressed ones: Pillow's own reader takes planes of 16 bits for planes of 8.
TiffImagePlugin.READ_LIBTIFF = True
# What libtiff reads has the byte order of this machine; of these kinds of grey, Pillow swaps the bytes once more.
TiffImagePlugin.OPEN_INFO.update(
    {
        kind: (mode, raw_mode.replace("B", "N"))
        for kind, (mode, raw_mode) in TiffImagePlugin.OPEN_INFO.items()
        if raw_mode in ("I;16BS", "I;32BS", "F;32BF")
    }
)
