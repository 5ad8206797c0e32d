"""``CompactNetwork.encode_images`` in ONNX Runtime, which on a CPU runs it about twice as fast as PyTorch."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from indexer.errors import CheckpointInvalid

GRAPH = Path(__file__).parent / "encode_images.onnx"
"""Made of the network by scripts/export_compact.py: its operations, without its weights."""

# More at once are no faster, and what they take is not given back: 10 MB a photo.
_MOST_ROWS = 16


class ImageGraph:
    """The image path with the weights of one checkpoint. Safe to call from several threads."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """``weights`` are the float32 state of a `CompactNetwork`; they are copied. As many threads compute as
        PyTorch uses.

        Raises CheckpointInvalid, with the weight's name and shape: the graph needs one that is not there.
        """
        # From 1.29 on its builds report to Microsoft, unless this is set when they are imported.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415 (texts and GPUs do without it)

        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Decoders share the cores: a thread that has nothing to do must not keep one busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A plan for each size of batch takes a quarter more memory, and gains nothing.
        options.enable_mem_pattern = False
        buffers = {external_name(name, weight.shape): weight.contiguous().numpy() for name, weight in weights.items()}
        sizes = [buffer.nbytes for buffer in buffers.values()]
        options.add_external_initializers_from_files_in_memory(list(buffers), list(buffers.values()), sizes)
        try:
            self._session = InferenceSession(GRAPH, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises nothing narrower
            raise CheckpointInvalid(
                f"{GRAPH} does not fit the weights of the compact model: {error}. "
                "Install PhotoSeek again; or, after a change of the network, run scripts/export_compact.py."
            ) from error

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 224, 224) uint8 -> tokens (B, 50, 256) and embeddings (B, 32, 256), both float32."""
        parts = [self._session.run(None, {"pixels": part.numpy()}) for part in torch.split(pixels, _MOST_ROWS)]
        tokens, embeddings = (torch.cat([torch.from_numpy(each) for each in kind]) for kind in zip(*parts, strict=True))
        return tokens, embeddings


def external_name(name: str, shape: tuple[int, ...]) -> str:
    """By what the graph refers to a weight. The shape is part of it: ONNX Runtime compares names alone."""
    return f"{name} {list(shape)}"
