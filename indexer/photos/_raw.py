"""RAW files, through LibRaw: the preview that the camera embedded, else a half-size development."""

import dataclasses
import io

import rawpy
from PIL import Image

from indexer.photos._exif import ExifFacts, read_tiff_header
from indexer.photos._pillow import Needed, Opened, decoding, open_pillow, refuse_huge, upright

_LEAST_SIDE = 512
"""Pixels that a preview needs on its longest side to be used, as some cameras embed one of only 160; and that a
half-size development needs on its shortest."""
_ORIENTATION_OF_FLIP = {0: 1, 3: 3, 5: 8, 6: 6}
"""LibRaw's number for how the camera was held → EXIF's."""


def open_raw(data: bytes, needed: Needed | None) -> Opened:
    """Open a RAW file.

    Raises PhotoUnreadable: not a RAW file that LibRaw knows, damaged, or more than `MAX_PIXELS`.
    """
    with decoding(), rawpy.imread(io.BytesIO(data)) as raw:
        sizes = raw.sizes
        orientation = _ORIENTATION_OF_FLIP.get(sizes.flip, 1)
        width, height = sizes.width, sizes.height
        refuse_huge(width, height)
        if orientation >= 5:
            width, height = height, width
        exif = read_tiff_header(data)
        preview = _preview(raw, orientation, needed)
        if preview is not None and max(preview.width, preview.height) >= min(_LEAST_SIDE, max(width, height)):
            return dataclasses.replace(
                preview, width=width, height=height, format="RAW", exif=_merged(exif, preview.exif)
            )
        half = min(width, height) >= 2 * _LEAST_SIDE
        # LibRaw turns what it develops.
        developed = Image.fromarray(raw.postprocess(half_size=half, use_camera_wb=True, output_bps=8))
        return Opened(developed, width, height, "RAW", exif)


def _preview(raw: rawpy.RawPy, orientation: int, needed: Needed | None) -> Opened | None:
    try:
        thumbnail = raw.extract_thumb()
    except rawpy.LibRawError:  # none, or of a kind that LibRaw cannot extract
        return None
    if not isinstance(thumbnail.data, bytes):  # a bitmap
        image = upright(Image.fromarray(thumbnail.data).convert("RGB"), orientation)
        return Opened(image, *image.size, "RAW", ExifFacts())
    opened = open_pillow(thumbnail.data, needed)
    if opened.exif.orientation == 1:  # most previews do not say how the camera was held
        return dataclasses.replace(opened, image=upright(opened.image, orientation))
    return opened


def _merged(exif: ExifFacts, preview: ExifFacts) -> ExifFacts:
    located = exif if exif.latitude is not None else preview
    return ExifFacts(
        taken_at=exif.taken_at or preview.taken_at,
        camera=exif.camera or preview.camera,
        latitude=located.latitude,
        longitude=located.longitude,
    )
