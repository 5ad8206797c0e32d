"""Make the graph of the compact model's image path again: after a change of the network, not after training.

    pip install onnx onnxscript        # no part of PhotoSeek: in an environment of their own
    python -m scripts.export_compact

Writes indexer/model/compact/encode_images.onnx, which ONNX Runtime computes with a checkpoint's weights on a CPU; the
weights are not in it. The tests hold it against the network, so that none is kept which does something else.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from onnx import ModelProto, TensorProto
from onnxscript import ir
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from indexer.model import load_model
from indexer.model.compact import CompactModel
from indexer.model.compact._image_graph import GRAPH, external_name
from indexer.model.compact._network import CompactNetwork

_PREFIX = "network."
_MOST_CONSTANT_BYTES = 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=GRAPH, metavar="FILE", help="instead of into the package")
    options = parser.parse_args(arguments)
    model = load_model("compact", "cpu")
    assert isinstance(model, CompactModel)
    graph = without_weights(exported(model._network))
    options.to.write_bytes(graph.SerializeToString(deterministic=True))


class _EncodeImages(nn.Module):
    """The image path as a module: only that can be exported."""

    def __init__(self, network: CompactNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.encode_images(pixels)


def exported(network: CompactNetwork) -> ModelProto:
    """The image path with its weights, named as in the state of an `_EncodeImages`; for any number of photos."""
    pixels = torch.zeros(3, 3, 224, 224, dtype=torch.uint8)
    # Strictly: the other way transformers' masks fix the number of photos.
    # Strictly: the other way fixes the number of photos.
    program = torch.export.export(
        _EncodeImages(network).eval(), (pixels,), dynamic_shapes=({0: torch.export.Dim("photos")},), strict=True
    )
    made = torch.onnx.export(
        program.run_decompositions({}),
        dynamo=True,
        optimize=False,
        verbose=False,
        input_names=["pixels"],
        output_names=["tokens", "embeddings"],
    )
    assert made is not None
    # What depends on a weight is left for ONNX Runtime to compute beforehand, once it has them.
    optimize_ir(made.model, should_fold=lambda node: False if _reads_a_weight(node) else None)
    return made.model_proto


def without_weights(graph: ModelProto) -> ModelProto:
    """``graph`` with a reference in place of each weight, by `external_name`, and without notes on its making."""
    tensors = list(graph.graph.initializer)
    del graph.graph.initializer[:]
    for tensor in tensors:
        if not tensor.name.startswith(_PREFIX):
            assert tensor.ByteSize() < _MOST_CONSTANT_BYTES, f"{tensor.name} is made of weights"
            graph.graph.initializer.append(tensor)
            continue
        weight = graph.graph.initializer.add(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=TensorProto.EXTERNAL
        )
        name = external_name(tensor.name.removeprefix(_PREFIX), tuple(tensor.dims))
        weight.external_data.add(key="location", value=name)
    for noted in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output):
        del noted.metadata_props[:]
    del graph.graph.value_info[:]
    return graph


def _reads_a_weight(node: ir.Node) -> bool:
    return any(value is not None and (value.name or "").startswith(_PREFIX) for value in node.inputs)


if __name__ == "__main__":
    main()
