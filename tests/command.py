"""Run the real command ``photoseek``, as a process or, where that is not what is tested, in this one."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from ui.cli import app

COMMAND = (sys.executable, "-m", "ui.cli")
ROOT = Path(__file__).parent.parent


def environment(library: Path, **variables: str) -> dict[str, str]:
    """This process's environment, with ``library`` as the default one and one thread: enough for a few photos."""
    return dict(os.environ) | {"PHOTOSEEK_LIBRARY": str(library), "OMP_NUM_THREADS": "1"} | variables


def photoseek(
    *arguments: str | Path,
    library: Path,
    code: int = 0,
    variables: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run ``photoseek``, by the command ``under``, with its output in pipes; fails unless it exits with ``code``."""
    done = subprocess.run(
        [*under, *COMMAND, *arguments],
        env=environment(library, **(variables or {})),
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=600,
        check=False,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def photoseek_here(*arguments: str | Path, library: Path) -> None:
    """Run ``photoseek`` in this process, which spares the seconds that a new one takes to start."""
    app([*map(str, arguments), "--library", str(library)], prog_name="photoseek", standalone_mode=False)


def answers(address: str) -> bool:
    """Whether a server answers at ``address`` without an error."""
    try:
        return httpx.get(address, trust_env=False).is_success
    except httpx.ConnectError:
        return False
