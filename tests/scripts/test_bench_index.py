"""The benchmark runs, and prints and draws what it promises; what it measures is not judged here."""

import json
from pathlib import Path

import pytest
from PIL import Image

from scripts.bench_index import main


def test_prints_every_figure_as_json_and_draws_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["--smallest", "--json", "--plots", str(tmp_path)])
    measured = json.loads(capsys.readouterr().out)
    assert list(measured) == ["12 MP", "0.2 MP", "rescan"]
    for name in "12 MP", "0.2 MP":
        assert {
            "ours / model alone", "ours / model alone, apart", "ours / the slower of model and decoding, apart",
            "ours / naive loop", "ours apart, s to start", "ours apart, share that the model waited",
            "ours, photos/s of the whole command", "cores of decoding for one of the model", "Pillow, draft, ms",
        } < measured[name].keys()  # fmt: skip
    assert {"run / find", "run / find, processor time", "command / find"} < measured["rescan"].keys()
    assert all(value > 0 for figures in measured.values() for value in figures.values())
    for name in "index-rate.png", "index-rescan.png":
        with Image.open(tmp_path / name) as drawn:
            assert drawn.width > 500
