"""The service keeps to its OpenAPI document, whatever it is asked: no 5xx, and no answer that is not in it."""

import subprocess
import sys
from pathlib import Path

from search.service import ServiceSettings
from tests.search.service.conftest import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def test_every_answer_is_as_documented(directory: Path, tmp_path: Path) -> None:
    # Nothing but what the library has already may be indexed, should the fuzz come upon a folder.
    with running(ServiceSettings(library=directory, device="cpu", allowed_folders=())) as client:
        command = (sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json")
        options = (
            "--checks",
            ",".join(CHECKS),
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "15",
            "--seed",
            "1",
            "--no-shrink",
            "--no-color",
        )
        database = ("--generation-database", "none", "--request-timeout", "60", "--warnings", "off")
        done = subprocess.run(
            [*command, *options, *database], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
