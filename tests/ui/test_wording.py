import pytest

from ui.wording import count, duration, file_size, match_words, percent


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "strong match"),
        (0.8, "strong match"),
        (0.799, "likely match"),
        (0.5, "likely match"),
        (0.499, "possible match"),
        (0.2, "possible match"),
        (0.199, "weak match"),
        (0.0, "weak match"),
    ],
)
def test_match_in_words(probability: float, words: str) -> None:
    assert match_words(probability) == words


@pytest.mark.parametrize(("share", "text"), [(0.934, "93 %"), (1.0, "100 %"), (0.0, "0 %"), (0.005, "0 %")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (9_949, "9.9 KB"),
        (9_950, "10 KB"),
        (999_499, "999 KB"),
        (999_500, "1.0 MB"),
        (34_000_000_000, "34 GB"),
        (5_000_000_000_000_000, "5000 TB"),
    ],
)
def test_file_size(size: int, text: str) -> None:
    assert file_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 photos"), (1, "1 photo"), (12_345, "12,345 photos")])
def test_count(number: int, text: str) -> None:
    assert count(number, "photo") == text
