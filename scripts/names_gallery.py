"""Print what ``photoseek evaluate`` needs to ask for names: ``python -m scripts.names_gallery DATA > names.jsonl``.

Five photos of every Caltech-101 category; the categories that training never saw carry their name as a label, which is
asked for, and the photos of the others are there to be confused with them.
"""

import json
import sys
from pathlib import Path

from scripts.training.photos import held_out_names, name_gallery, named


def main() -> None:
    """Print one line a photo."""
    data = Path(sys.argv[1]).resolve()
    photos, held_out = named(data), held_out_names(data)
    for photo in (photos[index] for index in name_gallery(photos)):
        row: dict[str, object] = {"file": str(photo.path), "captions": []}
        if photo.name in held_out:
            row["label"] = photo.name
        print(json.dumps(row))


if __name__ == "__main__":
    main()
