"""The models: photos and texts in, embeddings and match logits out."""

from indexer.model._interface import EMBEDDING_SIZE, QUERY_TOKENS, ImageFeatures, Model, ModelIdentity
from indexer.model._quantisation import quantise, quantised, restored
from indexer.model._registry import ModelDescription, available_models, load_model, other_gpus
from indexer.model._transfer import Fetch

__all__ = [
    "EMBEDDING_SIZE",
    "QUERY_TOKENS",
    "Fetch",
    "ImageFeatures",
    "Model",
    "ModelDescription",
    "ModelIdentity",
    "available_models",
    "load_model",
    "other_gpus",
    "quantise",
    "quantised",
    "restored",
]
