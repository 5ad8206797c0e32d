"""A short torture: nothing is hurt. And one that hurts, to see that it is counted."""

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer.library import Library
from scripts.faults.corpus import PEAK_RSS_MB, photo_files, write_corpus
from scripts.faults.mutations import MUTATIONS
from scripts.faults.oracle import accounted, digest_of, read_catalog, wrong_answers
from scripts.faults.photo_folder import PhotoFolder
from scripts.faults.pictures import KINDS, SIZES, family
from tests.command import ROOT
from tests.indexer.library.pictures import MODEL, add, file, picture, query_for


def torture(*arguments: str | Path) -> dict[str, Any]:
    """What ``scripts/torture.py`` says, called from another directory."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "torture.py", *arguments],
        cwd=ROOT.parent,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_kills_hurt_nothing() -> None:
    assert torture("--kills", "5", "--seed", "1") == {"kills": 5, "lost": 0, "doubled": 0, "stale": 0, "mismatched": 0}


def test_every_file_of_a_corpus_is_accounted_for() -> None:
    report = torture("--corpus", "180", "--seed", "1")
    assert (report["unaccounted"], report["crashes"]) == (0, 0)
    assert report["files"] == report["indexed"] + report["failed"]
    assert report["indexed"] > len(KINDS)
    assert report["failed"] > 20
    assert report["peak_rss_mb"] < PEAK_RSS_MB


@pytest.mark.filterwarnings("ignore")  # Pillow remarks on broken EXIF
def test_a_corpus_hurts_every_family_of_formats_in_every_way_and_has_many_sizes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 180, 1)
    names = [path.stem.split("-", 2) for path in (tmp_path / "photos" / "0").iterdir()]
    hurt = {(how, family(kind)) for how, _, kind in names}
    families = {"jpeg", "png", "webp", "gif", "tiff", "bmp", "heif", "avif", "raw"}
    assert hurt >= set(itertools.product([mutation.__name__ for mutation in MUTATIONS], families))
    assert {kind for how, _, kind in names if how == "valid"} == {kind.replace(";", "-") for kind in KINDS}
    sizes = set()
    for path in (tmp_path / "photos" / "0").glob("valid-*"):
        if path.suffix != ".dng":
            with Image.open(path) as picture:
                sizes.add(picture.size)
    assert sizes >= set(SIZES)


def test_a_file_that_is_not_accounted_for_is_seen(tmp_path: Path) -> None:
    write_corpus(tmp_path / "photos", 20, 1)
    found = set(photo_files(tmp_path / "photos"))
    names = {os.path.basename(path) for path in found}  # noqa: PTH119 - bytes
    assert names >= {b"twin.jpg", b"in.jpg"}
    odd = {"out.jpg", "fifo.jpg", "socket.jpg", "device.jpg", "self.jpg", "zero.jpg", "dangling.jpg"}
    assert not names & set(map(str.encode, odd))
    with Library.create(tmp_path / "library") as library, library.writer() as writer:
        folder = writer.add_folder(tmp_path / "photos")
        some = sorted(found)[:-1]
        writer.use_model(MODEL)
        writer.commit(
            [file(folder, os.fsdecode(path)[len(str(tmp_path / "photos")) + 1 :], "aa") for path in some],
            [picture("aa")],
        )
    indexed, failures = accounted(tmp_path / "library")
    assert (indexed, failures) == (set(some), {})


def test_the_oracle_sees_what_search_gets_wrong(tmp_path: Path) -> None:
    queries = np.stack([query_for(name) for name in "ab"])
    with Library.create(tmp_path / "library") as library:
        with library.writer() as writer:
            writer.use_model(MODEL)
            add(writer, writer.add_folder(tmp_path), ["a", "b"])
        right = read_catalog(library.directory)
        assert right.digests == {f"{tmp_path}/{name}.jpg": name for name in "ab"}
        assert wrong_answers(library, right, queries) == []
        exchanged = dict(zip(right.embeddings, reversed(right.embeddings.values()), strict=True))
        assert wrong_answers(library, right.__class__(right.digests, 2, exchanged, right.digests_by_id), queries)
        fewer = dict(list(right.embeddings.items())[:1])
        assert wrong_answers(library, right.__class__(right.digests, 2, fewer, right.digests_by_id), queries)


def test_a_folder_changes_in_every_way_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        folder = PhotoFolder(tmp_path / name, random.Random(3))
        for _ in range(20):
            folder.add()
        before = {digest_of(path) for path in folder.files()}
        for _ in range(8):
            folder.change()
        after = {digest_of(path) for path in folder.files()}
        assert before - after
        assert after - before
        assert before & after
        contents.append({path.relative_to(folder.path): digest_of(path) for path in folder.files()})
    assert contents[0] == contents[1]
