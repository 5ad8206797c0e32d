"""What a picture file looks like once it is open: the same upright RGB whatever the format and mode."""

import datetime
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps

from indexer.errors import PhotoUnreadable
from indexer.photos import MAX_PIXELS, SUPPORTED, is_supported, open_rgb, read_photo
from tests.indexer.photos.pictures import close, corners, dng, quadrants, save, saved

FORMATS = {
    ".jpg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".bmp": "BMP",
    ".heic": "HEIF",
    ".avif": "AVIF",
}


@pytest.mark.parametrize(("suffix", "name"), FORMATS.items())
def test_every_format_is_read_and_named(tmp_path: Path, suffix: str, name: str) -> None:
    path = save(quadrants(), tmp_path / f"a{suffix}")
    picture = open_rgb(path)
    assert (picture.mode, picture.size) == ("RGB", (96, 64))
    assert close(corners(picture), corners(quadrants()), 12)
    facts = read_photo(path, 32).facts
    assert (facts.format, facts.width, facts.height) == (name, 96, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_exif_orientation_is_honoured(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Pillow's AVIF writer turns orientation into AVIF's own transformation, as its standard wants.
    data = saved(quadrants(), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert expected is not None
    picture = open_rgb(io.BytesIO(data))
    assert picture.size == expected.size == ((64, 96) if orientation >= 5 else (96, 64))
    assert close(corners(picture), corners(expected.convert("RGB")), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_heif_is_honoured_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = quadrants()
    # Only from here does pillow-heif write HEIF's own transformation, as phones do, beside the EXIF.
    picture.info["exif"] = exif.tobytes()
    data = saved(picture, "HEIF")
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    expected = ImageOps.exif_transpose(_with_orientation(quadrants(), orientation))
    assert expected is not None
    opened = open_rgb(io.BytesIO(data))
    assert opened.size == expected.size
    assert close(corners(opened), corners(expected), 12)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
def test_facts_of_exif(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "EOS 5D"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2021:05:06 07:08:09"}
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 30.0, 0.0), 3: "W", 4: (13.0, 15.0, 0.0)}
    # As bytes: Pillow does not write the inner parts of what was never read into a TIFF.
    facts = read_photo(save(quadrants(), tmp_path / f"a{suffix}", exif=exif.tobytes()), 32).facts
    assert facts.format == FORMATS[suffix]
    assert facts.taken_at == datetime.datetime(2021, 5, 6, 7, 8, 9)
    assert facts.camera == "Canon EOS 5D"
    assert (facts.latitude, facts.longitude) == (52.5, -13.25)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
def test_facts_have_the_upright_size(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = quadrants()
    picture.info["exif"] = exif.tobytes()
    facts = read_photo(save(picture, tmp_path / f"a{suffix}", exif=picture.info["exif"]), 32).facts
    assert (facts.width, facts.height) == (64, 96)


def test_an_absurd_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert open_rgb(io.BytesIO(saved(quadrants(), "JPEG", exif=exif))).size == (96, 64)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_modes_without_surprises(mode: str) -> None:
    picture = quadrants().convert("L").convert(mode) if mode in ("1", "L", "LA") else quadrants().convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    opened = open_rgb(io.BytesIO(saved(picture, kind)))
    expected = picture.convert("L").convert("RGB") if mode == "1" else picture.convert("RGB")
    assert opened.mode == "RGB"
    assert close(corners(opened), corners(expected), 2)


def test_cmyk_jpeg_is_not_inverted() -> None:
    opened = open_rgb(io.BytesIO(saved(quadrants().convert("CMYK"), "JPEG", quality=95)))
    assert close(corners(opened), corners(quadrants()), 25)


def test_lab_has_its_colours() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = ImageCms.profileToProfile(quadrants(), srgb, lab, outputMode="LAB")
    assert picture is not None
    assert close(corners(open_rgb(io.BytesIO(saved(picture, "TIFF")))), corners(quadrants()), 6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_rescaled_not_clipped(kind: str) -> None:
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    opened = open_rgb(io.BytesIO(saved(Image.fromarray(levels), kind)))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_big_endian_sixteen_bit_grey() -> None:
    data = saved(Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 0x1234, 0xFFFF)), "TIFF")
    assert np.asarray(open_rgb(io.BytesIO(data)))[0, :, 0].tolist() == [0x12, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_levels_without_a_white_are_stretched(dtype: type) -> None:
    levels: NDArray[Any] = np.array([[100, 150, 200]], dtype=dtype)
    opened = open_rgb(io.BytesIO(saved(Image.fromarray(levels), "TIFF")))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 127, 255]


def test_a_flat_or_unfinite_float_picture_opens() -> None:
    for levels in ([[7.0, 7.0]], [[np.nan, np.inf]]):
        picture = Image.fromarray(np.array(levels, dtype=np.float32))
        assert open_rgb(io.BytesIO(saved(picture, "TIFF"))).size == (2, 1)


def test_sixteen_bit_colour() -> None:
    row = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 256, 65535)
    data = _png(2, 1, bit_depth=16, colour_type=2, rows=row)
    assert np.asarray(open_rgb(io.BytesIO(data))).tolist() == [[[255, 128, 0], [0, 1, 255]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_shows_white_not_hidden_colours(mode: str, kind: str) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "LA":
        picture = picture.convert("LA")
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if mode == "P" and kind == "PNG":
        picture = Image.new("P", (2, 1), 0)
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.putpixel((1, 0), 1)
        options = {"transparency": 0}
    opened = open_rgb(io.BytesIO(saved(picture, kind, **options)))
    assert np.asarray(opened).tolist() == [[[255, 255, 255], [0, 0, 0]]]


def test_half_transparent_is_half_white() -> None:
    opened = open_rgb(io.BytesIO(saved(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG")))
    assert np.asarray(opened)[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour(mode: str) -> None:
    black: int | tuple[int, ...] = 0 if mode == "L" else (0, 0, 0)
    opened = open_rgb(io.BytesIO(saved(Image.new(mode, (1, 1)), "PNG", transparency=black)))
    assert np.asarray(opened)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_many_frames_the_first(kind: str) -> None:
    others = [Image.new("RGB", (96, 64), "black")] * 2
    opened = open_rgb(io.BytesIO(saved(quadrants(), kind, save_all=True, append_images=others)))
    assert close(corners(opened), corners(quadrants()), 12)


def test_a_phone_photo_with_pictures_behind_it_is_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(quadrants(), "MPO", save_all=True, append_images=[quadrants(10, 10)]))
    assert read_photo(path, 32).facts.format == "JPEG"


def test_the_bytes_say_the_format_not_the_name(tmp_path: Path) -> None:
    for suffix, kind in ((".jpg", "PNG"), (".heic", "JPEG"), (".png", "HEIF"), (".gif", "WEBP")):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(saved(quadrants(), kind))
        assert read_photo(path, 32).facts.format == kind


def test_suffixes_in_any_case() -> None:
    assert is_supported("IMG_0001.JPG")
    assert is_supported(Path("a/b.HeIc"))
    assert not is_supported("notes.txt")
    assert not is_supported("jpg")
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUPPORTED)


class TestReducedScale:
    """JPEGs are decoded at a fraction of their size when that is enough."""

    @pytest.mark.parametrize("size", [(1600, 1200), (3000, 500), (230, 2000), (448, 448), (449, 1000), (100, 80)])
    def test_never_below_what_is_needed(self, size: tuple[int, int]) -> None:
        data = saved(quadrants(*size), "JPEG")
        opened = open_rgb(io.BytesIO(data), at_least=224)
        assert opened.width >= min(224, size[0])
        assert opened.height >= min(224, size[1])
        assert opened.size == size or min(opened.size) < 448

    def test_is_used_and_facts_keep_the_true_size(self, tmp_path: Path) -> None:
        data = saved(quadrants(4000, 3000), "JPEG")
        assert open_rgb(io.BytesIO(data), at_least=224).size == (500, 375)
        path = tmp_path / "a.jpg"
        path.write_bytes(data)
        facts = read_photo(path, 224).facts
        assert (facts.width, facts.height) == (4000, 3000)

    @pytest.mark.parametrize("size", [(1600, 1200), (4000, 3000)])
    def test_gives_nearly_the_same_pixels(self, tmp_path: Path, size: tuple[int, int]) -> None:
        noise = np.random.default_rng(1).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        path = save(picture, tmp_path / "a.jpg", quality=95)
        full = open_rgb(path).resize((224, 224), Image.Resampling.BICUBIC)
        difference = np.abs(read_photo(path, 224).pixels.astype(int) - np.asarray(full, dtype=int))
        assert difference.mean() < 1.0

    def test_full_size_unless_asked(self) -> None:
        assert open_rgb(io.BytesIO(saved(quadrants(1600, 1200), "JPEG"))).size == (1600, 1200)

    def test_turns_what_it_reduced(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        opened = open_rgb(io.BytesIO(saved(quadrants(1600, 800), "JPEG", exif=exif)), at_least=224)
        assert opened.size == (400, 800)


class TestRaw:
    @pytest.mark.parametrize(
        ("orientation", "size"), [(1, (800, 600)), (6, (600, 800)), (3, (800, 600)), (8, (600, 800))]
    )
    def test_the_cameras_preview_is_used(self, orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
        path = tmp_path / "a.dng"
        path.write_bytes(dng(orientation=orientation, preview=saved(quadrants(800, 600), "JPEG")))
        turned = ImageOps.exif_transpose(_with_orientation(quadrants(), orientation))
        assert turned is not None
        opened = open_rgb(path)
        assert opened.size == size
        assert close(corners(opened), corners(turned), 12)

    def test_without_a_preview_it_is_developed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.DNG"
        path.write_bytes(dng(orientation=8))
        red_below, red_below_too = corners(open_rgb(path))[2:]
        blue_above, _ = corners(open_rgb(path))[:2]
        assert red_below[0] > 200 > red_below[2]
        assert red_below_too[0] > 200
        assert blue_above[2] > 200 > blue_above[0]

    def test_a_tiny_preview_of_a_large_photo_is_not_used(self, tmp_path: Path) -> None:
        path = tmp_path / "a.dng"
        path.write_bytes(dng(640, 480, preview=saved(quadrants(80, 60), "JPEG")))
        assert min(open_rgb(path).size) > 400

    def test_facts(self, tmp_path: Path) -> None:
        path = tmp_path / "a.dng"
        path.write_bytes(dng(orientation=6, preview=saved(quadrants(800, 600), "JPEG")))
        facts = read_photo(path, 32).facts
        assert (facts.format, facts.width, facts.height) == ("RAW", 96, 128)
        assert facts.camera == "PhotoSeek Test One"
        assert facts.taken_at is not None
        assert facts.taken_at.isoformat() == "2021-05-06T07:08:09"

    @pytest.mark.parametrize("suffix", [".dng", ".cr2", ".nef", ".arw", ".cr3", ".raf"])
    def test_garbage_is_unreadable(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"II*\0" + os.urandom(4096))
        with pytest.raises(PhotoUnreadable, match="cannot be decoded"):
            open_rgb(path)


class TestUnreadable:
    """Every way in which a file is not a picture has a reason, and none hangs."""

    @pytest.mark.filterwarnings("ignore")  # Pillow remarks on what it then fails to read
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF"])
    @pytest.mark.parametrize("kept", [0.9, 0.5, 0.02])
    def test_truncated(self, kind: str, kept: float) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
        data = saved(noise, kind)
        with pytest.raises(PhotoUnreadable):
            open_rgb(io.BytesIO(data[: int(len(data) * kept)]))

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        path.touch()
        with pytest.raises(PhotoUnreadable, match="the file is empty"):
            open_rgb(path)

    def test_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        path.write_text("Not a picture.")
        with pytest.raises(PhotoUnreadable, match="not a picture in a format that PhotoSeek reads"):
            open_rgb(path)

    @pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "EPS"])
    def test_formats_that_are_not_photos_are_not_opened(self, kind: str) -> None:
        with pytest.raises(PhotoUnreadable, match="not a picture"):
            open_rgb(io.BytesIO(saved(quadrants(), kind)))

    @pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (16_001, 16_001), (2**31 - 1, 1)])
    def test_too_many_pixels(self, width: int, height: int) -> None:
        assert width * height > MAX_PIXELS
        with pytest.raises(PhotoUnreadable, match="more than 256 megapixels are not decoded"):
            open_rgb(io.BytesIO(_png(width, height, bit_depth=8, colour_type=2, rows=b"")))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0)])
    def test_no_pixels(self, width: int, height: int) -> None:
        for data in (_png(width, height, bit_depth=8, colour_type=2, rows=b""), _bmp(width, height)):
            with pytest.raises(PhotoUnreadable):
                open_rgb(io.BytesIO(data))

    def test_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(PhotoUnreadable, match="No such file"):
            open_rgb(tmp_path / "a.jpg")

    @pytest.mark.timeout(20)
    def test_not_a_file(self, tmp_path: Path) -> None:
        fifo, loop, folder = tmp_path / "fifo.jpg", tmp_path / "loop.jpg", tmp_path / "folder.jpg"
        os.mkfifo(fifo)
        loop.symlink_to(loop)
        folder.mkdir()
        with pytest.raises(PhotoUnreadable, match="not a regular file"):
            open_rgb(fifo)
        with pytest.raises(PhotoUnreadable, match="not a regular file"):
            open_rgb(folder)
        with pytest.raises(PhotoUnreadable, match="cannot be read"):
            open_rgb(loop)


def _with_orientation(picture: Image.Image, orientation: int) -> Image.Image:
    picture.getexif()[0x0112] = orientation
    return picture


def _png(width: int, height: int, *, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">LLBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<LHHL", 54, 0, 0, 54) + header
