"""The README says what the command does: every option it lists exists, and every option that exists is listed."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from tests.command import ROOT
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


def examples() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("photoseek ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_lists_every_command() -> None:
    assert sorted(listed()) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_lists_every_option(command: str) -> None:
    assert set(re.findall(r"--[a-z-]+", listed()[command])) == options_of(command)


@pytest.mark.parametrize("example", examples(), ids=" ".join)
def test_examples_parse(example: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summer.jpg").write_bytes(b"any file: only the line is parsed here")
    command, *arguments = example

    GROUP.commands[command].make_context(command, arguments)


def test_there_are_examples() -> None:
    assert {example[0] for example in examples()} >= {"index", "search"}


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
