"""Date, camera and place from EXIF as cameras and editors really write it.

Whatever is broken, absent or absurd is None: a photo is never lost for its metadata.
"""

import dataclasses
import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

_DATE = re.compile(r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[ T](\d{1,2}):(\d{2}):(\d{2})")
_FIRST_PHOTOGRAPH = 1826
_LONGEST_CAMERA = 100


@dataclasses.dataclass(frozen=True, slots=True)
class ExifFacts:
    """What EXIF says; fields as in `indexer.facts.PhotoFacts`."""

    orientation: int = 1
    """1…8, as EXIF numbers them."""
    taken_at: datetime.datetime | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def read_exif(image: Image.Image) -> ExifFacts:
    """The facts of a Pillow image."""
    try:
        exif = image.getexif()
    except Exception:  # Pillow parses EXIF by hand and fails in many ways of its own
        return ExifFacts()
    return facts_of(exif)


def read_tiff_header(data: bytes) -> ExifFacts:
    """The facts of a file that is laid out as TIFF, as most RAW files are; of any other, none."""
    exif = Image.Exif()
    try:
        exif.load(data)
    except Exception:  # as above
        return ExifFacts()
    return facts_of(exif)


def facts_of(exif: Image.Exif) -> ExifFacts:
    """The facts that an EXIF block states."""
    photo, gps = _ifd(exif, ExifTags.IFD.Exif), _ifd(exif, ExifTags.IFD.GPSInfo)
    place = _place(gps)
    return ExifFacts(
        orientation=_orientation(_get(exif, ExifTags.Base.Orientation)),
        taken_at=_date(_get(photo, ExifTags.Base.DateTimeOriginal))
        or _date(_get(photo, ExifTags.Base.DateTimeDigitized))
        or _date(_get(exif, ExifTags.Base.DateTime)),
        camera=_camera(_get(exif, ExifTags.Base.Make), _get(exif, ExifTags.Base.Model)),
        latitude=place[0] if place else None,
        longitude=place[1] if place else None,
    )


def _ifd(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(tag)
    except Exception:  # as above
        return {}


def _get(exif: Image.Exif | Mapping[int, Any], tag: int) -> Any:
    try:
        return exif.get(tag)
    except Exception:  # values are parsed when they are asked for
        return None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    value = value.split("\0", 1)[0]
    return " ".join("".join(letter for letter in value if letter.isprintable() or letter.isspace()).split())


def _orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _date(value: object) -> datetime.datetime | None:
    found = _DATE.match(_text(value))
    if found is None:
        return None
    try:
        date = datetime.datetime(*(int(part) for part in found.groups()))  # type: ignore[arg-type]
    except ValueError:  # 0000:00:00 is what a camera writes whose clock was never set
        return None
    return date if _FIRST_PHOTOGRAPH <= date.year <= datetime.datetime.now().year + 1 else None


def _camera(make: object, model: object) -> str | None:
    maker, name = _text(make), _text(model)
    # "NIKON CORPORATION" + "NIKON D90": the first word is what models repeat.
    repeated = bool(maker) and name.lower().startswith(maker.split()[0].lower())
    camera = name if repeated else f"{maker} {name}".strip()
    return camera[:_LONGEST_CAMERA].strip() or None


def _place(gps: Mapping[int, Any]) -> tuple[float, float] | None:
    latitude = _angle(_get(gps, ExifTags.GPS.GPSLatitude), _get(gps, ExifTags.GPS.GPSLatitudeRef), "NS", 90)
    longitude = _angle(_get(gps, ExifTags.GPS.GPSLongitude), _get(gps, ExifTags.GPS.GPSLongitudeRef), "EW", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # 0,0 is "no fix", not a place
        return None
    return latitude, longitude


def _angle(value: object, reference: object, hemispheres: str, limit: float) -> float | None:
    """Degrees from (degrees, minutes, seconds) and the letter of the hemisphere; the second letter is negative."""
    letter = _text(reference).upper()[:1]
    if not letter or letter not in hemispheres:
        return None
    try:
        parts = [float(part) for part in value]  # type: ignore[attr-defined]
    except Exception:  # zero denominators and wrong types, each with an error of its own
        return None
    if not 1 <= len(parts) <= 3 or not all(math.isfinite(part) and part >= 0 for part in parts):
        return None
    if any(part > 60 for part in parts[1:]):
        return None
    degrees = math.fsum(part / 60**place for place, part in enumerate(parts))
    if degrees > limit:
        return None
    return -degrees if letter == hemispheres[1] else degrees
