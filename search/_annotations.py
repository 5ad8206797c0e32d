"""Photos and what they show, as people wrote it down: the files that an evaluation reads."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import AnnotationsInvalid

_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class AnnotatedPhoto:
    """A photo of the gallery. Without captions and label it is only there to be told from the others."""

    path: Path
    captions: tuple[str, ...]
    label: str | None


def read_annotations(path: Path) -> tuple[AnnotatedPhoto, ...]:
    """Read a file of annotations; the files of photos are relative to its folder.

    Three forms are known: JSON Lines of ``{"file": …, "captions": […]}``, with a ``"label"`` beside or instead of the
    captions; one JSON list of ``{"image": …, "caption": […]}``, as the COCO and Flickr30K splits are published
    for BLIP; and Karpathy's own ``dataset_coco.json`` and ``dataset_flickr30k.json``, of which the test split is read.

    Raises AnnotationsInvalid, naming the line or the entry, also when photos are missing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationsInvalid(f"{path} cannot be read: {error}") from error
    rows = _list_entries(path, text) if text.lstrip().startswith("[") else _karpathy(path, text) or _lines(path, text)
    photos: dict[Path, AnnotatedPhoto] = {}
    for place, row in rows:
        photo = _photo(path, place, row)
        if photo.path in photos:
            raise AnnotationsInvalid(f"{place}: {photo.path} is there twice; put all its captions in one place.")
        photos[photo.path] = photo
    if not any(photo.captions or photo.label for photo in photos.values()):
        raise AnnotationsInvalid(f"{path} lists no photos with captions or labels.")
    missing = [str(file) for file in photos if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN])
        raise AnnotationsInvalid(
            f"{len(missing)} of the {len(photos)} photos that {path} lists are not there: {shown}"
            f"{', …' if len(missing) > _NAMES_SHOWN else ''}. Files are looked up relative to {path.parent.absolute()}."
        )
    return tuple(photos.values())


def _lines(path: Path, text: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                yield place, json.loads(line)
            except ValueError as error:
                raise AnnotationsInvalid(f"{place} is not JSON: {error}") from error


def _karpathy(path: Path, text: str) -> list[tuple[str, object]] | None:
    """The test split in our own form; None for a file that is no ``{"images": […]}``."""
    try:
        document = json.loads(text)
    except ValueError:  # several lines
        return None
    if not isinstance(document, dict) or "images" not in document:
        return None
    if not isinstance(document["images"], list):
        raise AnnotationsInvalid(f'{path} is not as Karpathy\'s splits: "images" must be a list.')
    rows: list[tuple[str, object]] = []
    for number, image in enumerate(document["images"], start=1):
        place = f"{path}, image {number}"
        try:
            if image["split"] == "test":
                file = "/".join(image[key] for key in ("filepath", "filename") if image.get(key))
                rows.append((place, {"file": file, "captions": [sentence["raw"] for sentence in image["sentences"]]}))
        except (AttributeError, KeyError, TypeError) as error:
            raise AnnotationsInvalid(f"{place} is not as in Karpathy's splits: {error!r}") from error
    if not rows:
        raise AnnotationsInvalid(f"{path} has no images of the test split.")
    return rows


def _list_entries(path: Path, text: str) -> Iterator[tuple[str, object]]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise AnnotationsInvalid(f"{path} is not JSON: {error}") from error
    for number, entry in enumerate(entries, start=1):
        yield f"{path}, entry {number}", entry


def _photo(path: Path, place: str, row: object) -> AnnotatedPhoto:
    if not isinstance(row, dict):
        raise AnnotationsInvalid(f'{place} is not an object like {{"file": "photo.jpg", "captions": ["…"]}}.')
    file = row.get("file", row.get("image"))
    captions = row.get("captions", row.get("caption"))
    label = row.get("label")
    if not isinstance(file, str) or not file:
        raise AnnotationsInvalid(f'{place} names no photo: "file" must be a path.')
    if label is not None and not (isinstance(label, str) and label.strip()):
        raise AnnotationsInvalid(f'{place}: "label" must be a word, not {label!r}.')
    if captions is None and label is None:
        raise AnnotationsInvalid(f'{place} has neither "captions" nor a "label".')
    texts = captions if captions is not None else []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise AnnotationsInvalid(f'{place}: "captions" must be a list of sentences.')
    return AnnotatedPhoto(path.parent.absolute() / file, tuple(texts), label)
