"""scripts/setup.sh and scripts/start, in a copy of their folder: the checkout's own environment is left alone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from PIL import Image

from tests.command import ROOT, answers, environment

SETUP_ONLY = 'source "$(dirname "$0")/setup.sh"; set_up'
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import pathlib, zipfile

def build_editable(directory, *_):
    with zipfile.ZipFile(pathlib.Path(directory) / "tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return "tiny-1-py3-none-any.whl"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts, with an environment that stands already: this process's own, under another name."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(ROOT / name, checkout / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(checkout / ".venv")}))
    (site_packages / "same.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    command = checkout / ".venv" / "bin" / "photoseek"
    command.write_text(f'#!/bin/sh\nexec {checkout}/.venv/bin/python -m ui.cli "$@"\n')
    command.chmod(0o755)
    stamp(checkout)
    return checkout


def stamp(checkout: Path) -> None:
    parts = [f"{checkout}\n", *((checkout / name).read_text() for name in ("requirements.lock", "pyproject.toml"))]
    (checkout / ".venv" / "installed").write_text("".join(parts))


def start(checkout: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [checkout / "scripts" / "start", *arguments],
        env=environment(checkout / "own-library"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_check_finds_the_coffee_in_the_sample_library(checkout: Path) -> None:
    process = start(checkout, "--check", "a cup of coffee")
    output, errors = process.communicate(timeout=200)

    assert process.returncode == 0, errors
    results = [line for line in output.splitlines() if "\t" in line]
    rank, match, words, path = results[0].split("\t")
    assert (rank, Path(path)) == ("1", checkout / ".photoseek" / "photos" / "coffee.png")
    assert re.fullmatch(r"\d+ %", match)
    assert words.endswith("match")
    assert not (checkout / "own-library").exists(), "samples are kept apart from one's own photos"


def test_check_may_follow_the_folders(checkout: Path, tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    Image.effect_noise((64, 48), 50).save(photos / "noise.png")
    process = start(checkout, photos, "--check", "noise")
    output, errors = process.communicate(timeout=200)

    assert process.returncode == 0, errors
    assert output.splitlines()[-1].endswith(f"\t{photos / 'noise.png'}")
    assert (checkout / "own-library").exists()


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_what_was_asked_for(checkout: Path, option: str) -> None:
    process = start(checkout, "some folder", option)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "./scripts/start [FOLDER...]" in output
    assert errors == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check"], "--check needs the words"),
        (["--check", ""], "--check needs the words"),
        (["some folder", "--unknown"], "There is no option --unknown"),
    ],
)
def test_wrong_usage(checkout: Path, arguments: list[str], said: str) -> None:
    process = start(checkout, *arguments)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert said in errors
    assert errors.count("\n") == 1
    assert output == ""


def test_opens_page_and_service_until_interrupted(checkout: Path) -> None:
    process = start(checkout)
    assert process.stdout is not None
    addresses = next(found for line in process.stdout if (found := re.findall(r"http://127\.0\.0\.1:\d+", line)))

    assert len(addresses) == 2
    assert all(answers(f"{address}{path}") for address, path in zip(addresses, ("", "/v1/status"), strict=True))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert not any(answers(address) for address in addresses)


def test_sets_up_once_and_again_when_the_lock_changes(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copyfile(ROOT / "scripts" / "setup.sh", tmp_path / "scripts" / "setup.sh")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "requirements.lock").write_text("# nothing\n")

    def set_up() -> str:
        command = ["bash", "-euo", "pipefail", "-c", SETUP_ONLY, str(tmp_path / "scripts" / "start")]
        variables = os.environ | {"PYTHON": sys.executable}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stderr

    assert "Setting up" in set_up()
    assert set_up() == ""
    (tmp_path / "requirements.lock").write_text("# something else\n")
    assert "Setting up" in set_up()
    assert set_up() == ""


def test_says_so_without_python_3_11(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copyfile(ROOT / "scripts" / "setup.sh", tmp_path / "scripts" / "setup.sh")
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat", "cmp"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)

    done = subprocess.run(
        [tools / "bash", "-euo", "pipefail", "-c", SETUP_ONLY, tmp_path / "scripts" / "start"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "PhotoSeek needs Python 3.11" in done.stderr
