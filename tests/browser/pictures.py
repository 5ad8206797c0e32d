"""Small libraries of real photographs to search."""

import shutil
from pathlib import Path

from PIL import Image

from scripts.sample_library import write_samples

TRIP = ("2019:07:14 16:20:00", "Canon EOS 5D", (48.8584, 2.2945))


def write_album(folder: Path) -> None:
    """The samples; crops of them; a trip, whose photos have a date, a camera and a place; a copy; a broken file."""
    samples = write_samples(folder / "samples")
    crops = folder / "crops"
    crops.mkdir()
    for sample in samples:
        _write_crop(sample, crops / f"crop-{sample.stem}.png", 0)
    trip = folder / "trip"
    trip.mkdir()
    for name in ("china", "rocket", "moon"):
        sample = next(path for path in samples if path.stem == name)
        write_taken(sample, trip / f"trip-{name}.jpg", *TRIP)
    shutil.copy(folder / "samples" / "coffee.png", trip / "coffee-again.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")


def write_few(folder: Path) -> None:
    """The samples and a broken file."""
    write_samples(folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")


def write_many(folder: Path, samples: Path, count: int) -> None:
    """As many distinct small pictures, made of the photos in ``samples``."""
    folder.mkdir()
    sources = sorted(samples.glob("*.png"))
    for number in range(count):
        _write_crop(sources[number % len(sources)], folder / f"picture-{number:03}.png", number // len(sources))


def write_taken(source: Path, target: Path, date: str, camera: str, place: tuple[float, float]) -> None:
    """A JPEG of a picture with what a camera notes in it; degrees of latitude and longitude, north and east."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = camera.split(maxsplit=1)[0], camera
    exif.get_ifd(0x8769)[0x9003] = date
    latitude, longitude = place
    exif.get_ifd(0x8825).update({1: "N", 2: _degrees(latitude), 3: "E", 4: _degrees(longitude)})
    with Image.open(source) as picture:
        picture.convert("RGB").save(target, quality=90, exif=exif)


def _write_crop(source: Path, target: Path, number: int) -> None:
    with Image.open(source) as picture:
        rgb = picture.convert("RGB")
    rgb.crop((number, number, rgb.width // 2 + number, rgb.height // 2 + number)).resize((240, 180)).save(target)


def _degrees(angle: float) -> tuple[float, float, float]:
    minutes = angle % 1 * 60
    return float(int(angle)), float(int(minutes)), round(minutes % 1 * 60, 4)
