"""The alignment of words and places, learned on the finished network by contrast within large batches.

Nothing but three projections is trained, so hidden states are computed once, and a step compares every text of its
batch with every photo: hundreds of times as many pairs as a step of ITM can.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.model.compact._network import CompactNetwork
from indexer.model.compact._qformer import HIDDEN_SIZE
from scripts.training.batches import Source
from scripts.training.texts import Texts

_BATCH = 256
_RATE, _WARMUP_STEPS = 2e-3, 20
_LABEL_SMOOTHING = 0.05
_PLACE_DROP = 0.1


def learn_alignment(network: CompactNetwork, captioned: Source, texts: Texts, steps: int) -> None:
    """Train what ``CompactNetwork.alignment`` uses, on photos with one random caption and view each."""
    hidden, mask = _hidden_states(network, texts, sum(len(row) for row in captioned.texts))
    tokens = _tokens(network, captioned)
    network.requires_grad_(False)
    trained = [network.word_projection, network.word_weight, network.place_projection]
    parameters = [parameter.requires_grad_() for module in trained for parameter in module.parameters()]
    temperature = nn.Parameter(torch.tensor(math.log(0.05)))
    optimizer = torch.optim.AdamW([*parameters, temperature], lr=_RATE, weight_decay=0.01)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        rate = min(1, (step + 1) / _WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = _RATE * rate
        photos = torch.randperm(len(tokens), generator=draw)[:_BATCH]
        captions = torch.randint(5, (_BATCH,), generator=draw)
        chosen = torch.tensor([captioned.texts[p][c] for p, c in zip(photos.tolist(), captions.tolist(), strict=True)])
        views = torch.randint(tokens.shape[1], (_BATCH,), generator=draw)
        length = int(mask[chosen].sum(dim=1).max())
        words = network.words(hidden[chosen, :length].float(), mask[chosen, :length])
        kept = torch.rand(_BATCH, tokens.shape[2], 1, generator=draw) >= _PLACE_DROP
        alignments = all_alignments(words, network.places(tokens[photos, views].float()) * kept) / temperature.exp()
        own = torch.arange(_BATCH)
        loss = sum(F.cross_entropy(rows, own, label_smoothing=_LABEL_SMOOTHING) for rows in (alignments, alignments.T))
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"alignment {step + 1}/{steps}  {loss.item() / 2:.3f}", flush=True)
    network.requires_grad_(False)


def all_alignments(words: tuple[Tensor, Tensor], places: Tensor) -> Tensor:
    """(T, I): ``CompactNetwork.alignment`` of every text with every photo, in bfloat16."""
    vectors, weights = words
    best = torch.einsum("twd,ipd->twip", vectors.bfloat16(), places.bfloat16()).max(dim=-1).values.float()
    return torch.einsum("twi,tw->ti", best, weights)


@torch.inference_mode()
def _hidden_states(network: CompactNetwork, texts: Texts, count: int) -> tuple[Tensor, Tensor]:
    order = [index for index in texts.by_length() if index < count]
    longest = texts.batch(order[-1:])[0].shape[1]
    hidden, mask = torch.zeros(count, longest, HIDDEN_SIZE, dtype=torch.bfloat16), torch.zeros(count, longest).long()
    for start in range(0, count, _BATCH):
        chosen = order[start : start + _BATCH]
        ids, present = texts.batch(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            hidden[chosen, : ids.shape[1]] = network.text_hidden(ids, present).bfloat16()
        mask[chosen, : ids.shape[1]] = present
    return hidden.clone(), mask.clone()


@torch.inference_mode()
def _tokens(network: CompactNetwork, captioned: Source) -> Tensor:
    """(I, views, 50, 256) tokens of every view of every photo."""
    stored = captioned.features
    tokens = []
    for start in range(0, len(stored.tokens), _BATCH):
        features = torch.from_numpy(np.asarray(stored.tokens[start : start + _BATCH])).float()
        logits = torch.from_numpy(np.asarray(stored.logits[start : start + _BATCH])).float()
        with torch.autocast("cpu", torch.bfloat16):
            made = network.tokens(features.flatten(0, 1), network.belief(logits.flatten(0, 1)))
        tokens.append(made.bfloat16().view(*features.shape[:2], *made.shape[1:]))
    return torch.cat(tokens).clone()
