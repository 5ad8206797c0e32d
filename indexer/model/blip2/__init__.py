"""BLIP-2 with its retrieval heads, as published (https://arxiv.org/abs/2301.12597), through transformers."""

from indexer.model.blip2._adapter import Blip2Model
from indexer.model.blip2._checkpoint import EncoderOptions, load_blip2
from indexer.model.blip2._hub import load_published

__all__ = ["Blip2Model", "EncoderOptions", "load_blip2", "load_published"]
