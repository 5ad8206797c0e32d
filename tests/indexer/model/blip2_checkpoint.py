"""Tiny BLIP-2 checkpoints, saved as the Hub saves them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
)

_WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", ",", "<", ">", "[", "]"),
    *("and", "beach", "dog", "her", "image", "man", "mask", "query", "sep", "two", "what", "woman"),
    *(f"{prefix}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for prefix in ("", "##")),
]
_VOCABULARY = len(_WORDS) + 1
"""Words of the embedding table: the tokenizer's, and ``[DEC]``."""
IMAGE_TOKEN_ID = _VOCABULARY
"""Id that the Hub's processors give ``<image>``: one past the embedding table."""


def save_checkpoint(
    directory: Path,
    *,
    image_size: int,
    image_token_index: int | None = None,
    query_tokens: int = 32,
    seed: int = 0,
    form: Literal["whole", "sharded", "pickled"] = "whole",
    more_words: Sequence[str] = (),
    drop: Callable[[str], bool] = lambda _: False,
    spoil: Callable[[str], bool] = lambda _: False,
    add: Mapping[str, Tensor] | None = None,
) -> Path:
    """Save a tiny checkpoint with random weights; ``drop`` leaves weights out, ``spoil`` makes them NaN."""
    network = _network(image_size, image_token_index, query_tokens, seed)
    network.save_pretrained(directory, max_shard_size="50KB" if form == "sharded" else "1GB")
    _tokenizer(more_words).save_pretrained(directory)
    path = directory / "model.safetensors"
    if form != "sharded":
        weights = {name: tensor for name, tensor in load_file(path).items() if not drop(name)}
        weights = {name: tensor * torch.nan if spoil(name) else tensor for name, tensor in weights.items()}
        save_file(weights | dict(add or {}), path)
    if form == "pickled":
        torch.save(load_file(path), directory / "pytorch_model.bin")
        path.unlink()
    return directory


def _network(
    image_size: int, image_token_index: int | None, query_tokens: int, seed: int
) -> Blip2ForImageTextRetrieval:
    vision = Blip2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=image_size
    )
    qformer = Blip2QFormerConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        vocab_size=_VOCABULARY,
        use_qformer_text_input=True,
    )
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        num_query_tokens=query_tokens,
        image_token_index=image_token_index,
    )
    network = Blip2ForImageTextRetrieval(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(network.named_parameters()):
            # Large enough that every part matters: transformers initialises the vision part with almost nothing.
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + (1.0 if "norm" in name.lower() else 0))
    return network


def _tokenizer(more_words: Sequence[str]) -> BertTokenizer:
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate([*_WORDS, *more_words])})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    return tokenizer
