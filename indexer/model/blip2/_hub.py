"""The published checkpoints: found in the Hugging Face cache, downloaded when they are not there."""

import dataclasses
from pathlib import Path

from huggingface_hub import snapshot_download

from indexer.errors import ModelError
from indexer.model.blip2._adapter import Blip2Model
from indexer.model.blip2._checkpoint import EncoderOptions, load_blip2
from indexer.model.blip2._weights import weight_files

_WEIGHTS = ("model*.safetensors*", "pytorch_model*.bin*")
"""Preferred first. The Hub may hold the same weights in both forms: 5 GB each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint on the Hugging Face Hub."""

    repository: str
    revision: str
    """Commit that is downloaded."""


PUBLISHED = {
    "blip2": Published("Salesforce/blip2-itm-vit-g", "520bf73fd0ef6ccce791cd3f06908040aef2d8cc"),
    "blip2-coco": Published("Salesforce/blip2-itm-vit-g-coco", "bb5d9ef62af326a89ab0219c3c6bd75638745257"),
}


def load_published(name: str, device: str, encoder: EncoderOptions = EncoderOptions()) -> Blip2Model:  # noqa: B008
    """Load "blip2" or "blip2-coco" from the Hugging Face cache; the network is used only when it is not there.

    Raises ModelError when it is neither cached nor can be downloaded, CheckpointInvalid as ``load_blip2``.
    """
    published = PUBLISHED[name]
    directory = cached(published) or _download(name, published)
    return load_blip2(directory, device, name=name, revision=directory.name, encoder=encoder)


def cached(published: Published) -> Path | None:
    """Directory of a complete copy in the Hugging Face cache; None when there is none. Uses no network."""
    try:
        directory = Path(snapshot_download(published.repository, revision=published.revision, local_files_only=True))
    except FileNotFoundError:
        return None
    complete = (directory / "config.json").is_file() and weight_files(directory)
    return directory if complete else None


def _download(name: str, published: Published) -> Path:
    try:
        for weights in _WEIGHTS:
            directory = Path(
                snapshot_download(
                    published.repository, revision=published.revision, allow_patterns=["*.json", "*.txt", weights]
                )
            )
            if weight_files(directory):
                return directory
    except OSError as error:
        cause = str(error).splitlines()[0]
        raise ModelError(
            f"The model {name!r} is not on this machine and could not be downloaded from "
            f"https://huggingface.co/{published.repository} ({cause}). Connect to the network and try again; or fetch "
            f"it elsewhere with `hf download {published.repository} --revision {published.revision} --local-dir DIR`, "
            "copy the folder here and give its path as the model."
        ) from error
    raise ModelError(f"https://huggingface.co/{published.repository} has no weights that PhotoSeek can read.")
