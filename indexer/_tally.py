"""What has become of the files of a run so far."""

from collections import Counter
from typing import Literal

from indexer.profile import Stopwatch

Outcome = Literal["added", "updated", "moved", "unchanged", "failed"]


class Tally:
    """Counts of one run."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.removed: set[int] = set()
        """Ids of photos whose file is gone and has not turned up elsewhere."""
        self.embedded = 0
        self.stopwatch = Stopwatch()
