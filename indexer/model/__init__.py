"""The models: photos and texts in, embeddings and match logits out."""

from indexer.model._interface import EMBEDDING_SIZE, QUERY_TOKENS, ImageFeatures, Model, ModelIdentity
from indexer.model._quantisation import quantised, restored
from indexer.model._registry import ModelDescription, available_models, load_model

__all__ = [
    "EMBEDDING_SIZE",
    "QUERY_TOKENS",
    "ImageFeatures",
    "Model",
    "ModelDescription",
    "ModelIdentity",
    "available_models",
    "load_model",
    "quantised",
    "restored",
]
