"""What a command prints: tables for a person at a terminal, plain lines for a pipe."""

import functools
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def printable(text: str) -> str:
    """Escape what would break a line or command a terminal; names of files may hold any of it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a header on a terminal; in a pipe one line a row, its cells separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            print(*(printable(cell) for cell in row), sep="\t")
        return
    from rich.table import Table  # noqa: PLC0415 - as in `_console`
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", show_header=bool(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _console(stderr=False).print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values: aligned on a terminal, separated by a tab in a pipe."""
    print_rows((), facts)


def print_line(text: str) -> None:
    print(printable(text), flush=True)


def print_json(document: Mapping[str, Any], indent: int | None = 2) -> None:
    # Escaped to ASCII: a name that is not valid Unicode still makes a valid document.
    print(json.dumps(document, indent=indent), flush=True)


def print_path(path: Path) -> None:
    """The very bytes of the path, so that the next command of a pipe opens that file."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Tell a person something beside the output."""
    _console(stderr=True).print(printable(text), soft_wrap=True)


def complain(text: str) -> None:
    """Report an error in one line."""
    from rich.text import Text  # noqa: PLC0415 - as in `_console`

    _console(stderr=True).print(Text.assemble(("photoseek: ", "bold red"), printable(text)), soft_wrap=True)


@functools.cache
def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - most commands in a pipe do without

    return Console(highlight=False, markup=False, stderr=stderr)
