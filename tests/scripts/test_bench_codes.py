"""The comparison of ways to search measures each of them; what they find is judged, their times are not."""

import json
from pathlib import Path

import pytest
from PIL import Image

from scripts.bench_codes import main
from scripts.search_ways import WAYS

SMALL = ["--photos", "120", "--real", "12"]
# What takes longest to train or to link is left out; NSG is there by means.
SLOW = {
    "turned, product, 128 × 4 bits",  # as that of 64, twice as long
    "OPQ to 128, product, 64 × 4 bits",
    "residual, 64 × 4 bits",
    "NSG, 32 vectors",
}
QUICK = [way for way in WAYS if way not in SLOW]


def test_ways_find_nearly_all_of_few_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--plots", str(tmp_path), "--only", *QUICK]) == 0
    head, rule, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert head[0] == "way"
    assert rule == ["---|---|---|---|---|---|---|---"]
    last = {row[0]: row for row in rows}  # the setting that looks at most
    assert list(last) == QUICK
    assert set(WAYS) - set(QUICK) == SLOW
    assert {way for way, row in last.items() if float(row[-1]) < 0.98} == set()
    with Image.open(tmp_path / "search-ways.png") as plot:
        assert plot.width > 1200


def test_counts_bytes_and_tells_coarse_from_exact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json", "--only", "exact scan, fp16", "product, 64 × 4 bits", "mean, fp16"]) == 0
    exact, *others = json.loads(capsys.readouterr().out)
    assert exact["bytes_per_photo"] == 32 * 256 * 2
    assert exact["found_recall"] == exact["compared_recall"] == 1
    assert [each["bytes_per_photo"] for each in others] == [1024] * 2 + [512] * 3
    for each in others:
        assert each["found_recall"] < each["compared_recall"]
