"""The whole protocol on a few drawn photos, against a plain computation over every photo–text pair."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from indexer.errors import AnnotationsInvalid, QueryInvalid
from indexer.model import Model, quantised, restored
from indexer.model.blip2 import EncoderOptions, load_blip2
from indexer.photos import read_photo
from search._metrics import calibration_error
from search.evaluation import EvaluationProgress, evaluate
from tests.indexer.model.blip2_checkpoint import save_checkpoint

CAPTIONS = {
    "red.jpg": ["a red square", "a red picture with nothing in it ."],
    "green.jpg": ["a green field", "grass"],
    "blue.jpg": ["the blue sky", "water in the sea on a sunny day"],
    "stripes.png": ["black and white stripes", "a zebra crossing"],
    "circle.png": ["a yellow circle", "the sun"],
    "dots.png": ["white dots on black", "stars at night"],
    "night.jpg": ["a black night"],
}
LABELS = {"red.jpg": "square", "dots.png": "star", "circle.png": "star"}


def draw(name: str) -> Image.Image:
    plain = {"red": "red", "green": "#2a7", "blue": "#48c", "stripes": "white", "circle": "#114"}
    image = Image.new("RGB", (90, 60), plain.get(Path(name).stem, "black"))
    pen = ImageDraw.Draw(image)
    if name == "stripes.png":
        for x in range(0, 90, 12):
            pen.rectangle((x, 0, x + 5, 60), fill="black")
    if name == "circle.png":
        pen.ellipse((25, 10, 65, 50), fill="yellow")
    if name == "dots.png":
        for x in range(5, 90, 17):
            pen.ellipse((x, (x * 7) % 50, x + 4, (x * 7) % 50 + 4), fill="white")
    return image


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for name, captions in CAPTIONS.items():
        draw(name).save(folder / name)
        row: dict[str, Any] = {"file": name, "captions": captions}
        rows.append(row | ({"label": LABELS[name]} if name in LABELS else {}))
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Oracle:
    """Similarity and match logit of every photo with every text, and ranks by sorting."""

    def __init__(self, model: Model, folder: Path) -> None:
        pixels = np.stack([read_photo(folder / name, model.image_size).pixels for name in CAPTIONS])
        features = model.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        texts = [caption for captions in CAPTIONS.values() for caption in captions]
        self.owner = [photo for photo, captions in enumerate(CAPTIONS.values()) for _ in captions]
        self.labels = sorted(set(LABELS.values()))
        texts += [f"a photo of a {label}" for label in self.labels]
        embeddings = features.embeddings.half().float()  # as a library stores them
        self.similarity = (embeddings @ model.encode_texts(texts).T).amax(dim=1).numpy()
        tokens = restored(quantised(features.tokens), model.device)
        each = [[photo] * len(texts) for photo in range(len(CAPTIONS))]
        logits = torch.stack([model.match(tokens[photo], texts, embeddings[photo]) for photo in each])
        self.logit = logits[..., 1].numpy()
        self.probability = logits.softmax(dim=-1)[..., 1].numpy()
        self.weight = model.match_weight

    def rank(self, similarity: NDArray[np.float32], logit: NDArray[np.float32], right: list[int], rerank: int) -> int:
        order = sorted(range(len(similarity)), key=lambda index: -similarity[index])
        top = sorted(order[:rerank], key=lambda index: -(self.weight * logit[index] + similarity[index]))
        return 1 + min((top + order[rerank:]).index(index) for index in right)

    def ranks(self, direction: str, rerank: int) -> list[int]:
        captions = len(self.owner)
        if direction == "text_to_image":
            return [
                self.rank(self.similarity[:, text], self.logit[:, text], [photo], rerank)
                for text, photo in enumerate(self.owner)
            ]
        if direction == "image_to_text":
            return [
                self.rank(
                    self.similarity[photo, :captions],
                    self.logit[photo, :captions],
                    [text for text, owner in enumerate(self.owner) if owner == photo],
                    rerank,
                )
                for photo in range(len(CAPTIONS))
            ]
        return [
            self.rank(
                self.similarity[:, captions + text],
                self.logit[:, captions + text],
                [photo for photo, name in enumerate(CAPTIONS) if LABELS.get(name) == label],
                rerank,
            )
            for text, label in enumerate(self.labels)
        ]


def measures(ranks: list[int]) -> dict[str, float]:
    document = {f"r{k}": round(100 * sum(rank <= k for rank in ranks) / len(ranks), 2) for k in (1, 5, 10)}
    return document | {"median_rank": round(float(np.median(ranks)), 2)}


def test_every_direction_equals_the_plain_computation(annotations: Path, model: Model) -> None:
    check_every_direction(annotations, model)


def test_another_model_is_measured_as_well(annotations: Path, tmp_path: Path) -> None:
    """A tiny BLIP-2 with random weights: its logits differ widely, so that reranking changes the order."""
    save_checkpoint(tmp_path, image_size=56)
    check_every_direction(annotations, load_blip2(tmp_path, "cpu", encoder=EncoderOptions(dtype=torch.float32)))


def check_every_direction(annotations: Path, model: Model) -> None:
    oracle = Oracle(model, annotations.parent)
    document = evaluate(annotations, model, rerank=3).as_dict()
    assert (document["photos"], document["captions"], document["rerank"]) == (7, 13, 3)
    assert document["model"]["digest"] == model.identity.digest
    for direction in ("text_to_image", "image_to_text", "names"):
        measured = document[direction]
        for stage, rerank in (("itc", 0), ("itm", 3)):
            ranks = oracle.ranks(direction, rerank)
            assert measured["queries"] == len(ranks)
            expected = measures(ranks)
            assert {name: measured[stage][name] for name in expected} == expected, (direction, stage)
            for name, value in expected.items():
                low, high = measured[stage][f"{name}_ci"]
                assert low <= value <= high
    assert document["itm_calibration"]["pairs"] == 26
    assert 0 <= document["itm_calibration"]["auroc"] <= 1
    assert 0 <= document["itm_calibration"]["ece"] <= 1
    json.dumps(document)


def test_calibration_sets_own_photos_against_others(tmp_path: Path, annotations: Path, model: Model) -> None:
    names = ("red.jpg", "stripes.png")  # with two photos, the random other one is known
    for name in names:
        shutil.copy(annotations.parent / name, tmp_path / name)
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps({"file": name, "captions": CAPTIONS[name]}) + "\n" for name in names))
    measured = evaluate(path, model, rerank=1).itm_calibration
    assert measured is not None
    oracle = Oracle(model, annotations.parent)
    photos = [list(CAPTIONS).index(name) for name in names]
    own, other = [], []
    for text, owner in enumerate(oracle.owner):
        if owner in photos:
            own.append(oracle.probability[owner, text])
            other.append(oracle.probability[sum(photos) - owner, text])
    ordered = np.mean([(mine > theirs) + (mine == theirs) / 2 for mine in own for theirs in other])
    assert measured.pairs == 8
    assert measured.auroc == pytest.approx(ordered)
    binned = calibration_error(np.array(own + other, np.float64), np.arange(8) < 4)
    assert measured.ece == pytest.approx(binned, abs=1e-4)


def test_it_is_seeded_and_samples_queries_of_a_whole_gallery(annotations: Path, model: Model) -> None:
    first, again = (evaluate(annotations, model, rerank=2, sample=4, seed=5).as_dict() for _ in range(2))
    assert first | {"seconds": 0} == again | {"seconds": 0}
    assert (first["photos"], first["captions"], first["sample"], first["seed"]) == (7, 13, 4, 5)
    assert [first[name]["queries"] for name in ("text_to_image", "image_to_text", "names")] == [4, 4, 2]


def test_what_was_not_asked_is_absent(tmp_path: Path, annotations: Path, model: Model) -> None:
    shutil.copytree(annotations.parent, tmp_path / "photos")
    labels = tmp_path / "photos" / "labels.jsonl"
    labels.write_text('{"file": "red.jpg", "label": "square"}\n{"file": "blue.jpg", "captions": []}\n')
    document = evaluate(labels, model, rerank=0).as_dict()
    assert set(document) == {"model", "photos", "captions", "rerank", "sample", "seed", "seconds", "names"}
    assert set(document["names"]) == {"queries", "itc"}


def test_photos_are_left_alone_and_nothing_stays_behind(
    tmp_path: Path, annotations: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in annotations.parent.iterdir()}
    seen: list[EvaluationProgress] = []
    evaluate(annotations, model, rerank=1, on_progress=seen.append)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in annotations.parent.iterdir()} == before
    assert list(tmp_path.iterdir()) == []
    assert list(dict.fromkeys(progress.stage for progress in seen)) == ["indexing", "encoding", "matching"]
    last = {progress.stage: progress for progress in seen}
    assert all(progress.done == progress.total for progress in last.values())


def test_two_files_of_the_same_picture_share_its_vectors(tmp_path: Path, model: Model) -> None:
    for name in ("one.png", "two.png"):
        draw("circle.png").save(tmp_path / name)
    path = tmp_path / "captions.jsonl"
    path.write_text('{"file": "one.png", "captions": ["x"]}\n{"file": "two.png", "captions": ["y"]}\n')
    document = evaluate(path, model, rerank=0).as_dict()
    # Both are as similar to either caption: the first wins the tie.
    assert document["text_to_image"]["itc"]["r1"] == 50.0


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path, model: Model) -> None:
    draw("red.jpg").save(tmp_path / "red.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    path = tmp_path / "captions.jsonl"
    path.write_text('{"file": "red.jpg", "captions": ["red"]}\n{"file": "broken.jpg", "captions": ["broken"]}\n')
    with pytest.raises(AnnotationsInvalid, match=r"1 of the 2 photos cannot be indexed.*broken\.jpg"):
        evaluate(path, model)


def test_files_that_are_not_pictures_are_named(tmp_path: Path, model: Model) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    path = tmp_path / "captions.jsonl"
    path.write_text('{"file": "notes.txt", "captions": ["hello"]}\n')
    with pytest.raises(AnnotationsInvalid, match=r"notes\.txt"):
        evaluate(path, model)


def test_match_features_that_are_lost_are_made_again_in_another_process(
    tmp_path: Path, annotations: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    expected = evaluate(annotations, model, rerank=1).as_dict()
    before, decoders = set[int](), set[int]()

    def lose(progress: EvaluationProgress) -> None:
        if progress.stage == "encoding":
            before.update(child.pid for child in psutil.Process().children())
            for features in tmp_path.glob("photoseek-evaluate-*/library/features"):
                shutil.rmtree(features)
        if progress.stage == "matching":
            decoders.update(child.pid for child in psutil.Process().children())

    again = evaluate(annotations, model, rerank=1, on_progress=lose).as_dict()
    assert again | {"seconds": 0} == expected | {"seconds": 0}
    assert len(decoders - before) == 1


def test_a_photo_that_is_lost_while_it_is_evaluated(
    tmp_path: Path, annotations: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def lose(progress: EvaluationProgress) -> None:
        if progress.stage == "encoding":
            (evaluation,) = tmp_path.iterdir()
            shutil.rmtree(evaluation / "library" / "features")
            next(evaluation.glob("photos/*")).unlink()

    with pytest.raises(AnnotationsInvalid, match="could not be read a second time"):
        evaluate(annotations, model, rerank=7, on_progress=lose)


@pytest.mark.parametrize("options", [{"rerank": -1}, {"sample": 0}])
def test_impossible_options(annotations: Path, model: Model, options: dict[str, int]) -> None:
    with pytest.raises(QueryInvalid):
        evaluate(annotations, model, **options)  # type: ignore[arg-type]
