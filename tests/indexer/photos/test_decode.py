"""What the model and the library get of a photo: pixels, facts, a thumbnail."""

import datetime
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from indexer.facts import PhotoFacts
from indexer.photos import THUMBNAIL_SIDE, read_photo, squash
from tests.indexer.photos.pictures import close, corners, quadrants, save


def facts_with(path: Path, exif: Image.Exif | bytes) -> PhotoFacts:
    return read_photo(save(quadrants(), path / "a.jpg", exif=exif), 32, thumbnail=False).facts


def gps(latitude: object, north: str, longitude: object, east: str) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: north, 2: latitude, 3: east, 4: longitude})
    return exif


class TestPixels:
    def test_are_the_whole_photo_squashed(self, tmp_path: Path) -> None:
        photo = read_photo(save(quadrants(300, 40), tmp_path / "a.png"), 64)
        assert photo.pixels.shape == (64, 64, 3)
        assert photo.pixels.dtype == np.uint8
        assert close(corners(Image.fromarray(photo.pixels)), corners(quadrants()), 2)

    def test_squash_is_the_processors_resize(self) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
        expected = np.asarray(noise.resize((32, 32), resample=Image.Resampling.BICUBIC))
        assert np.array_equal(squash(noise, 32), expected)

    @pytest.mark.parametrize("size", [(1, 1), (1, 900), (5000, 2)])
    def test_of_any_shape(self, tmp_path: Path, size: tuple[int, int]) -> None:
        path = save(Image.new("RGB", size, "red"), tmp_path / "a.png")
        assert read_photo(path, 32).pixels.shape == (32, 32, 3)


class TestThumbnail:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((2000, 1000), (500, 250)),
            ((1000, 2000), (250, 500)),
            ((4032, 3024), (504, 378)),
            ((3900, 2000), (488, 250)),
            ((1024, 768), (512, 384)),
            ((961, 641), (481, 321)),
            ((958, 638), (512, 341)),
            ((513, 512), (512, 511)),
            ((300, 200), (300, 200)),
            ((4000, 1), (500, 1)),
        ],
    )
    @pytest.mark.parametrize("suffix", [".jpg", ".png"])
    def test_fits_512_is_nearly_as_large_and_never_enlarged_or_stretched(
        self, tmp_path: Path, suffix: str, size: tuple[int, int], expected: tuple[int, int]
    ) -> None:
        photo = read_photo(save(quadrants(*size), tmp_path / f"a{suffix}"), 32)
        assert photo.thumbnail is not None
        thumbnail = Image.open(io.BytesIO(photo.thumbnail))
        assert (thumbnail.format, thumbnail.size) == ("WEBP", expected)
        assert max(thumbnail.size) <= THUMBNAIL_SIDE

    def test_looks_like_the_photo(self, tmp_path: Path) -> None:
        photo = read_photo(save(quadrants(1600, 1000), tmp_path / "a.jpg"), 32)
        assert photo.thumbnail is not None
        assert close(corners(Image.open(io.BytesIO(photo.thumbnail)).convert("RGB")), corners(quadrants()), 12)

    def test_only_if_wanted(self, tmp_path: Path) -> None:
        assert read_photo(save(quadrants(), tmp_path / "a.png"), 32, thumbnail=False).thumbnail is None


class TestDate:
    def test_taken_wins_over_scanned_and_changed(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.DateTime] = "2023:03:03 03:03:03"
        assert facts_with(tmp_path, exif).taken_at == datetime.datetime(2023, 3, 3, 3, 3, 3)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeDigitized] = "2022:02:02 02:02:02"
        assert facts_with(tmp_path, exif).taken_at == datetime.datetime(2022, 2, 2, 2, 2, 2)
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:01:01 01:01:01"
        assert facts_with(tmp_path, exif).taken_at == datetime.datetime(2021, 1, 1, 1, 1, 1)

    @pytest.mark.parametrize(
        ("written", "taken"),
        [
            ("2020-02-29T10:11:12", datetime.datetime(2020, 2, 29, 10, 11, 12)),
            ("2020:02:29 10:11:12\0junk", datetime.datetime(2020, 2, 29, 10, 11, 12)),
            ("2019:02:29 10:11:12", None),
            ("0000:00:00 00:00:00", None),
            ("0001:01:01 00:00:00", None),
            ("9999:01:01 00:00:00", None),
            ("    :  :     :  :  ", None),
            ("yesterday", None),
            ("", None),
        ],
    )
    def test_as_cameras_write_it(self, tmp_path: Path, written: str, taken: datetime.datetime | None) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.DateTime] = written
        assert facts_with(tmp_path, exif).taken_at == taken


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("SONY\0\0", "  ILCE-7M3 \0", "SONY ILCE-7M3"),
        ("Apple", None, "Apple"),
        (None, "Pixel 7", "Pixel 7"),
        ("   ", "", None),
        (None, None, None),
        ("A\x07B", "C" * 300, "AB " + "C" * 97),
    ],
)
def test_camera(tmp_path: Path, make: str | None, model: str | None, camera: str | None) -> None:
    exif = Image.Exif()
    if make is not None:
        exif[ExifTags.Base.Make] = make
    if model is not None:
        exif[ExifTags.Base.Model] = model
    assert facts_with(tmp_path, exif).camera == camera


class TestPlace:
    @pytest.mark.parametrize(
        ("north", "east", "signs"), [("N", "E", (1, 1)), ("S", "W", (-1, -1)), ("n", "w", (1, -1))]
    )
    def test_degrees_with_their_hemisphere(self, tmp_path: Path, north: str, east: str, signs: tuple[int, int]) -> None:
        facts = facts_with(tmp_path, gps((48.0, 51.0, 29.6), north, (2.0, 17.0, 40.2), east))
        assert facts.latitude == pytest.approx(signs[0] * 48.858222, abs=1e-5)
        assert facts.longitude == pytest.approx(signs[1] * 2.2945, abs=1e-5)

    @pytest.mark.parametrize(
        "exif",
        [
            gps((0.0, 0.0, 0.0), "N", (0.0, 0.0, 0.0), "E"),
            gps((91.0, 0.0, 0.0), "N", (2.0, 0.0, 0.0), "E"),
            gps((10.0, 0.0, 0.0), "N", (181.0, 0.0, 0.0), "E"),
            gps((10.0, 75.0, 0.0), "N", (2.0, 0.0, 0.0), "E"),
            gps((10.0, 0.0, 0.0), "", (2.0, 0.0, 0.0), "E"),
            gps((10.0, 0.0, 0.0), "Q", (2.0, 0.0, 0.0), "E"),
            gps((10.0, 0.0, 0.0), "N", (2.0, 0.0, 0.0), "N"),
        ],
    )
    def test_absurd_ones_are_dropped(self, tmp_path: Path, exif: Image.Exif) -> None:
        facts = facts_with(tmp_path, exif)
        assert (facts.latitude, facts.longitude) == (None, None)

    def test_a_zero_denominator_is_no_place(self, tmp_path: Path) -> None:
        data = gps((48.0, 51.0, 29.5), "N", (2.0, 17.0, 40.0), "E").tobytes()
        good = facts_with(tmp_path, data)
        # 29.5 is stored as 59/2, and only it is.
        broken = facts_with(
            tmp_path,
            data.replace(b"\0\0\0\x3b\0\0\0\x02", b"\0\0\0\x3b\0\0\0\0").replace(
                b"\x3b\0\0\0\x02\0\0\0", b"\x3b\0\0\0\0\0\0\0"
            ),
        )
        assert good.latitude is not None
        assert broken.latitude is None


@pytest.mark.filterwarnings("ignore")  # Pillow remarks on broken EXIF
@pytest.mark.parametrize("seed", range(40))
def test_broken_exif_costs_facts_not_the_photo(tmp_path: Path, seed: int) -> None:
    exif = gps((48.0, 51.0, 29.6), "N", (2.0, 17.0, 40.2), "E")
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon EOS 5D"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:01:01 01:01:01"
    block = bytearray(exif.tobytes())
    random = np.random.default_rng(seed)
    for place in random.integers(14, len(block), 12):
        block[place] = random.integers(256)
    if seed % 4 == 0:
        del block[len(block) // 2 :]
    facts = facts_with(tmp_path, bytes(block))
    assert {facts.width, facts.height} == {96, 64}
    assert facts.latitude is None or -90 <= facts.latitude <= 90
