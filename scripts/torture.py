"""Do to a library what must never hurt it, and count what was hurt.

    python scripts/torture.py --kills N --seed S     kill an indexing process or the service N times, at random moments
    python scripts/torture.py --corpus N --seed S    index N files, most of them broken in some way

Prints one JSON object, and exits with 1 unless nothing was hurt and memory stayed below 4,000 MB. Needs the ``dev``
extra. The same seed does the same to the files; when a kill falls is up to the clock too.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Parse the command line, torture, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kills", type=int, metavar="N", help="kill N times")
    what.add_argument("--corpus", type=int, metavar="N", help="index N files")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep everything here; else it is deleted at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="photoseek-torture-") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if options.kills is not None:
            return _report_kills(work, options.kills, options.seed)
        return _report_corpus(work, options.corpus, options.seed)


def _report_kills(work: Path, kills: int, seed: int) -> int:
    from scripts.faults.kills import torture  # noqa: PLC0415 - decoder processes import this file and need none of it

    tally, details = torture(work, kills, seed)
    print(*details, sep="\n", end="\n" if details else "", file=sys.stderr)
    print(json.dumps(dataclasses.asdict(tally)))
    return 0 if tally.harmless else 1


def _report_corpus(work: Path, count: int, seed: int) -> int:
    from scripts.faults.corpus import torture  # noqa: PLC0415 - as above

    report, details = torture(work, count, seed)
    print(*details, sep="\n", end="\n" if details else "", file=sys.stderr)
    print(json.dumps(dataclasses.asdict(report)))
    return 0 if report.harmless else 1


if __name__ == "__main__":
    # Processes that are started from here find the same code, wherever this is called from.
    sys.path[0] = str(ROOT)
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.exit(main())
