"""The compact model: BLIP-2's first stage in miniature, shipped with PhotoSeek."""

from indexer.model.compact._adapter import CompactModel
from indexer.model.compact._checkpoint import load_compact, save_compact

__all__ = ["CompactModel", "load_compact", "save_compact"]
