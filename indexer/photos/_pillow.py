"""Opening a picture of a format that Pillow reads, as upright RGB."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from indexer.errors import PhotoUnreadable
from indexer.photos._exif import ExifFacts, read_exif
from indexer.photos._formats import FORMAT_NAMES, OPENED_FORMATS
from indexer.photos._modes import to_rgb

MAX_PIXELS = 256_000_000
"""The largest picture that is decoded: more than the 201 megapixels of phones, less than fills a small machine."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow warns from here on, and we refuse

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes it upright. `ImageOps.exif_transpose` also rewrites the EXIF block and fails if that
is broken."""

Needed = Callable[[tuple[int, int]], tuple[int, int]]
"""From the (width, height) of a picture to the least (width, height) that must be decoded of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """An upright RGB picture and what its file says."""

    image: Image.Image
    """RGB, perhaps at reduced scale."""
    width: int
    """Of the picture in the file, upright."""
    height: int
    format: str
    exif: ExifFacts


def open_pillow(data: bytes, needed: Needed | None) -> Opened:
    """Open a picture of a format that Pillow reads.

    Raises PhotoUnreadable: as `open_rgb`.
    """
    with decoding(), _identified(data) as image:
        width, height = image.size
        refuse_huge(width, height)
        if needed is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, needed(image.size))
        image.load()
        exif = read_exif(image)  # after load: only then does a TIFF say whether Pillow has turned it already
        rgb = upright(to_rgb(image), exif.orientation)
        if exif.orientation >= 5:
            width, height = height, width
        return Opened(rgb, width, height, FORMAT_NAMES[image.format or ""], exif)


def _identified(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=OPENED_FORMATS)
    except UnidentifiedImageError:
        if data.startswith(tuple(TiffImagePlugin.PREFIXES)):
            raise PhotoUnreadable(
                "a TIFF that is damaged, or whose pixels are of a kind that PhotoSeek does not read, "
                "such as colours of 32 bits or in floating point"
            ) from None
        raise


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as its EXIF orientation, 1…8, says it should be seen."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def refuse_huge(width: int, height: int) -> None:
    """Raise PhotoUnreadable for a picture of no pixels or of too many."""
    if width < 1 or height < 1:
        raise PhotoUnreadable(f"the picture has no pixels ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise PhotoUnreadable(
            f"the picture has {width}×{height} pixels; more than {MAX_PIXELS // 10**6} megapixels are not decoded"
        )


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever a decoder raises into PhotoUnreadable with a reason for a person."""
    try:
        yield
    except PhotoUnreadable:
        raise
    except UnidentifiedImageError:
        raise PhotoUnreadable("not a picture in a format that PhotoSeek reads") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoUnreadable(f"more than {MAX_PIXELS // 10**6} megapixels are not decoded") from None
    except MemoryError:
        raise PhotoUnreadable("not enough memory to decode the picture") from None
    except Exception as error:  # decoders fail with a dozen kinds of error, and all of them mean the same
        raise PhotoUnreadable(f"cannot be decoded: {str(error).strip() or type(error).__name__}") from error
