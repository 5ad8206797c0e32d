"""The benchmark of searches runs and prints what it promises; its times are not judged here."""

import json

import pytest

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
