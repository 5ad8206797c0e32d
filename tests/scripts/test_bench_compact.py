"""The benchmark prints what it promises, and judges results as searches would; rates are not judged here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.embedding import EMBEDDING_SIZE, QUERY_TOKENS
from scripts.bench_compact import REFERENCE, effect, main


def test_prints_every_way_with_every_number_of_threads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setitem(sys.modules, "onnx", None)  # as where it is not installed
    ways = ["eager, channels last, bfloat16", "ONNX Runtime, float32", "ONNX Runtime, int8"]
    main(["--photos", "2", "--threads", "1", "2", "--json", "--plots", str(tmp_path), "--ways", *ways])
    assert torch.get_num_threads() == threads
    measured = json.loads(capsys.readouterr().out)
    assert (measured["photos"], measured["texts"]) == (2, 50)
    rows = measured["rows"]
    assert [(row["threads"], row["way"]) for row in rows] == [(n, way) for n in (1, 2) for way in (REFERENCE, *ways)]
    for contiguous, bfloat16, ours, missing in (rows[:4], rows[4:]):
        assert contiguous["gain"] == 1
        assert contiguous["effect"]["least_cosine"] == pytest.approx(1, abs=1e-6)
        assert contiguous["effect"]["moved_most"] == contiguous["effect"]["other_first"] == 0
        assert 0 < ours["effect"]["moved_most"] < 1e-5 < bfloat16["effect"]["moved_most"]
        assert bfloat16["effect"]["least_cosine"] < 0.9999 < ours["effect"]["least_cosine"]
        assert ours["photos_per_s"] >= ours["photos_per_s_median"] > 0
        assert missing["failure"] == "not installed: pip install onnx"
        assert missing["photos_per_s"] is None
        assert missing["effect"] is None
    assert (tmp_path / "compact-encoders.png").stat().st_size > 1000


def test_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--photos", "1", "--ways", REFERENCE])
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == row.count("|")
    assert row.startswith(f"| {REFERENCE} | 1 |")
    assert row.endswith("| 1.00 | 1.00000 | 0.0000 / 0.0000 | 0% |")


def test_refuses_a_folder_with_too_few_photos(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"3 photos are needed, and .* has 0"):
        main(["--photos", "1", "--from", str(tmp_path)])


def test_the_effect_is_that_on_the_largest_of_the_32_similarities() -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(shape) for shape in [(6, QUERY_TOKENS, EMBEDDING_SIZE)] * 2 + [(9, EMBEDDING_SIZE)]]
    reference, noise, texts = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in vectors)
    moved = reference + 0.5 * noise
    moved /= np.linalg.norm(moved, axis=-1, keepdims=True)
    measured = effect(*(torch.from_numpy(each).float() for each in (moved, reference, texts)))
    before, after = ([[max(photo @ text) for photo in each] for text in texts] for each in (reference, moved))
    differences = np.abs(np.subtract(after, before))
    changed = np.argmax(after, axis=1) != np.argmax(before, axis=1)
    assert 0 < changed.mean() < 1
    assert measured.other_first == pytest.approx(changed.mean())
    assert measured.moved_mean == pytest.approx(differences.mean(), rel=1e-4)
    assert measured.moved_most == pytest.approx(differences.max(), rel=1e-4)
    assert measured.least_cosine == pytest.approx((moved * reference).sum(axis=-1).min(), rel=1e-4)
