"""The benchmark runs, and prints what it promises; what it measures is not judged here."""

import json

import pytest
import torch
from transformers import Blip2VisionConfig

from scripts.bench_encode import main, photo_flop


def test_prints_every_figure_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    main(["--tiny", "--smallest", "--json", "--device", "cpu"])
    assert torch.get_num_threads() == threads
    measured = json.loads(capsys.readouterr().out)
    rates = ["peak_tflops", "tutorial_per_s", "batched_per_s", "ours_per_s", "ours_fraction_of_peak", "from_jpeg_per_s"]
    assert list(measured) == ["device", *rates, "rerank_ms"]
    assert measured["device"] == "cpu"
    assert list(measured["rerank_ms"]) == ["tutorial", "batched", "cached"]
    assert all(measured[name] > 0 for name in rates)
    assert all(value > 0 for value in measured["rerank_ms"].values())


def test_counts_the_operations_of_the_published_encoder() -> None:
    assert photo_flop(Blip2VisionConfig(image_size=224)) == pytest.approx(0.52e12, rel=0.01)
