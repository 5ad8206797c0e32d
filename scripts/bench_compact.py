"""How fast the compact model encodes photos on a CPU, one way beside the other, and what each does to results.

    python -m scripts.bench_compact                                    a table, of crops of the sample library
    python -m scripts.bench_compact --from FOLDER --photos 128         of the photos below a folder
    python -m scripts.bench_compact --threads 1 2 --json               one JSON object
    python -m scripts.bench_compact --threads 1 2 --plots docs         and a plot of the photos a second

Each way is the whole of ``encode_images``: pixels in memory to embeddings. The ways take turns, so that what else the
machine does meets all of them. Results are compared with those of float32 in the contiguous layout, for fifty texts.
What is quantised to int8, the image encoder's convolutions, is calibrated on other photos than those that are measured.
torch.compile needs a C++ compiler. torchao, onnx and onnxscript are no part of PhotoSeek's requirements: a way whose
package is not installed says so in its row.
"""

import argparse
import contextlib
import copy
import dataclasses
import importlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from indexer.model import load_model
from indexer.model.compact import CompactModel
from indexer.model.compact._network import CompactNetwork
from indexer.photos import squash
from scripts import plots
from scripts.bench_search import TEXTS, pictures

_BATCH = 32
_CALIBRATION_BATCHES = 2
_ROUNDS = 7
_OURS = "ONNX Runtime, float32"
_QUANTISED = ("Conv", "Clip", "Add")
"""ONNX operations of the image encoder: convolution, ReLU6 and the sum of a residual block."""

Encode = Callable[[Tensor], Tensor]
"""(B, 3, 224, 224) uint8 -> (B, 32, 256) float32, of a batch size that is always the same."""
Prepare = Callable[[CompactModel, Sequence[Tensor]], Encode]
"""Of the model in float32, and of batches of pixels to calibrate with."""


@dataclasses.dataclass(frozen=True, slots=True)
class Effect:
    """What a way does to results, beside the reference."""

    least_cosine: float
    """Of any embedding to the reference's."""
    moved_mean: float
    """By how much the similarity of a photo and a text differs."""
    moved_most: float
    other_first: float
    """Share of the texts for which another photo is the most similar one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One way, with one number of threads."""

    way: str
    threads: int
    failure: str | None = None
    """Why it could not be measured; then the rest is None."""
    photos_per_s: float | None = None
    """In the fastest round."""
    photos_per_s_median: float | None = None
    gain: float | None = None
    """Its rate over that of the reference, both in their fastest rounds."""
    effect: Effect | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=64, help=f"above {_BATCH}, whole batches of that")
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="where the photos are")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="of PyTorch and ONNX Runtime")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="instead of all")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write compact-encoders.png there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    batches = _pixels(options.folder, options.photos)
    ways = {name: WAYS[name] for name in dict.fromkeys([REFERENCE, *options.ways])}
    rows: list[Row] = []
    for threads in options.threads:
        with _threads(threads):
            rows += measure(ways, batches[:-_CALIBRATION_BATCHES], batches[-_CALIBRATION_BATCHES:])
    if options.json:
        photos = sum(map(len, batches[:-_CALIBRATION_BATCHES]))
        print(json.dumps({"photos": photos, "texts": len(TEXTS), "rows": [dataclasses.asdict(row) for row in rows]}))
    else:
        _print(rows)
    if options.plots is not None:
        _plot(options.plots, rows)


def measure(ways: Mapping[str, Prepare], batches: Sequence[Tensor], calibration: Sequence[Tensor]) -> list[Row]:
    """One row for each way, with as many threads as PyTorch is set to; `REFERENCE` must be among them."""
    threads = torch.get_num_threads()
    model = load_model("compact", "cpu")
    assert isinstance(model, CompactModel)
    texts = model.encode_texts(TEXTS)
    ready: dict[str, Encode] = {}
    failures: dict[str, str] = {}
    embeddings: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, prepare in ways.items():
            try:
                encode = prepare(model, calibration)
                embeddings[name] = torch.cat([encode(batch) for batch in batches])
                ready[name] = encode
            except ModuleNotFoundError as error:
                failures[name] = f"not installed: pip install {error.name}"
            except Exception as error:  # whatever a compiler raises is what this way is worth here
                failures[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        seconds = _in_turns(ready, batches)
    photos, best = sum(map(len, batches)), min(seconds[REFERENCE])
    return [
        Row(name, threads, failures[name])
        if name in failures
        else Row(
            name,
            threads,
            photos_per_s=photos / min(seconds[name]),
            photos_per_s_median=photos / statistics.median(seconds[name]),
            gain=best / min(seconds[name]),
            effect=effect(embeddings[name], embeddings[REFERENCE], texts),
        )
        for name in ways
    ]


def effect(embeddings: Tensor, reference: Tensor, texts: Tensor) -> Effect:
    """Of (n, 32, 256) embeddings in place of the reference's, for searches with (q, 256); all of unit length."""
    ours, theirs = (torch.einsum("nqd,td->tnq", each, texts).amax(dim=-1) for each in (embeddings, reference))
    moved = (ours - theirs).abs()
    return Effect(
        least_cosine=float((embeddings * reference).sum(dim=-1).min()),
        moved_mean=float(moved.mean()),
        moved_most=float(moved.max()),
        other_first=float((ours.argmax(dim=1) != theirs.argmax(dim=1)).float().mean()),
    )


class Whole(nn.Module):
    """``CompactNetwork.encode_images`` up to embeddings, as a module, with an image encoder of another kind."""

    def __init__(self, network: CompactNetwork, encoder: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        """``encoder`` stands in for the network's own; ``dtype`` is that of its products."""
        super().__init__()
        self.network = network
        self.encoder = encoder
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 224, 224) uint8 -> (B, 32, 256) float32."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            features = self.encoder(_normalised(pixels))
        features = features.float()
        belief = self.network.belief(self.network.encoder.classify(features))
        return self.network.embed_images(self.network.tokens(features, belief))


def eager_contiguous(model: CompactModel, _: Sequence[Tensor]) -> Encode:
    """The network in float32, in PyTorch's own layout."""
    network = copy.deepcopy(model._network)
    network.encoder.stem.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return Whole(network, network.encoder)


def eager(dtype: torch.dtype, model: CompactModel, _: Sequence[Tensor]) -> Encode:
    """The network as it is, its image encoder's products in ``dtype``."""
    return Whole(model._network, model._network.encoder, dtype)


def compiled(dtype: torch.dtype, model: CompactModel, _: Sequence[Tensor]) -> Encode:
    """By torch.compile, the image encoder's products in ``dtype``."""
    return _compiled(Whole(model._network, model._network.encoder, dtype))


def compiled_int8(model: CompactModel, calibration: Sequence[Tensor]) -> Encode:
    """By torch.compile for oneDNN, after post-training static quantisation of the image encoder."""
    pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    x86 = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    batches = [_normalised(pixels) for pixels in calibration]
    # Strictly: only then does a convolution keep the mark by which the quantiser knows it.
    exported = torch.export.export(model._network.encoder, (batches[0],), strict=True).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = pt2e.prepare_pt2e(exported, quantizer)
    for batch in batches:
        prepared(batch)
    return _compiled(Whole(model._network, pt2e.convert_pt2e(prepared)))


def ours(model: CompactModel, _: Sequence[Tensor]) -> Encode:
    """``CompactModel.encode_images``: ONNX Runtime, in float32."""
    return lambda pixels: model.encode_images(pixels).embeddings


def onnx_int8(model: CompactModel, calibration: Sequence[Tensor]) -> Encode:
    """By ONNX Runtime, the image encoder quantised statically, its weights per channel."""
    quantization = importlib.import_module("onnxruntime.quantization")
    exported = importlib.import_module("scripts.export_compact").exported(model._network)
    nodes = list(exported.graph.node)
    last = max(place for place, node in enumerate(nodes) if node.op_type == "Conv")
    batches = iter([{"pixels": pixels.numpy()} for pixels in calibration])
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as directory:
        path = Path(directory) / "int8.onnx"
        quantization.quantize_static(
            exported,
            path,
            SimpleNamespace(get_next=partial(next, batches, None)),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            op_types_to_quantize=list(_QUANTISED),
            # The last convolution's ReLU6 follows it; the sums after that are the Q-Former's.
            nodes_to_quantize=[node.name for node in nodes[: last + 2]],
        )
        return _session(path.read_bytes())


REFERENCE = "eager, contiguous, float32"
WAYS: dict[str, Prepare] = {
    REFERENCE: eager_contiguous,
    "eager, channels last, float32": partial(eager, torch.float32),
    "eager, channels last, float16": partial(eager, torch.float16),
    "eager, channels last, bfloat16": partial(eager, torch.bfloat16),
    "torch.compile, float32": partial(compiled, torch.float32),
    "torch.compile, float16": partial(compiled, torch.float16),
    "torch.compile, int8 in oneDNN": compiled_int8,
    _OURS: ours,
    "ONNX Runtime, int8": onnx_int8,
}


def _compiled(whole: Whole) -> Encode:
    module: Encode = torch.compile(whole)

    def encode(pixels: Tensor) -> Tensor:
        # Weights as constants, laid out for oneDNN once. An option of torch.compile would not reach its tracer.
        with inductor.patch(freezing=True):
            return module(pixels)

    return encode


def _session(serialised: bytes) -> Encode:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(["embeddings"], {"pixels": pixels.numpy()})[0])


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels.float() - 127) / 128


def _pixels(folder: Path | None, count: int) -> list[Tensor]:
    """Batches of pixels, all of one size; the last `_CALIBRATION_BATCHES` are to calibrate with."""
    size = min(count, _BATCH)
    wanted = count // size * size + _CALIBRATION_BATCHES * size
    with tempfile.TemporaryDirectory(prefix="photoseek-bench-") as samples:
        squares = [squash(picture, 224) for picture in pictures(folder, wanted, Path(samples))]
    if len(squares) < wanted:
        raise SystemExit(f"{wanted} photos are needed, and {folder} has {len(squares)}. Lower --photos.")
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Meanwhile so many threads compute one product; what was compiled for another number is forgotten."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_turns(ways: Mapping[str, Encode], batches: Sequence[Tensor]) -> dict[str, list[float]]:
    """Seconds that each way takes for all batches, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, encode) in itertools.product(range(_ROUNDS), ways.items()):
        started = time.perf_counter()
        for batch in batches:
            encode(batch)
        seconds[name].append(time.perf_counter() - started)
    return seconds


def _print(rows: Sequence[Row]) -> None:
    print("| way | threads | photos/s, best / median | gain | cosine, least | moved, mean / most | other first photo |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        name = f"**{row.way}**" if row.way == _OURS else row.way
        if row.effect is None:
            print(f"| {name} | {row.threads} | {row.failure} | | | | |")
            continue
        moved = f"{row.effect.moved_mean:.4f} / {row.effect.moved_most:.4f}"
        print(
            f"| {name} | {row.threads} | {row.photos_per_s:.1f} / {row.photos_per_s_median:.1f} | {row.gain:.2f} "
            f"| {row.effect.least_cosine:.5f} | {moved} | {row.effect.other_first:.0%} |"
        )


def _plot(folder: Path, rows: Sequence[Row]) -> None:
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.photos_per_s is not None:
            label = f"{row.threads} thread{'s' * (row.threads > 1)}"
            groups.setdefault(label, {})[row.way] = row.photos_per_s
    plots.bars(folder / "compact-encoders.png", "photos a second", groups)


if __name__ == "__main__":
    main()
