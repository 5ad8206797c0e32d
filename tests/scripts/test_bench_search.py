"""The benchmark of searches runs and prints what it promises; its times are not judged here."""

import json
from pathlib import Path

import pytest
from PIL import Image

from scripts.bench_search import main

KEYS = [
    "photos", "exact_p50_ms", "ours_p50_ms", "speedup", "recall_at_10", "ram_bytes_per_photo", "disk_bytes_per_photo",
    "open_s", "add_1000_s", "qps",
]  # fmt: skip


def test_prints_every_figure_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--photos", "600", "--real", "20", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert list(measured) == KEYS
    assert list(measured["qps"]) == ["1", "8", "64"]
    assert measured["recall_at_10"] >= 0.95
    assert measured["ram_bytes_per_photo"] < 2500
    assert measured["disk_bytes_per_photo"] > 16_384


def test_draws_how_a_search_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--photos", "40", "80", "--real", "20", "--plots", str(tmp_path)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("photos")] == [
        ["photos", "40"],
        ["photos", "80"],
    ]
    for name in ("search-time.png", "search-rate.png"):
        with Image.open(tmp_path / name) as plot:
            assert plot.width > 600
