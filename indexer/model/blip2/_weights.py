"""The weights of a checkpoint on disk: what there is, at once; their values, when they are asked for."""

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from indexer.errors import CheckpointInvalid

_NAMES_SHOWN = 3


class WeightFiles:
    """The weight files of a directory in the Hub's format. Opening them reads names and shapes, no values."""

    def __init__(self, directory: Path) -> None:
        """Raises CheckpointInvalid when there are none, or when they cannot be read."""
        self.directory = directory
        self._files = weight_files(directory)
        if not self._files:
            raise CheckpointInvalid(f"{directory} has no weights: neither model.safetensors nor pytorch_model.bin.")
        self._states = [_state(path) for path in self._files]
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        for path in self._files:
            shapes = dict(_shapes(path))
            self._shapes |= shapes
            self._file_of |= dict.fromkeys(shapes, path)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each weight, by name."""
        return self._shapes

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Names and values, on the CPU and in the dtype they are stored in, one after the other.

        Raises CheckpointInvalid when a file cannot be read, or is not the one any more that was opened.
        """
        for path, state in zip(self._files, self._states, strict=True):
            wanted = [name for name in names if self._file_of[name] == path]
            if wanted and _state(path) != state:
                raise CheckpointInvalid(f"{path} has changed since the model was loaded. Start again.")
            yield from _values(path, wanted)

    def digest(self) -> str:
        """SHA-256 of the files' bytes one after the other: of a single file, the checksum that the Hub shows."""
        if len(self._files) == 1 and (known := _digest_in_cache(self._files[0])):
            return known
        digest = hashlib.sha256()
        for path in self._files:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def weight_files(directory: Path) -> tuple[Path, ...]:
    """Files that hold the weights: safetensors when there are any, else the pickled ones; none if there are none.

    Raises CheckpointInvalid where an index lists files that are not there.
    """
    for whole, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (directory / whole).is_file():
            return (directory / whole,)
        if (directory / index).is_file():
            return _listed_files(directory / index)
    return ()


def shown(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _listed_files(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointInvalid(f"{index} is not an index of weight files: {error!r}") from error
    # A name with a folder in it would read outside of the checkpoint.
    missing = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if missing:
        raise CheckpointInvalid(f"{index} lists weight files that are not there: {shown(missing)}.")
    return tuple(index.parent / name for name in names)


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    if path.suffix != ".safetensors":
        yield from ((name, tuple(tensor.shape)) for name, tensor in _unpickled(path).items())
        return
    try:
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (it is no mapping)
                yield name, tuple(stored.get_slice(name).get_shape())
    except (OSError, SafetensorError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}") from error


def _values(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    if not names:
        return
    if path.suffix != ".safetensors":
        weights = _unpickled(path)
        yield from ((name, weights[name]) for name in names)
        return
    try:
        with safe_open(path, framework="pt") as stored:
            for name in names:
                yield name, stored.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}") from error


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        # A pickle can run code; with weights_only it may hold tensors alone. Mapped, values are read when used.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:  # its message tells how to run what is in the file
        raise CheckpointInvalid(
            f"{path} is damaged or holds more than plain weights, and PhotoSeek unpickles nothing else from it. "
            "Download the checkpoint again, as safetensors if it is there."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointInvalid(f"{path} cannot be read: it is not a table of weights by name.")
    return weights


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error.strerror or error}") from error
    return found.st_size, found.st_mtime_ns


def _digest_in_cache(path: Path) -> str | None:
    """The Hugging Face cache stores a large file under its SHA-256: to read 5 GB for it again would take seconds."""
    stored = path.resolve()
    return stored.name if stored.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", stored.name) else None
