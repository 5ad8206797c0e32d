"""Model names, and what is loaded for each."""

import dataclasses
import json
from pathlib import Path

import torch

from indexer.compact_checkpoint import SHIPPED
from indexer.errors import CheckpointInvalid, ModelError, ModelNotFound
from indexer.model._interface import Model


@dataclasses.dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model that ``load_model`` knows by name."""

    name: str
    summary: str
    """What it is, in one sentence."""
    needs: str
    """What it takes to run it."""


_DESCRIPTIONS = (
    ModelDescription(
        name="compact",
        summary="BLIP-2 in miniature, trained for PhotoSeek and shipped with it.",
        needs="nothing: a laptop CPU, no download",
    ),
    ModelDescription(
        name="blip2",
        summary="BLIP-2 with ITC and ITM heads (Salesforce/blip2-itm-vit-g), photos at 224 pixels.",
        needs="a download of about 5 GB on first use; a GPU with 6 GB advised",
    ),
    ModelDescription(
        name="blip2-coco",
        summary="The same, fine-tuned on COCO (Salesforce/blip2-itm-vit-g-coco), photos at 364 pixels.",
        needs="a download of about 5 GB on first use; a GPU with 6 GB advised",
    ),
)


def available_models() -> tuple[ModelDescription, ...]:
    """The models that have a name. ``load_model`` also takes the path of a directory with a checkpoint."""
    return _DESCRIPTIONS


def load_model(
    name: str = "compact", device: str = "auto", keep_loaded: float | None = None, *, compiled: bool = False
) -> Model:
    """Load a model by its name, or from a directory that holds a checkpoint of either kind.

    ``device`` is "cpu", "cuda", "cuda:N", or "auto": CUDA where there is one, else the CPU. BLIP-2's image encoder,
    most of the model, is only loaded when it is first used, and stays in memory for ``keep_loaded`` seconds after each
    use; None: for good. ``compiled``: ``torch.compile`` prepares it, which takes minutes. The compact model is small,
    always whole in memory, and never compiled.

    Raises ModelNotFound (no such name or directory), CheckpointInvalid (weights missing, unexpected or of another
    architecture), ModelError (the device is not there, or a model cannot be downloaded).
    """
    if name == "compact":
        from indexer.model.compact import load_compact  # noqa: PLC0415 (only the model that is asked for is imported)

        return load_compact(SHIPPED, _choose_device(device), name)
    if name in {description.name for description in _DESCRIPTIONS}:
        from indexer.model.blip2 import EncoderOptions, load_published  # noqa: PLC0415 (transformers is slow to import)

        return load_published(name, _choose_device(device), EncoderOptions(keep_loaded=keep_loaded, compiled=compiled))
    directory = Path(name).expanduser()
    if not directory.is_dir():
        known = ", ".join(description.name for description in _DESCRIPTIONS)
        raise ModelNotFound(
            f"There is no model {name!r}. Known models: {known}; or give the path of a directory with a checkpoint."
        )
    return _load_directory(directory.resolve(), _choose_device(device), keep_loaded, compiled)


def other_gpus(device: str) -> tuple[str, ...]:
    """The CUDA devices beside "cuda", the first of them; none beside the CPU, or beside one that was chosen by number.

    ``CUDA_VISIBLE_DEVICES`` says which there are.
    """
    return tuple(f"cuda:{index}" for index in range(1, torch.cuda.device_count())) if device == "cuda" else ()


def _load_directory(directory: Path, device: str, keep_loaded: float | None, compiled: bool) -> Model:
    kind = _kind_of(directory)
    if kind == "photoseek-compact":
        from indexer.model.compact import load_compact  # noqa: PLC0415 (only the model that is asked for is imported)

        return load_compact(directory, device)
    if kind == "blip-2":
        from indexer.model.blip2 import EncoderOptions, load_blip2  # noqa: PLC0415 (transformers is slow to import)

        return load_blip2(directory, device, encoder=EncoderOptions(keep_loaded=keep_loaded, compiled=compiled))
    raise CheckpointInvalid(
        f"{directory / 'config.json'} describes a model of type {kind!r}; "
        "PhotoSeek runs 'photoseek-compact' and 'blip-2'."
    )


def _kind_of(directory: Path) -> object:
    config = directory / "config.json"
    try:
        document = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFound(f"{directory} holds no checkpoint: it has no config.json.") from None
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{config} cannot be read: {error}") from error
    return document.get("model_type") if isinstance(document, dict) else None


def _choose_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise ModelError(f"There is no device {device!r}. Use auto, cpu, cuda or cuda:N.")
    devices = torch.cuda.device_count()
    if int(index or 0) >= devices:
        raise ModelError(
            f"{device} was asked for, but PyTorch {torch.__version__} sees {devices} CUDA devices here. "
            "Use auto or cpu, or install a CUDA build of PyTorch."
        )
    return device
