"""A folder of small photos to which things happen as they happen to photos."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

_FEW, _MANY = 30, 60


class PhotoFolder:
    """Photos, each a picture of its own unless copied."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self._chance = chance
        self._made = 0
        path.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[Path]:
        """Every photo there is."""
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def change(self) -> None:
        """Add, edit, move, copy, exchange and delete a few."""
        files = len(self.files())
        for _ in range(self._chance.randint(2, 6) if files < _FEW else self._chance.randint(0, 3)):
            self.add()
        for happens in (self._edit, self._edit, self._move, self._move, self._copy, self._exchange, self._touch):
            if self._chance.random() < 0.5:
                happens()
        for _ in range(2 if files > _MANY else self._chance.randint(0, 1)):
            self._any().unlink()

    def add(self) -> None:
        """A new photo."""
        self._made += 1
        self._draw(self._place(f"{self._made:04}.{self._chance.choice(('jpg', 'png', 'webp'))}"))

    def _edit(self) -> None:
        self._draw(self._any())

    def _move(self) -> None:
        path = self._any()
        self._made += 1
        path.rename(self._place(f"{self._made:04}{path.suffix}"))

    def _copy(self) -> None:
        path = self._any()
        self._made += 1
        self._place(f"{self._made:04}{path.suffix}").write_bytes(path.read_bytes())

    def _exchange(self) -> None:
        one, other = self._any(), self._any()
        if one.suffix == other.suffix and one != other:
            aside = one.with_suffix(".aside")
            one.rename(aside)
            other.rename(one)
            aside.rename(other)

    def _touch(self) -> None:
        self._any().touch()

    def _any(self) -> Path:
        return self._chance.choice(self.files())

    def _place(self, name: str) -> Path:
        path = self.path / self._chance.choice((".", "trip", "trip/far", "home")) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _draw(self, path: Path) -> None:
        noise = np.random.default_rng(self._chance.getrandbits(64)).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((48, 32), Image.Resampling.BICUBIC).save(path)
