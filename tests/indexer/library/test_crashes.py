"""Killed at any instant, a library opens, agrees with itself, and goes on."""

import dataclasses
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexer.library import Library
from tests.indexer.library.pictures import MODEL, file, picture, query_for

# Adds, edits, moves and removes without end, and says each picture when it is committed.
WORK = """
import sys
from pathlib import Path
from indexer.library import Library
from tests.indexer.library.pictures import MODEL, add, file, picture

with Library.create(Path(sys.argv[1])) as library, library.writer() as writer:
    print("writing", flush=True)
    writer.use_model(MODEL)
    folder = writer.add_folder(Path(sys.argv[2]))
    start = len(writer.known_files(folder))
    for number in range(start, start + 10_000):
        names = [f"{number}-{letter}" for letter in "abc"]
        add(writer, folder, names)
        print("added", *names, flush=True)
        known = writer.known_files(folder)
        a, b = (known[f"{name}.jpg"] for name in names[:2])
        writer.mark_missing([a.photo_id])
        print("missing", names[0], flush=True)
        writer.commit([file(folder, f"{number}-moved.jpg", names[0], photo_id=a.photo_id)], [])
        print("back", names[0], flush=True)
        new = f"{number}-new"
        writer.commit([file(folder, f"{names[1]}.jpg", new, photo_id=b.photo_id)], [picture(new)])
        print("edited", names[1], new, flush=True)
        writer.refresh_vectors()
"""


class Expected:
    """Pictures that are there, and that are not there any more, by what the work has said."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.absent: set[str] = set()
        self._last = ""

    def hear(self, line: str) -> None:
        verb, *names = line.split()
        self._last = names[0].split("-")[0]
        if verb in ("added", "back"):
            self.present |= set(names)
            self.absent -= set(names)
        elif verb == "missing":
            self._remove(names[0])
        elif verb == "edited":
            self._remove(names[0])
            self.present.add(names[1])

    def doubt_the_last(self) -> None:
        """What was under way when it was killed may have been done and not been said. Nothing is ever done to "c"."""
        doubtful = {f"{self._last}-{part}" for part in ("a", "b", "new")}
        self.present -= doubtful
        self.absent -= doubtful

    def _remove(self, name: str) -> None:
        self.present.discard(name)
        self.absent.add(name)


def work_and_be_killed(directory: Path, photos: Path, after_s: float) -> list[str]:
    """Lines that the work said before it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", WORK, directory, photos], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == "writing\n"
        time.sleep(after_s)
        process.kill()
        # The kill may cut a line short: what it says is then as good as unsaid.
        return process.stdout.read().split("\n")[:-1]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_killed_writer_leaves_a_library_that_goes_on(tmp_path: Path, photos: Path, seed: int) -> None:
    directory = tmp_path / "library"
    expected = Expected()
    random_times = random.Random(seed)
    for _ in range(2):
        lines = work_and_be_killed(directory, photos, random_times.uniform(0, 0.4))
        for line in lines:
            expected.hear(line)
        expected.doubt_the_last()
        with Library.open(directory) as library:
            assert {finding[:35] for finding in library.verify().findings} <= {
                "vectors.faiss: behind the catalog: ",
                "vectors.faiss: missing",
            }
            for name in expected.present:
                best = library.nearest(query_for(name), 2)
                assert best[0].similarity > 0.9, f"{name} is lost"
                assert len(best) == 1 or best[1].similarity < 0.9, f"{name} is doubled"
                assert len(library.photos_of([best[0].content_id])[best[0].content_id]) == 1
            for name in expected.absent:
                assert library.nearest(query_for(name), 1)[0].similarity < 0.9, f"{name} is stale"
            assert library.verify(repair=True).ok
            assert library.verify().findings == ()


def test_a_library_that_was_killed_while_made_is_made_again(tmp_path: Path) -> None:
    directory = tmp_path / "library"
    Library.create(directory).close()
    # As a kill before the last step leaves it, its write-ahead log and all.
    with Library.open(directory) as library:
        library.status()
        for path in directory.glob("catalog.sqlite*"):
            (directory / path.name.replace("catalog.sqlite", "catalog.sqlite.new")).write_bytes(path.read_bytes())
    for path in directory.glob("catalog.sqlite"):
        path.unlink()
    with Library.create(directory) as library:
        assert library.status().photos == 0
        assert library.verify().findings == ()
    assert list(directory.glob("*.new*")) == []


def test_what_a_writer_that_failed_left_in_the_caches_goes_with_the_next(tmp_path: Path, photos: Path) -> None:
    with Library.create(tmp_path / "library") as library:
        with library.writer() as writer:
            writer.use_model(MODEL)
            folder = writer.add_folder(photos)
            writer.commit([file(folder, "a.jpg", "aa")], [dataclasses.replace(picture("aa"), thumbnail=b"RIFF")])
        with pytest.raises(ValueError, match="no content"), library.writer() as writer:
            writer.commit([file(folder, "b.jpg", "zz")], [dataclasses.replace(picture("bb"), thumbnail=b"RIFF")])
        half_written = library.directory / "thumbnails" / "aa" / ".half"
        half_written.touch()
        assert {finding[:12] for finding in library.verify().findings} >= {"thumbnails: "}
        with library.writer():
            pass
        assert not [finding for finding in library.verify().findings if finding.startswith("thumbnails")]
        assert library.thumbnail(1) == b"RIFF"
        # All is well now, and a library of a million photos is not looked through each time.
        half_written.touch()
        with library.writer():
            pass
        assert half_written.exists()
