"""Read a directory in the Hub's format into a ``Blip2Model``; whatever does not fit is an error, never a warning."""

import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertTokenizer, Blip2Config, Blip2ForImageTextRetrieval, Blip2VisionConfig

from indexer.errors import CheckpointInvalid
from indexer.model._interface import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.model.blip2._adapter import Blip2Model

_MAX_TOKENS = 35
"""Tokens of a text, [CLS] and [SEP] included, as in the reference's retrieval evaluation."""
_NAMES_SHOWN = 3


def load_blip2(
    directory: Path,
    device: str,
    name: str | None = None,
    revision: str = "local",
    vision_dtype: torch.dtype | None = None,
) -> Blip2Model:
    """Load the checkpoint in ``directory`` onto ``device``. Uses no network.

    ``name`` and ``revision`` go into the identity; without a name it is the directory's path. ``vision_dtype`` is what
    the image encoder runs in; without one, the fastest that the device is good at.

    Raises CheckpointInvalid, with a message that names what is missing, unexpected or of a wrong shape.
    """
    config = _read_config(directory)
    files = weight_files(directory)
    if not files:
        raise CheckpointInvalid(f"{directory} has no weights: neither model.safetensors nor pytorch_model.bin.")
    network = _build(config, _read_weights(files), directory)
    tokenizer = _read_tokenizer(directory, network.qformer.config.vocab_size)
    _place(network.vision_model, "cpu", vision_dtype or _fast_dtype(device))
    _place(network, device)
    identity = ModelIdentity(name=name or str(directory), revision=revision, digest=_digest(files))
    return Blip2Model(network, tokenizer, identity, device)


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


def _listed_files(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointInvalid(f"{index} is not an index of weight files: {error!r}") from error
    # A name with a folder in it would read outside of the checkpoint.
    missing = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if missing:
        raise CheckpointInvalid(f"{index} lists weight files that are not there: {_shown(missing)}.")
    return tuple(index.parent / name for name in names)


def _read_config(directory: Path) -> Blip2Config:
    path = directory / "config.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        # Retrieval always has a text half. Older configs call the switch qformer_text_input, which transformers now
        # ignores: the model would load without it.
        document["qformer_config"]["use_qformer_text_input"] = True
        config = Blip2Config.from_dict(document)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise CheckpointInvalid(f"{path} is not the config of a BLIP-2 checkpoint: {error!r}") from error
    if (config.num_query_tokens, config.image_text_hidden_size) != (QUERY_TOKENS, EMBEDDING_SIZE):
        raise CheckpointInvalid(
            f"{path} asks for {config.num_query_tokens} query tokens and {config.image_text_hidden_size} dimensions; "
            f"PhotoSeek's libraries hold {QUERY_TOKENS} of {EMBEDDING_SIZE}."
        )
    vision = config.vision_config
    if not isinstance(vision, Blip2VisionConfig) or not isinstance(vision.image_size, int):
        raise CheckpointInvalid(f"{path}: the image_size of vision_config must be one number.")
    return config


def _read_weights(files: Iterable[Path]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for path in files:
        try:
            if path.suffix == ".safetensors":
                weights |= load_file(path)
            else:
                # A pickle can run code; with weights_only it may hold tensors alone.
                weights |= torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointInvalid(
                f"{path} cannot be read as plain weights, and PhotoSeek unpickles nothing else from it: {error}"
            ) from error
        except (OSError, EOFError, RuntimeError, TypeError, SafetensorError) as error:
            raise CheckpointInvalid(f"{path} cannot be read: {error}") from error
    return weights


def _build(config: Blip2Config, weights: dict[str, Tensor], directory: Path) -> Blip2ForImageTextRetrieval:
    # On "meta" nothing is allocated or initialised: every value comes from the file.
    with torch.device("meta"):
        network = Blip2ForImageTextRetrieval(config)
    expected = network.state_dict()
    problems = [
        f"missing: {_shown(sorted(expected.keys() - weights.keys()))}",
        f"unexpected: {_shown(sorted(weights.keys() - expected.keys()))}",
        f"of another shape: {_shown(_misshapen(expected, weights))}",
    ]
    problems = [problem for problem in problems if not problem.endswith(": ")]
    if problems:
        raise CheckpointInvalid(
            f"The weights in {directory} do not fit its config.json. {'; '.join(problems)}. "
            "Download the checkpoint again, or one that was saved from Blip2ForImageTextRetrieval."
        )
    network.load_state_dict(weights, assign=True)
    # The only buffer; it is not part of a checkpoint.
    positions = torch.arange(network.qformer.config.max_position_embeddings)[None]
    network.embeddings.register_buffer("position_ids", positions, persistent=False)
    _place(network, "cpu", torch.float32)
    network.requires_grad_(requires_grad=False).train(mode=False)
    return network


def _place(module: nn.Module, device: str, dtype: torch.dtype | None = None) -> None:
    module.to(device=device, dtype=dtype)


def _misshapen(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> list[str]:
    return [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]


def _shown(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _read_tokenizer(directory: Path, vocabulary: int) -> Tokenizer:
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise CheckpointInvalid(f"{directory} has no tokenizer: neither tokenizer.json nor vocab.txt.")
    try:
        tokenizer: Tokenizer = BertTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer
    except Exception as error:  # tokenizers raises nothing more specific
        raise CheckpointInvalid(f"The tokenizer in {directory} cannot be read: {error}") from error
    words = tokenizer.get_vocab_size(with_added_tokens=False)
    if words > vocabulary:
        raise CheckpointInvalid(
            f"The tokenizer in {directory} has {words} words, but the model knows {vocabulary}: it is another model's."
        )
    # A query may hold the text "[SEP]", or "<image>", whose id lies past the embedding table: both are plain text.
    tokenizer.encode_special_tokens = True
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"))
    return tokenizer


def _fast_dtype(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        return torch.float16  # the precision that the reference runs its image encoder in
    capabilities = torch.cpu.get_capabilities()
    # Without units for it, bfloat16 is several times slower than float32 on a CPU.
    has_units = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if has_units else torch.float32


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of the files' bytes one after the other: of a single file, the checksum that the Hub shows."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
