"""Option values of the command line: how they are read, and the defaults that several commands share."""

import datetime
import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import typer

if TYPE_CHECKING:
    from indexer.library import Near


class Device(enum.StrEnum):
    """Where the model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class LogLevel(enum.StrEnum):
    """The least important events that the service logs."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class PhotoFormat(enum.StrEnum):
    """Picture formats, as the catalog names them."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    GIF = "gif"
    TIFF = "tiff"
    BMP = "bmp"
    HEIF = "heif"
    AVIF = "avif"
    RAW = "raw"


def default_library() -> Path:
    """$PHOTOSEEK_LIBRARY, else the platform's folder for an application's data."""
    named = os.environ.get("PHOTOSEEK_LIBRARY")
    return Path(named).expanduser() if named else platformdirs.user_data_path("photoseek", appauthor=False)


def parse_date(value: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(
            f"{value!r} is not a date. Write it as YEAR-MONTH-DAY, for example 2024-07-31."
        ) from None


def parse_near(value: str) -> "Near":
    from indexer.library import Near

    try:
        latitude, longitude, km = (float(part) for part in value.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{value!r} is not a place. Write LATITUDE,LONGITUDE,KILOMETRES, for example 48.86,2.35,10."
        ) from None
    return Near(latitude, longitude, km)
