"""TIFF: numbers of every size and order, one after the other or in planes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from indexer.errors import PhotoUnreadable
from indexer.photos import open_rgb
from tests.indexer.photos.pictures import quadrants

COLOURS = np.asarray(quadrants())
RAMP = np.tile(np.arange(52, dtype=np.uint8) * 5, (30, 1))


def opened(levels: NDArray[Any], **options: Any) -> NDArray[np.uint8]:
    """The RGB pixels of a TIFF with these numbers."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, levels, **options)
    stream.seek(0)
    return np.asarray(open_rgb(stream))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_colours(bits: int, planes: str, byteorder: str, compression: str | None, tile: tuple[int, int] | None) -> None:
    levels = COLOURS if bits == 8 else COLOURS.astype(np.uint16) * 257
    seen = opened(
        np.moveaxis(levels, 2, 0) if planes == "separate" else levels,
        photometric="rgb",
        planarconfig=planes,
        byteorder=byteorder,
        compression=compression,
        tile=tile,
    )
    assert np.array_equal(seen, COLOURS)


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_sixteen_bit_inks(planes: str) -> None:
    inks = np.dstack([255 - COLOURS, np.zeros(COLOURS.shape[:2], np.uint8)]).astype(np.uint16) * 257
    levels = np.moveaxis(inks, 2, 0) if planes == "separate" else inks
    assert np.array_equal(opened(levels, photometric="separated", planarconfig=planes), COLOURS)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_grey_of_more_bits(dtype: type, byteorder: str, compression: str | None) -> None:
    # Stretched from 0…25,500 to 0…255.
    levels: NDArray[Any] = (RAMP.astype(np.int32) * 100).astype(dtype)
    seen = opened(levels, photometric="minisblack", byteorder=byteorder, compression=compression)[..., 0]
    assert np.abs(seen.astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_that_counts_from_white(dtype: type) -> None:
    levels: NDArray[Any] = RAMP.astype(dtype) * (257 if dtype is np.uint16 else 1)
    seen = opened(levels, photometric="miniswhite")[..., 0]
    assert np.array_equal(seen, 255 - RAMP)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint32])
def test_colours_that_are_not_read_say_so(dtype: type) -> None:
    with pytest.raises(PhotoUnreadable, match="colours of 32 bits or in floating point"):
        opened(COLOURS.astype(dtype), photometric="rgb")


def test_a_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + bytes(60))
    with pytest.raises(PhotoUnreadable, match="a TIFF that is damaged"):
        open_rgb(path)
