"""Numbers in words, the same in the terminal and on the page."""

STRONG_MATCH = 0.8
LIKELY_MATCH = 0.5
POSSIBLE_MATCH = 0.2


def match_words(probability: float) -> str:
    """ITM probability 0…1 -> "strong match", "likely match", "possible match" or "weak match"."""
    if probability >= STRONG_MATCH:
        return "strong match"
    if probability >= LIKELY_MATCH:
        return "likely match"
    if probability >= POSSIBLE_MATCH:
        return "possible match"
    return "weak match"


def percent(share: float) -> str:
    """0.934 -> "93 %"."""
    return f"{share * 100:.0f} %"


def file_size(size: int) -> str:
    """Bytes -> "512 B", "34 KB", "2.1 MB", in steps of 1000."""
    if size < 1000:
        return f"{size} B"
    value, unit = size / 1000, "KB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def duration(seconds: float) -> str:
    """Seconds -> "8 s", "2 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, noun: str) -> str:
    """1, "photo" -> "1 photo"; 1200, "photo" -> "1,200 photos"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
