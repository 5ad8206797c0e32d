"""What is known about one picture beside its pixels."""

import dataclasses
import datetime


@dataclasses.dataclass(frozen=True, slots=True)
class PhotoFacts:
    """Facts of one picture, as its file states them; what it does not state is None."""

    width: int
    """Pixels, after the EXIF orientation is applied."""
    height: int
    """Pixels, after the EXIF orientation is applied."""
    format: str
    """Upper-case format name: JPEG, PNG, WEBP, GIF, TIFF, BMP, HEIF, AVIF, RAW."""
    taken_at: datetime.datetime | None = None
    """Local time where the photo was taken, without a time zone, as cameras record it."""
    camera: str | None = None
    """Maker and model, the maker not repeated: "Canon EOS 5D"."""
    latitude: float | None = None
    """Degrees, north positive."""
    longitude: float | None = None
    """Degrees, east positive."""
