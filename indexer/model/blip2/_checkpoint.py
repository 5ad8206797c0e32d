"""Read a directory in the Hub's format into a ``Blip2Model``; whatever does not fit is an error, never a warning."""

import dataclasses
import json
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer
from torch import nn
from transformers import BertTokenizer, Blip2Config, Blip2ForImageTextRetrieval, Blip2VisionConfig, Blip2VisionModel

from indexer.errors import CheckpointInvalid
from indexer.model._interface import EMBEDDING_SIZE, QUERY_TOKENS, ModelIdentity
from indexer.model.blip2._adapter import Blip2Model
from indexer.model.blip2._image_encoder import ImageEncoder
from indexer.model.blip2._token_projection import project_tokens_in
from indexer.model.blip2._weights import WeightFiles, shown

_MAX_TOKENS = 35
"""Tokens of a text, [CLS] and [SEP] included, as in the reference's retrieval evaluation."""
_SPECIAL_WORDS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}
_IMAGE_PART, _QFORMER_PART, _TEXT_PART = "vision_model.", "qformer.", "embeddings."
"""What the names of the weights of the image encoder, the Q-Former and the text embeddings begin with."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """How the image encoder runs."""

    dtype: torch.dtype | None = None
    """None: the fastest that the device is good at."""
    keep_loaded: float | None = None
    """For how many seconds after its last use it stays in memory; None: for good."""
    compiled: bool = False
    """Whether ``torch.compile`` prepares it: minutes at the first photo, then faster ones."""


def load_blip2(
    directory: Path,
    device: str,
    name: str | None = None,
    revision: str = "local",
    encoder: EncoderOptions = EncoderOptions(),
) -> Blip2Model:
    """Load the checkpoint in ``directory`` onto ``device``. Uses no network.

    Every weight is checked by name and shape; the image encoder's values are read when it is first used.

    ``name`` and ``revision`` go into the identity; without a name it is the directory's path.

    Raises CheckpointInvalid, with a message that names what is missing, unexpected or of a wrong shape.
    """
    config = _read_config(directory)
    weights = WeightFiles(directory)
    dtype = encoder.dtype or _fast_dtype(device)
    network = _build(config, weights, device)
    project_tokens_in(network.qformer, dtype)
    tokenizer = _read_tokenizer(directory, network.qformer.config.vocab_size)

    def load_encoder() -> Blip2VisionModel:
        return _build_encoder(cast("Blip2VisionConfig", config.vision_config), weights, device, dtype, encoder.compiled)

    def load_on(other: str) -> Blip2Model:
        return load_blip2(directory, other, name, revision, encoder)

    identity = ModelIdentity(name=name or str(directory), revision=revision, digest=weights.digest())
    image_encoder = ImageEncoder(load_encoder, encoder.keep_loaded)
    return Blip2Model(network, image_encoder, tokenizer, identity, device, load_on)


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
    if not isinstance(vision, Blip2VisionConfig) or not all(
        isinstance(each, int) for each in (vision.image_size, vision.patch_size)
    ):
        raise CheckpointInvalid(f"{path}: the image_size and the patch_size of vision_config must be one number each.")
    return config


def _build(config: Blip2Config, weights: WeightFiles, device: str) -> Blip2ForImageTextRetrieval:
    """The network in float32, without its image encoder, whose weights are only checked to be there."""
    # On "meta" nothing is allocated or initialised: every value comes from the file.
    try:
        with torch.device("meta"):
            network = Blip2ForImageTextRetrieval(config)
    except (
        Exception
    ) as error:  # whatever values without sense lead to: a width that its heads do not divide, none at all
        raise CheckpointInvalid(
            f"{weights.directory / 'config.json'} describes no network that can be built: {error!r}"
        ) from error
    _expect({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, weights)
    del network.vision_model
    _fill(network, "", weights, device, torch.float32)
    # The only buffer; it is not part of a checkpoint.
    positions = torch.arange(network.qformer.config.max_position_embeddings, device=device)[None]
    network.embeddings.register_buffer("position_ids", positions, persistent=False)
    return network


def _build_encoder(
    config: Blip2VisionConfig, weights: WeightFiles, device: str, dtype: torch.dtype, compiled: bool
) -> Blip2VisionModel:
    with torch.device("meta"):
        network = Blip2VisionModel(config)
    _fill(network, _IMAGE_PART, weights, device, dtype)
    if compiled:
        network.compile()
    return network


def _fill(network: nn.Module, prefix: str, weights: WeightFiles, device: str, dtype: torch.dtype) -> None:
    names = {prefix + name: name for name in network.state_dict()}
    # One after the other, so that never more than one weight is in memory twice.
    values = {}
    for name, value in weights.read(list(names)):
        values[names[name]] = value.to(device, dtype)
        if not values[names[name]].isfinite().all():
            raise CheckpointInvalid(
                f"{name} in {weights.directory} has values that are not finite. Download the checkpoint again."
            )
    network.load_state_dict(values, assign=True)
    network.requires_grad_(requires_grad=False).train(mode=False)


def _expect(shapes: dict[str, tuple[int, ...]], weights: WeightFiles) -> None:
    """Raise CheckpointInvalid unless there are weights of these names and shapes, and no others that say anything."""
    there = weights.shapes
    problems = {
        "missing": sorted(shapes.keys() - there.keys()),
        "unexpected": sorted(name for name in there.keys() - shapes.keys() if not _is_redundant(name, weights)),
        "of another shape": [
            f"{name} is {there[name]}, not {shape}"
            for name, shape in shapes.items()
            if name in there and there[name] != shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{problem}: {shown(names)}" for problem, names in problems.items() if names)
        raise CheckpointInvalid(
            f"The weights in {weights.directory} do not fit its config.json. {found}. "
            "Download the checkpoint again, or one that was saved from Blip2ForImageTextRetrieval."
        )


def _is_redundant(name: str, weights: WeightFiles) -> bool:
    """Whether a weight only counts positions, or repeats one of the text embeddings.

    In the reference the text embeddings are a part of the Q-Former, with positions as a buffer: conversions keep them.
    """
    same = name.removeprefix(_QFORMER_PART)
    if not same.startswith(_TEXT_PART):
        return False
    if same == f"{_TEXT_PART}position_ids":
        ((_, positions),) = weights.read([name])
        return torch.equal(positions.flatten(), torch.arange(positions.numel()))
    if same == name or weights.shapes.get(same) != weights.shapes[name]:
        return False
    values = dict(weights.read([name, same]))
    return torch.equal(values[name], values[same])


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
    # transformers gives those that are not in it ids of its own, past the embedding table.
    lacking = sorted(_SPECIAL_WORDS - tokenizer.get_vocab(with_added_tokens=False).keys())
    if lacking:
        raise CheckpointInvalid(f"The tokenizer in {directory} lacks {', '.join(lacking)}: its files are incomplete.")
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
