"""Indexed folders that lie in one another: a photo belongs to the outermost, so that it is never there twice."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """Where the photos of an indexed folder are recorded."""

    folder_id: int
    """Of the outermost indexed folder around it; its own if there is none."""
    prefix: str
    """What its relative paths begin with there: "" or "holiday/2020/"."""


def canonical(path: Path) -> Path:
    """The one absolute path of a folder, whichever links lead to it."""
    return Path(os.path.realpath(path))


def homes(folders: Mapping[int, Path]) -> dict[int, Home]:
    """The home of every indexed folder."""
    found = {}
    for folder_id, path in folders.items():
        around = (other for other, there in folders.items() if path.is_relative_to(there))
        outermost = min(around, key=lambda other: len(folders[other].parts))
        found[folder_id] = Home(outermost, prefix(folders[outermost], path))
    return found


def prefix(outer: Path, inner: Path) -> str:
    """What relative paths below ``inner`` begin with, seen from ``outer``."""
    return "" if inner == outer else f"{inner.relative_to(outer).as_posix()}/"
