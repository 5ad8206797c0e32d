"""Progress events."""

import json

from indexer.progress import Progress, ProgressMeter


def test_a_run_from_scan_to_done() -> None:
    events: list[Progress] = []
    meter = ProgressMeter(events.append)
    meter.enter("scanning")
    meter.enter("indexing", 4)
    meter.recorded(1, 1, "/a.jpg")
    meter.recorded(3, 0, "/b.jpg")
    meter.enter("saving")
    meter.enter("done")
    assert [event.stage for event in events] == ["scanning", "indexing", "saving", "done"]
    assert (events[1].total, events[1].done, events[1].seconds_left) == (4, 0, None)
    assert (events[-1].total, events[-1].done, events[-1].failed, events[-1].current) == (4, 4, 1, "/b.jpg")
    assert events[-1].photos_per_second > 0
    assert events[-1].seconds_left is None


def test_events_of_one_stage_are_thinned_out() -> None:
    events: list[Progress] = []
    meter = ProgressMeter(events.append)
    meter.enter("indexing", 100_000)
    for _ in range(100_000):
        meter.recorded(1, 0, "/a.jpg")
    assert len(events) < 1000
    meter.enter("saving")
    assert events[-1].done == 100_000


def test_for_json() -> None:
    event = Progress("indexing", 4, 1, 0, 2.0, 1.5, "/a.jpg")
    assert json.loads(json.dumps(event.as_dict())) == {
        "stage": "indexing",
        "total": 4,
        "done": 1,
        "failed": 0,
        "photos_per_second": 2.0,
        "seconds_left": 1.5,
        "current": "/a.jpg",
    }
