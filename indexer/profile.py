"""Where the time of an indexing run goes: seconds of each of its workers, stage by stage."""

import contextlib
import dataclasses
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

Worker = Literal["run", "decoders", "model"]
"""Who works at the same time: the thread that commits, the decoder processes, and the model on each of its devices."""
WAIT = "wait"
"""The stage of a worker that waits for another."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of one worker."""

    worker: Worker
    stage: str
    seconds: float
    """Wall-clock, summed over all decoder processes or devices."""
    share: float
    """Of the run's wall-clock, 0…1: the mean over all decoder processes or devices."""


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a run went."""

    seconds: float
    """Wall-clock of the whole run."""
    stages: tuple[StageTime, ...]
    """Worker by worker, the longest stage first, and last what the others leave of the run: `WAIT`. So the shares of a
    worker add up to 1. A worker that was not needed has none."""

    @property
    def model_waited(self) -> float:
        """Share of the run's wall-clock for which the model had nothing to do, 0…1; all of it if it was not needed."""
        return max(0.0, 1 - sum(each.share for each in self.stages if each.worker == "model" and each.stage != WAIT))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self) | {"model_waited": self.model_waited}


class Stopwatch:
    """Adds up how long each stage of each worker takes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[tuple[Worker, str], float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, worker: Worker, stage: str) -> Iterator[None]:
        """Count what is done meanwhile, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[worker, stage] += time.monotonic() - started

    def profile(self, seconds: float, count: Mapping[Worker, int]) -> Profile:
        """What was added up in a run of ``seconds``; ``count`` says how many there are of a worker, if not one."""
        with self._lock:
            spent = dict(self._seconds)
        stages: list[StageTime] = []
        for worker in get_args(Worker):
            of_worker = {stage: each for (who, stage), each in spent.items() if who == worker}
            if not of_worker:
                continue
            total = seconds * count.get(worker, 1)
            parts = sorted(of_worker.items(), key=lambda part: -part[1])
            parts.append((WAIT, max(0.0, total - sum(of_worker.values()))))
            stages += [StageTime(worker, stage, each, each / total if total else 0.0) for stage, each in parts]
        return Profile(seconds, tuple(stages))
