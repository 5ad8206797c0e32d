"""WordNet's nouns: what the name of a thing means, for the many names that no caption of the training mentions."""

import re
from collections.abc import Iterator
from pathlib import Path

# WordNet's lexicographer files of what can be photographed: animals, artifacts, bodies, food, natural objects, plants.
_PICTURED = frozenset({"05", "06", "08", "13", "17", "20"})
# Latin genera and proper names are written with a capital; compounds say themselves what they are.
_PLAIN_NAME = re.compile(r"[a-z][a-z-]*")
# A rare word's later senses are rarer still.
_SENSES = 3


class Dictionary:
    """Definitions of nouns, from WordNet 3.0's files ``data.noun`` and ``index.noun`` (Princeton University 2006).

    Their format is described in wndb(5WN).
    """

    def __init__(self, folder: Path) -> None:
        """Raises SystemExit when ``folder`` holds no WordNet."""
        if not (folder / "data.noun").exists():
            raise SystemExit(f"There is no WordNet in {folder}: see scripts/train_compact.py for the command.")
        self._definitions: dict[str, str] = {}
        pictured, plain = set(), set()
        for line in _entries(folder / "data.noun"):
            fields, gloss = line.split(" | ", 1)
            synset, lexicographer_file, _, count, *rest = fields.split()
            self._definitions[synset] = gloss.split('; "')[0].strip()
            if lexicographer_file in _PICTURED:
                pictured.add(synset)
                words = (word.replace("_", " ") for word in rest[: 2 * int(count, 16) : 2])
                plain |= {word for word in words if _PLAIN_NAME.fullmatch(word)}
        self._senses: dict[str, list[str]] = {}
        for line in _entries(folder / "index.noun"):
            name, _, count, *rest = line.split()
            senses = rest[-int(count) :]  # the most frequent comes first
            self._senses[name.replace("_", " ")] = [synset for synset in senses if synset in pictured][:_SENSES]
        self.names = sorted(plain)

    def definitions(self, name: str) -> list[str]:
        """What ``name`` means where it means something that can be photographed, the most frequent sense first."""
        return [self._definitions[synset] for synset in self._senses.get(name, ())]

    def definition_of_synset(self, identifier: str) -> str:
        """The definition of a synset that is named as ImageNet names it: "n01440764"."""
        return self._definitions[identifier.removeprefix("n")]


def _entries(path: Path) -> Iterator[str]:
    # The licence stands at the top, indented.
    return (line for line in path.read_text("utf-8").splitlines() if not line.startswith(" "))
