"""The benchmark of the service runs, finds no error, and prints what it promises; its figures are not judged here."""

import json

import pytest

from scripts.bench_service import main

SMALL = ("--photos", "20", "--clients", "4", "--idle-searches", "8", "--searches", "24", "--reindexings", "1")


def test_prints_every_figure_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--rerank", "1", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["idle"]["searches"], measured["soak"]["searches"]) == (8, 24)
    assert measured["first_errors"] == []
    for phase in ("idle", "indexing", "soak"):
        assert measured[phase]["errors"] == 0
        assert measured[phase]["p50_ms"] <= measured[phase]["p90_ms"] <= measured[phase]["p99_ms"]
    assert measured["soak"]["reindexings"] == 1
    assert measured["soak"]["rss_start_mb"] > 0
    assert {"rss_end_mb", "rss_slope_mb_per_1000"} <= measured["soak"].keys()
