"""The README says what the command does: its examples run, and the options it lists are those that exist."""

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from tests.browser.pictures import write_album
from tests.command import ROOT, photoseek_here
from ui.cli import app

README = (ROOT / "README.md").read_text(encoding="utf-8")
GROUP = typer.main.get_group(app)
COMMANDS = sorted(GROUP.commands)


def options_of(command: str) -> set[str]:
    return {
        name
        for parameter in GROUP.commands[command].params
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def listed() -> dict[str, str]:
    """Each command of the README's list, and the line that says how to use it."""
    joined = "\n".join(blocks("text")).replace("\n       ", " ")
    return {line.split()[1]: line for line in joined.splitlines() if line.startswith("photoseek ")}


def examples(command: str) -> list[list[str]]:
    """Words of the README's lines of ``photoseek COMMAND``, of which there must be one."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(f"photoseek {command} ")]
    assert lines
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_lists_every_command() -> None:
    assert sorted(listed()) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_lists_every_option(command: str) -> None:
    assert set(re.findall(r"--[a-z-]+", listed()[command])) == options_of(command)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with pictures, as the examples suppose; its library is made by the examples that index."""
    home = tmp_path_factory.mktemp("home")
    (home / "Pictures").mkdir()
    write_album(home / "Pictures")
    shutil.copyfile(home / "Pictures" / "samples" / "flower.jpg", home / "summer.jpg")
    for example in examples("index"):
        run(example, home)
    return home


def run(example: Sequence[str], home: Path) -> None:
    """Run an example as a shell in the home folder would."""
    with contextlib.chdir(home), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        photoseek_here(
            *(Path(word).expanduser() if word.startswith("~") else word for word in example), library=home / "library"
        )


@pytest.mark.parametrize("example", examples("search"), ids=" ".join)
def test_examples_find_photos(example: Sequence[str], home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(example, home)

    found = set(re.findall(r"[\w-]+\.(?:png|jpg)", capfd.readouterr().out))
    if {"--camera", "--near"} & set(example):
        assert found == {"trip-china.jpg", "trip-moon.jpg", "trip-rocket.jpg"}
    elif "--min-match" not in example:
        assert len(found) >= 20


def test_says_why_each_dependency_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split("[<>=~]", requirement)[0] for requirement in project["dependencies"]}

    table = README.split("| dependency | for |")[1].split("\n\n")[0]
    explained = {name for row in table.splitlines()[2:] for name in row.split("|")[1].replace(" ", "").split(",")}

    assert explained == required


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_help_answers(command: str) -> None:
    arguments = [argument for argument in (command, "--help") if argument]
    done = subprocess.run([sys.executable, "-m", "ui.cli", *arguments], cwd=ROOT, capture_output=True, check=True)
    assert b"Usage: " in done.stdout
    assert b"\x1b" not in done.stdout
