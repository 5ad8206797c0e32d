"""The real command, as a process, over a small library."""

import contextlib
import gc
import importlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import LibraryNotFound
from indexer.library import Library
from scripts.sample_library import write_samples
from tests.browser.pictures import TRIP, write_taken
from tests.command import COMMAND, ROOT, environment, photoseek, photoseek_here
from ui.cli import _importing

JPEGS = ("china.jpg", "flower.jpg", "hubble_deep_field.jpg", "rocket.jpg")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples, one file with an odd name, and two that are no photos."""
    photos = tmp_path_factory.mktemp("photos")
    write_samples(photos)
    (photos / "odd [red]\x1b[31m\tname.png").write_bytes((photos / "coffee.png").read_bytes())
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("no picture")
    return photos


@pytest.fixture(scope="module")
def library(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library") / "of mine"
    photoseek("index", photos, library=library)
    return library


@pytest.fixture(scope="module")
def outings(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two outings with a photo each: a temple in Paris, a cup of coffee in Bern."""
    outings = tmp_path_factory.mktemp("outings")
    for name in ("paris", "bern"):
        (outings / name).mkdir()
    bern = ("2021:02:03 10:00:00", "NIKON D750", (46.948, 7.4474))
    write_taken(photos / "china.jpg", outings / "paris" / "temple.jpg", *TRIP)
    write_taken(photos / "coffee.png", outings / "bern" / "coffee.jpg", *bern)
    photoseek_here("index", outings, library=outings / "library")
    return outings


def on_terminal(*arguments: str | Path, library: Path) -> str:
    """What a terminal of 200 columns receives."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(library, COLUMNS="200", TERM="xterm-256color"),
        cwd=ROOT,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    received = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # so Linux says that the last process has closed the terminal; others return nothing
            break
        if not chunk:
            break
        received += chunk
    os.close(leader)
    assert process.wait(240) == 0, received
    return received.decode()


class TestIndex:
    def test_says_what_it_did_in_one_line(self, photos: Path, tmp_path: Path) -> None:
        done = photoseek("index", photos, library=tmp_path / "library")

        assert re.fullmatch(r"17 added, 0 updated, 0 moved, 0 unchanged, 0 removed, 2 failed in .+ s\n", done.stdout), (
            done.stdout
        )
        assert "photoseek failures" in done.stderr
        assert "\x1b" not in done.stdout + done.stderr

    def test_again_finds_nothing_to_do(self, photos: Path, library: Path) -> None:
        summary = json.loads(photoseek("index", photos, "--json", "--profile", library=library).stdout)

        assert summary["embedded"] == 0
        assert summary["profile"]["model_waited"] == 1
        assert summary["added"] == summary["updated"] == summary["moved"] == summary["removed"] == 0

    def test_draws_a_bar_on_a_terminal(self, photos: Path, tmp_path: Path) -> None:
        received = on_terminal("index", photos, "--profile", library=tmp_path / "library")

        assert "\x1b[" in received
        assert "photos/s" in received
        assert "17 added" in received
        assert "Of the run" in received

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        done = photoseek("index", tmp_path / "nowhere", library=tmp_path / "library", code=1)

        assert str(tmp_path / "nowhere") in done.stderr
        assert done.stderr.count("\n") == 1

    def test_an_unknown_model(self, photos: Path, tmp_path: Path) -> None:
        done = photoseek("index", photos, "--model", "clip", library=tmp_path / "library", code=1)

        assert "'clip'" in done.stderr
        assert "compact" in done.stderr

    @pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted_it_keeps_what_it_did_and_goes_on_later(
        self, by: signal.Signals, code: int, tmp_path: Path
    ) -> None:
        many = tmp_path / "many"
        many.mkdir()
        for number in range(200):
            Image.effect_noise((320, 240), number + 1).save(many / f"{number}.jpg")
        process = subprocess.Popen(
            [*COMMAND, "index", many, "--json"],
            env=environment(tmp_path / "library"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_photos(tmp_path / "library")
        process.send_signal(by)
        output, errors = process.communicate(timeout=60)

        assert process.returncode == code, errors
        assert "Traceback" not in errors
        first = json.loads(output)
        assert first["cancelled"]
        assert 0 < first["added"] < 200
        second = json.loads(photoseek("index", many, "--json", library=tmp_path / "library").stdout)
        assert second["unchanged"] == first["added"]
        assert second["added"] == 200 - first["added"]

    @pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_watching_it_indexes_what_comes(self, by: signal.Signals, code: int, photos: Path, tmp_path: Path) -> None:
        watched = tmp_path / "watched"
        watched.mkdir()
        shutil.copyfile(photos / "coins.png", watched / "coins.png")
        process = subprocess.Popen(
            [*COMMAND, "index", watched, "--watch", "--json"],
            env=environment(tmp_path / "library"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            first = json.loads(process.stdout.readline())
            shutil.copyfile(photos / "rocket.jpg", watched / "rocket.jpg")
            second = json.loads(process.stdout.readline())
            process.send_signal(by)

        assert process.wait(60) == code
        assert (first["added"], second["added"], second["unchanged"]) == (1, 1, 1)


class TestSearch:
    def test_a_line_a_result_best_first(self, photos: Path, library: Path) -> None:
        done = photoseek("search", "a cup of coffee", "--top", "3", library=library)

        lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert [line[0] for line in lines] == ["1", "2", "3"]
        assert lines[0][3] in {str(photos / "coffee.png"), str(photos / r"odd [red]\x1b[31m\tname.png")}
        assert all(re.fullmatch(r"\d+ %", line[1]) and line[2].endswith(" match") for line in lines)
        assert "\x1b" not in done.stdout + done.stderr
        assert "16 pictures" in done.stderr

    def test_json(self, photos: Path, library: Path) -> None:
        document = json.loads(photoseek("search", "a cup of coffee", "--json", "--top", "2", library=library).stdout)

        assert document["query"] == "a cup of coffee"
        assert document["considered"] == 16
        assert len(document["results"]) == 2
        best = document["results"][0]
        assert {Path(best["path"]), *map(Path, best["copies"])} == {
            photos / "coffee.png",
            photos / "odd [red]\x1b[31m\tname.png",
        }
        assert best["rank"] == 1
        assert 0 <= best["match"] <= 1
        assert -1 <= best["similarity"] <= 1
        assert "total" in document["took_ms"]

    def test_paths_name_files_that_exist(self, library: Path) -> None:
        done = photoseek("search", "a cup of coffee", "--paths", library=library)

        paths = [Path(line) for line in done.stdout.splitlines()]
        assert len(paths) == 16
        assert all(path.is_file() for path in paths)

    def test_paths_of_names_that_are_not_unicode(self, photos: Path, tmp_path: Path) -> None:
        odd = tmp_path / os.fsdecode(b"caf\xe9")
        odd.mkdir()
        shutil.copyfile(photos / "coins.png", odd / os.fsdecode(b"\xff coins.png"))
        photoseek("index", odd, library=tmp_path / "library")

        done = photoseek("search", "coins", "--paths", library=tmp_path / "library")

        assert done.stdout == f"{odd / os.fsdecode(bytes([255]) + b' coins.png')}\n"
        photoseek("search", "coins", library=tmp_path / "library")

    def test_a_table_on_a_terminal(self, photos: Path, library: Path) -> None:
        received = on_terminal("search", "a cup of coffee", library=library)

        assert "Match" in received
        assert str(photos / "coins.png") in received
        assert "\x1b[31m" not in received, "a file's name must not command the terminal"

    def test_like_needs_no_words(self, photos: Path, library: Path) -> None:
        done = photoseek("search", "--like", photos / "moon.png", "--paths", library=library)

        assert done.stdout.splitlines()[0] == str(photos / "moon.png")

    @pytest.mark.parametrize(
        ("option", "value", "kept"),
        [
            ("--after", "2021-02-03", "bern/coffee.jpg"),
            ("--before", "2019-07-14", "paris/temple.jpg"),
            ("--near", "48.86,2.35,10", "paris/temple.jpg"),
            ("--camera", "nikon", "bern/coffee.jpg"),
            ("--folder", "bern", "bern/coffee.jpg"),
            ("--not", "a cup of coffee", "paris/temple.jpg"),
        ],
    )
    def test_each_filter_keeps_what_it_says(
        self,
        option: str,
        value: str,
        kept: str,
        outings: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(outings)  # the folder may be a relative one
        photoseek_here("search", "something", option, value, "--paths", library=outings / "library")

        assert capfd.readouterr().out == f"{outings / kept}\n"

    def test_filters(self, photos: Path, library: Path, tmp_path: Path) -> None:
        jpegs = photoseek("search", "something", "--format", "jpeg", "--paths", library=library).stdout.splitlines()
        elsewhere = photoseek("search", "something", "--folder", tmp_path, library=library)
        restricted = ["--after", "2001-01-01", "--before", "2001-12-31", "--near", "48.86,2.35,10", "--camera", "canon"]
        undated = photoseek("search", "something", *restricted, library=library)

        assert sorted(map(Path, jpegs)) == sorted(photos / name for name in JPEGS)
        for done in (elsewhere, undated):
            assert done.stdout == ""
            assert "No photo to search" in done.stderr

    def test_min_match_that_nothing_reaches(self, library: Path) -> None:
        done = photoseek("search", "zebra crossing", "--min-match", "1", library=library)

        assert done.stdout == ""
        assert "--min-match" in done.stderr

    def test_a_reader_that_leaves_early(self, library: Path) -> None:
        command = f"{sys.executable} -m ui.cli search coffee --paths | head -n 1"
        done = subprocess.run(
            ["bash", "-c", command], env=environment(library), cwd=ROOT, capture_output=True, text=True, check=True
        )

        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "what to look for"),
            (["cat", "--after", "yesterday"], "'yesterday' is not a date"),
            (["cat", "--near", "48.86"], "'48.86' is not a place"),
            (["cat", "--near", "98,2,1"], "The latitude is 98"),
            (["cat", "--near", "nan,2,1"], "The latitude is nan"),
            (["cat", "--format", "psd"], "psd"),
            (["cat", "--top", "0"], "greater than or equal to 1"),
            (["cat", "--min-match", "93"], "less than or equal to 1"),
            (["cat", "--like", "nowhere.jpg"], "nowhere.jpg"),
            (["cat", "--json", "--paths"], "--paths"),
            (["cat", "--after", "2020-01-02", "--before", "2020-01-01"], "2020-01-01"),
            ([" "], "empty"),
            (["cat", "--colour", "red"], "--colour"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_wrong_usage(self, arguments: Sequence[str], said: str, library: Path) -> None:
        done = photoseek("search", *arguments, library=library, code=2)

        assert said in " ".join(done.stderr.split())
        assert done.stdout == ""

    def test_like_a_file_that_is_no_picture(self, photos: Path, library: Path) -> None:
        done = photoseek("search", "--like", photos / "text.png", library=library, code=1)

        assert "text.png" in done.stderr


class TestLibrary:
    @pytest.mark.parametrize("command", [("search", "cat"), ("status",), ("failures",), ("verify",)])
    def test_one_that_is_not_there(self, command: Sequence[str], tmp_path: Path) -> None:
        done = photoseek(*command, library=tmp_path / "nowhere", code=1)

        assert str(tmp_path / "nowhere") in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "nowhere").exists()

    def test_named_by_option_or_variable(self, library: Path, tmp_path: Path) -> None:
        done = photoseek("status", "--library", library, library=tmp_path / "nowhere")

        assert str(library) in done.stdout

    def test_status(self, photos: Path, library: Path) -> None:
        done = photoseek("status", library=library)

        told = dict(line.split("\t", 1) for line in done.stdout.splitlines())
        assert told["Photos"] == "17"
        assert told["Distinct pictures"] == "16"
        assert told["Failed"] == "2"
        assert told["Model"].startswith("compact")
        assert told["Folder"] == f"{photos} (17 photos)"

    def test_failures(self, photos: Path, library: Path) -> None:
        done = photoseek("failures", library=library)

        reasons = dict(line.split("\t", 1) for line in done.stdout.splitlines())
        assert set(reasons) == {str(photos / "empty.jpg"), str(photos / "text.png")}
        assert all(reasons.values())

    def test_verify_finds_nothing(self, library: Path) -> None:
        assert "agree" in photoseek("verify", library=library).stdout

    def test_verify_tells_and_repairs(self, photos: Path, tmp_path: Path) -> None:
        library = tmp_path / "library"
        photoseek("index", photos, library=library)
        before = photoseek("search", "coins", "--paths", library=library).stdout
        (library / "vectors.faiss").write_bytes(b"damaged")

        found = photoseek("verify", library=library, code=1)
        assert "vectors" in found.stdout
        photoseek("verify", "--repair", library=library)
        photoseek("verify", library=library)
        assert photoseek("search", "coins", "--paths", library=library).stdout == before

    @pytest.mark.parametrize("arguments", [["--help"], ["status"], ["failures"], ["search", "--help"]], ids=" ".join)
    def test_pytorch_is_not_imported_without_need(self, arguments: list[str], library: Path) -> None:
        run_without_pytorch(*arguments, library=library)

    def test_pytorch_is_not_imported_to_find_nothing_new(self, photos: Path, library: Path) -> None:
        run_without_pytorch("index", str(photos), library=library)


def run_without_pytorch(*arguments: str, library: Path) -> None:
    program = (
        "import sys\nfrom ui.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'streamlit'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(library),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )


class TestEvaluate:
    @pytest.fixture
    def captions(self, photos: Path, tmp_path: Path) -> Path:
        """Of three photos, the last with words that fit another one."""
        captions = {
            "coffee.png": "a cup of coffee",
            "rocket.jpg": "a rocket on the launch pad",
            "coins.png": "a cup of coffee",
        }
        for name in captions:
            shutil.copyfile(photos / name, tmp_path / name)
        rows = [json.dumps({"file": name, "captions": [caption]}) for name, caption in captions.items()]
        (tmp_path / "captions.jsonl").write_text("\n".join(rows))
        return tmp_path / "captions.jsonl"

    def test_prints_recalls(self, captions: Path, library: Path) -> None:
        done = photoseek("evaluate", captions, "--rerank", "2", library=library)

        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert [row[:3] for row in rows[:4]] == [
            ["text to image", "ITC", "3"],
            ["text to image", "ITM", "3"],
            ["image to text", "ITC", "3"],
            ["image to text", "ITM", "3"],
        ]
        # Of three queries drawn again and again, two of which succeed, none succeeds in 4 % of the draws, all in 30 %.
        assert [(row[3], row[5]) for row in rows[:4]] == [("66.7 (0.0–100.0)", "100.0 (100.0–100.0)")] * 4
        assert rows[4][0].startswith("match probability: AUROC ")

    def test_json(self, captions: Path, library: Path) -> None:
        done = photoseek("evaluate", captions, "--rerank", "0", "--sample", "2", "--json", library=library)

        document = json.loads(done.stdout)
        assert (document["photos"], document["captions"], document["sample"]) == (3, 3, 2)
        assert document["text_to_image"]["itc"]["r10"] == 100
        assert "itm" not in document["text_to_image"]

    def test_terminated_it_leaves_nothing_behind(self, captions: Path, library: Path, tmp_path: Path) -> None:
        room = tmp_path / "room"
        room.mkdir()
        process = subprocess.Popen(
            [*COMMAND, "evaluate", captions],
            env=environment(library, TMPDIR=str(room)),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not list(room.glob("photoseek-evaluate-*/library")) and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
        _, errors = process.communicate(timeout=60)

        assert process.returncode == 143
        assert "Traceback" not in errors
        assert list(room.iterdir()) == []

    def test_captions_that_are_none(self, photos: Path, library: Path) -> None:
        done = photoseek("evaluate", photos / "text.png", library=library, code=1)

        assert "text.png" in done.stderr


def test_models_lists_the_shipped_one(library: Path) -> None:
    lines = [line.split("\t") for line in photoseek("models", library=library).stdout.splitlines()]

    assert [line[0] for line in lines] == ["compact", "blip2", "blip2-coco"]
    assert all(len(line) == 3 and line[2] for line in lines)


def test_version(library: Path) -> None:
    assert re.fullmatch(r"photoseek \d+\.\d+\.\d+\n", photoseek("--version", library=library).stdout)


def test_without_a_command_it_helps(library: Path) -> None:
    done = photoseek(library=library, code=2)
    assert "Usage: " in done.stdout + done.stderr


def wait_for_photos(library: Path) -> None:
    """Return when the library holds a photo."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with contextlib.suppress(LibraryNotFound), Library.open(library) as opened:
            if opened.status().photos:
                return
        time.sleep(0.05)
    raise AssertionError("no photo was indexed in four minutes")


def test_the_garbage_collector_goes_on_when_all_is_imported() -> None:
    try:
        with pytest.raises(ModuleNotFoundError), _importing():
            importlib.import_module("indexer.nothing")
        assert gc.isenabled()
    finally:
        gc.unfreeze()
