"""Whatever EXIF says, its facts are true ones or none, and the picture is never lost for it."""

import datetime
import io
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from indexer.photos import open_rgb
from indexer.photos._exif import ExifFacts, facts_of, read_exif, read_tiff_header

FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's remarks; in decoders they are ignored too

TAGS = (
    ExifTags.Base.Orientation,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.DateTimeOriginal,
    ExifTags.Base.DateTimeDigitized,
    ExifTags.IFD.Exif,
    ExifTags.IFD.GPSInfo,
    ExifTags.IFD.MakerNote,
    ExifTags.IFD.Interop,
    *range(1, 5),  # those of a place
)
VALUES = st.one_of(
    st.binary(max_size=12),
    st.integers(0, 2**32 - 1).map(lambda number: struct.pack("<I", number)),
    st.sampled_from(
        [b"N\0", b"E\0", b"2020:02:30 25:61:61\0", b"0000:00:00 00:00:00\0", b"Canon\0\0\xff", b"\xff" * 8]
    ),
)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A TIFF header and up to three directories, whose entries lead anywhere."""
    order = draw(st.sampled_from("<>"))
    tail = draw(st.binary(max_size=100))
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", draw(st.sampled_from([8, 8, 8, 0, 7])))
    for _ in range(draw(st.integers(1, 3))):
        entries = draw(
            st.lists(st.tuples(st.sampled_from(TAGS), st.integers(0, 14), st.integers(), VALUES), max_size=8)
        )
        data += struct.pack(f"{order}H", draw(st.sampled_from([len(entries), len(entries) + 1, 2**16 - 1])))
        for tag, kind, count, value in entries:
            number = draw(st.sampled_from([1, 2, 3, 20, abs(count) % 2**32]))
            data += struct.pack(f"{order}HHI", tag, kind, number) + value[:4].ljust(4, b"\0")
        data += struct.pack(f"{order}I", draw(st.sampled_from([0, 8, len(data), 2**32 - 1])))
    return data + tail


def check(facts: ExifFacts) -> None:
    assert facts.orientation in range(1, 9)
    if facts.taken_at is not None:
        assert 1826 <= facts.taken_at.year <= datetime.datetime.now().year + 1
        assert facts.taken_at.tzinfo is None
    if facts.camera is not None:
        assert 0 < len(facts.camera) <= 100
        assert facts.camera == facts.camera.strip()
        assert facts.camera.isprintable()
        assert facts.camera.encode()
    assert (facts.latitude is None) == (facts.longitude is None)
    if facts.latitude is not None and facts.longitude is not None:
        assert abs(facts.latitude) <= 90
        assert abs(facts.longitude) <= 180


@FUZZ
@given(blocks() | st.binary(max_size=300))
def test_headers_of_raw_files(data: bytes) -> None:
    check(read_tiff_header(data))


@FUZZ
@given(
    st.dictionaries(st.sampled_from([*TAGS, ExifTags.Base.ImageWidth]), st.none() | st.integers() | st.text() | VALUES),
    st.dictionaries(
        st.sampled_from(range(1, 5)),
        st.text(st.characters(), max_size=3) | st.lists(st.floats() | st.integers() | st.text(), max_size=4).map(tuple),
    ),
)
def test_values_of_any_type(tags: dict[int, object], place: dict[int, object]) -> None:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    exif._ifds[ExifTags.IFD.GPSInfo] = place  # as Pillow keeps what it has read
    check(facts_of(exif))


@settings(FUZZ, max_examples=100)
@given(blocks() | st.binary(min_size=1, max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_pictures(data: bytes, kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "teal").save(file, kind, exif=b"Exif\0\0" + data)
    file.seek(0)
    assert open_rgb(file).size in ((3, 2), (2, 3))
    file.seek(0)
    with Image.open(file) as image:
        check(read_exif(image))


@given(st.datetimes(datetime.datetime(1826, 1, 1), datetime.datetime(2026, 1, 1)), st.integers(1, 8))
@settings(FUZZ, max_examples=50)
def test_what_a_camera_writes_is_read(taken: datetime.datetime, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.DateTime] = taken.strftime(f"{taken.year:04}:%m:%d %H:%M:%S")
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "JPEG", exif=exif)
    with Image.open(file) as image:
        facts = read_exif(image)
    assert (facts.orientation, facts.taken_at) == (orientation, taken.replace(microsecond=0))
