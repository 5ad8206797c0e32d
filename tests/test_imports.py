"""Imports go one way: ui -> search -> indexer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import ROOT

PAGE = ("ui/app.py", "ui/_app_*.py", "ui/client.py")
"""The Streamlit app, which reaches search over HTTP only."""


def imported(file: Path) -> Iterator[str]:
    """Modules that a file imports, also within its functions and for types alone."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("files", "forbidden"),
    [
        (["indexer/**/*.py"], ("search", "ui")),
        (["search/**/*.py"], ("ui",)),
        (["indexer/model/**/*.py"], ("indexer.library",)),
        (["indexer/library/**/*.py"], ("indexer.model",)),
        (PAGE, ("search", "indexer.library", "indexer.model", "indexer.pipeline")),
        (["indexer/**/*.py", "search/**/*.py", "ui/**/*.py"], ("tests", "scripts")),
    ],
    ids=" ".join,
)
def test_imports_go_one_way(files: list[str], forbidden: tuple[str, ...]) -> None:
    sources = [file for pattern in files for file in ROOT.glob(pattern)]
    assert sources
    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources
        for name in imported(file)
        if any(f"{name}.".startswith(f"{package}.") for package in forbidden)
    }
    assert wrong == set()
