import json
from pathlib import Path

import pytest

from indexer.errors import AnnotationsInvalid
from search._annotations import AnnotatedPhoto, read_annotations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def annotations(folder: Path, text: str) -> Path:
    path = folder / "captions.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_with_captions_labels_or_both(folder: Path) -> None:
    path = annotations(
        folder,
        '{"file": "a.jpg", "captions": ["a dog", "un chien\u2028noir"]}\n\n'
        '{"file": "b.jpg", "label": "dolphin"}\r\n'
        '{"file": "c.jpg", "captions": []}\n',
    )
    assert read_annotations(path) == (
        AnnotatedPhoto(folder / "a.jpg", ("a dog", "un chien\u2028noir"), None),
        AnnotatedPhoto(folder / "b.jpg", (), "dolphin"),
        AnnotatedPhoto(folder / "c.jpg", (), None),
    )


def test_the_published_coco_and_flickr_lists(folder: Path) -> None:
    (folder / "val2014").mkdir()
    (folder / "val2014" / "COCO_val2014_1.jpg").touch()
    entries = [
        {"image": "val2014/COCO_val2014_1.jpg", "caption": ["A man.", "A person."]},
        {"image": "a.jpg", "caption": ["A dog."]},
    ]
    assert read_annotations(annotations(folder, json.dumps(entries, indent=1))) == (
        AnnotatedPhoto(folder / "val2014" / "COCO_val2014_1.jpg", ("A man.", "A person."), None),
        AnnotatedPhoto(folder / "a.jpg", ("A dog.",), None),
    )


def karpathy_image(file: str, *sentences: str, split: str = "test", folder: str | None = None) -> dict[str, object]:
    """As in dataset_coco.json, which has a filepath, and dataset_flickr30k.json, which has none."""
    return {
        **({} if folder is None else {"filepath": folder}),
        "sentids": list(range(len(sentences))),
        "filename": file,
        "imgid": 0,
        "split": split,
        "sentences": [
            {"tokens": text.lower().split(), "raw": text, "imgid": 0, "sentid": number}
            for number, text in enumerate(sentences)
        ],
    }


def test_the_test_split_of_karpathys_own_files(folder: Path) -> None:
    (folder / "val2014").mkdir()
    (folder / "val2014" / "COCO_val2014_000000391895.jpg").touch()
    coco = {
        "images": [
            karpathy_image("COCO_val2014_000000391895.jpg", "A man on a moped. ", "Man riding.", folder="val2014"),
            karpathy_image("gone.jpg", "Never looked for.", split="restval", folder="train2014"),
        ],
        "dataset": "coco",
    }
    assert read_annotations(annotations(folder, json.dumps(coco))) == (
        AnnotatedPhoto(
            folder / "val2014" / "COCO_val2014_000000391895.jpg", ("A man on a moped. ", "Man riding."), None
        ),
    )
    flickr = {
        "images": [karpathy_image("b.jpg", "Two boys.", split="train"), karpathy_image("a.jpg", "A dog.")],
        "dataset": "flickr30k",
    }
    assert read_annotations(annotations(folder, json.dumps(flickr))) == (
        AnnotatedPhoto(folder / "a.jpg", ("A dog.",), None),
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([karpathy_image("a.jpg", "A dog."), {"filename": "b.jpg"}], "image 2 is not as in Karpathy's splits: .*split"),
        (["a.jpg"], "image 1 is not as in Karpathy's splits"),
        ([karpathy_image("a.jpg", "A dog.", split="val")], "no images of the test split"),
        ([karpathy_image("a.jpg", " ")], 'image 1: "captions" must be a list of sentences'),
    ],
)
def test_karpathys_files_with_something_missing(folder: Path, images: list[object], message: str) -> None:
    with pytest.raises(AnnotationsInvalid, match=message):
        read_annotations(annotations(folder, json.dumps({"images": images})))


def test_an_empty_folder_of_karpathys_is_the_files_own(folder: Path) -> None:
    path = annotations(folder, json.dumps({"images": [karpathy_image("a.jpg", "A dog.", folder="")]}))
    assert read_annotations(path) == (AnnotatedPhoto(folder / "a.jpg", ("A dog.",), None),)


@pytest.mark.parametrize("images", [None, 3, {"0": karpathy_image("a.jpg", "A dog.")}])
def test_karpathys_images_must_be_a_list(folder: Path, images: object) -> None:
    with pytest.raises(AnnotationsInvalid, match='"images" must be a list'):
        read_annotations(annotations(folder, json.dumps({"images": images})))


def test_photos_of_karpathys_test_split_that_are_missing_are_named(folder: Path) -> None:
    images = [
        karpathy_image("a.jpg", "A dog."),
        karpathy_image("gone.jpg", "A cat.", folder="val2014"),
        karpathy_image("never.jpg", "Not needed.", folder="train2014", split="restval"),
    ]
    with pytest.raises(AnnotationsInvalid, match=r"1 of the 2 photos .*val2014/gone\.jpg\. Files are looked up"):
        read_annotations(annotations(folder, json.dumps({"images": images})))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "b.jpg", "captions": ["x"]', "line 2 is not JSON"),
        ('["b.jpg", "x"]', "line 2 is not an object"),
        ('{"captions": ["x"]}', "line 2 names no photo"),
        ('{"file": 3, "captions": ["x"]}', "line 2 names no photo"),
        ('{"file": "b.jpg"}', 'line 2 has neither "captions" nor a "label"'),
        ('{"file": "b.jpg", "captions": "x"}', 'line 2: "captions" must be a list'),
        ('{"file": "b.jpg", "captions": ["x", " "]}', 'line 2: "captions" must be a list'),
        ('{"file": "b.jpg", "label": ""}', 'line 2: "label" must be a word'),
        ('{"file": "a.jpg", "captions": ["x"]}', r"line 2: .*a\.jpg is there twice"),
    ],
)
def test_a_malformed_line_is_named(folder: Path, line: str, message: str) -> None:
    path = annotations(folder, '{"file": "a.jpg", "captions": ["x"]}\n' + line)
    with pytest.raises(AnnotationsInvalid, match=message):
        read_annotations(path)


def test_a_malformed_entry_of_a_list_is_numbered(folder: Path) -> None:
    path = annotations(folder, '[{"image": "a.jpg", "caption": ["x"]}, {"image": "b.jpg"}]')
    with pytest.raises(AnnotationsInvalid, match="entry 2 has neither"):
        read_annotations(path)


def test_missing_photos_are_counted_and_named(folder: Path) -> None:
    path = annotations(folder, "".join(f'{{"file": "{name}.jpg", "captions": ["x"]}}\n' for name in "abcxyz"))
    with pytest.raises(AnnotationsInvalid, match=r"3 of the 6 photos .*x\.jpg.*relative to"):
        read_annotations(path)


@pytest.mark.parametrize("text", ["", "\n\n", "[]", '{"file": "a.jpg", "captions": []}'])
def test_a_file_that_asks_nothing(folder: Path, text: str) -> None:
    with pytest.raises(AnnotationsInvalid, match="no photos with captions or labels"):
        read_annotations(annotations(folder, text))


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(AnnotationsInvalid, match="cannot be read"):
        read_annotations(folder / "nothing.jsonl")
    (folder / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationsInvalid, match="cannot be read"):
        read_annotations(folder / "binary.jsonl")
