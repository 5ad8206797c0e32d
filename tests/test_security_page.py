"""SECURITY.md promises nothing that no test holds."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^`(tests/\S+)::(\w+)`$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_tests_it_names_exist(path: str, name: str) -> None:
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_its_tests() -> None:
    promises = PAGE.split("## What it promises")[1].split("\n## ")[0].strip().split("\n\n")
    assert len(promises) > 5
    for promise in promises:
        assert promise.startswith("**")
        assert "\n`tests/" in promise
