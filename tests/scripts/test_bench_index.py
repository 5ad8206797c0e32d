"""The benchmark runs, and prints what it promises; what it measures is not judged here."""

import json

import pytest

from scripts.bench_index import main


def test_prints_every_figure_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--smallest", "--json", "--workers", "1"])
    measured = json.loads(capsys.readouterr().out)
    assert list(measured) == ["12 MP", "0.2 MP", "rescan"]
    for name in "12 MP", "0.2 MP":
        assert {"ours / model alone", "ours / naive loop", "model waited", "Pillow, draft, ms"} < measured[name].keys()
        assert measured[name]["decoder processes"] == 1
    assert {"ours / find", "ours / find, processor time"} < measured["rescan"].keys()
    assert all(value > 0 for figures in measured.values() for value in figures.values())
