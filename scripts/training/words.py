"""Tokens of their own for names that are still misunderstood, learned last, with everything else held still.

MiniLM cuts a rare name into pieces, and 250 steps do not teach the pieces of "ketch" what a ketch is. A row of the word
embeddings learns it soon, and changes no text without the word.
"""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.model.compact._network import BELIEF_SIZE, CompactNetwork, mean_pooled
from scripts.training import losses
from scripts.training.batches import NAME_PROMPTS
from scripts.training.dictionary import Dictionary
from scripts.training.pretrained import name_embeddings, tokenizer_file
from scripts.training.texts import Texts

_BATCH = 512
_RATE = 3e-3
_WORDS = 2000


def unused_names(wordnet: Dictionary, captions: Iterable[str]) -> list[str]:
    """The dictionary's names that begin no word of ``captions``: with tokens of their own, they change none of them."""
    words = {word for caption in captions for word in caption.lower().split()}
    used = {word[:length] for word in words for length in range(1, len(word) + 1)}
    # A tokenizer splits at a hyphen before it looks for words.
    return [name for name in wordnet.names if name not in used and "-" not in name]


def misunderstood(network: CompactNetwork, names: Sequence[str], wordnet: Dictionary) -> list[str]:
    """The 2,000 names whose sentence embeddings are farthest from name and definition."""
    targets = name_embeddings(names, [wordnet.definitions(name) for name in names])
    prompts = Texts((NAME_PROMPTS[0].format(name) for name in names), tokenizer_file())
    pooled, _ = _read_all(network, prompts)
    cosines = F.cosine_similarity(pooled, targets, dim=-1)
    return [names[index] for index in cosines.argsort()[:_WORDS].tolist()]


def write_tokenizer(words: Sequence[str], path: Path) -> None:
    """Write MiniLM's tokenizer to ``path``, with ``words`` that it would cut into pieces added to its vocabulary.

    WordPiece takes the longest match first, so their plurals become the word and an ending.
    """
    description = json.loads(tokenizer_file().read_text("utf-8"))
    vocabulary: dict[str, int] = description["model"]["vocab"]
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    path.write_text(json.dumps(description, ensure_ascii=False), "utf-8")


def learn_words(
    network: CompactNetwork, words: Sequence[str], wordnet: Dictionary, tokenizer: Path, steps: int
) -> None:
    """Give each of ``words`` the row of the word embeddings that says what its definition says.

    A name as a prompt has two targets: its sentence embedding half-way between name and definition, and, for the
    learned half of the embedding, what the network itself makes of the definition.
    """
    definitions = [wordnet.definitions(word) for word in words]
    targets = name_embeddings(words, definitions)
    described = Texts((NAME_PROMPTS[0].format(rows[0]) for rows in definitions), tokenizer_file())
    _, learned = _read_all(network, described)
    vocabulary = Tokenizer.from_file(str(tokenizer)).get_vocab()
    ids = [vocabulary[word] for word in words]
    weight = _with_rows(network, ids, definitions, tokenizer)
    trained = torch.zeros(len(weight), 1)
    trained[ids] = 1
    optimizer = torch.optim.Adam([weight], lr=_RATE)
    prompts = Texts((prompt.format(word) for word in words for prompt in NAME_PROMPTS), tokenizer)
    draw = random.Random(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / steps)
        chosen = draw.sample(range(len(words)), _BATCH)
        rows = [len(NAME_PROMPTS) * index + draw.randrange(len(NAME_PROMPTS)) for index in chosen]
        pooled, texts = _read(network, *prompts.batch(rows))
        named = losses.distillation(pooled, targets[chosen])
        meant = losses.distillation(texts, learned[chosen])
        optimizer.zero_grad()
        (named + meant).backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        weight.grad *= trained
        optimizer.step()
        if (step + 1) % 10 == 0:
            print(f"words {step + 1}/{steps}  named {named.item():.3f}  described {meant.item():.3f}", flush=True)
    network.requires_grad_(False)


def _with_rows(
    network: CompactNetwork, ids: Sequence[int], definitions: Sequence[Sequence[str]], tokenizer: Path
) -> nn.Parameter:
    """Lengthen the word embeddings to the tokenizer's vocabulary; a new word starts as the mean of its definition's."""
    old = network.text_embeddings.word_embeddings.weight.data
    new = torch.zeros(Tokenizer.from_file(str(tokenizer)).get_vocab_size(), old.shape[1])
    new[: len(old)] = old
    length = old.norm(dim=-1).mean()
    glosses = Texts((rows[0] for rows in definitions), tokenizer)
    for index, identifier in enumerate(ids):
        if identifier >= len(old):
            words, _ = glosses.batch([index])
            known = words[0, 1:-1][words[0, 1:-1] < len(old)]
            new[identifier] = F.normalize(old[known].mean(dim=0), dim=0) * length
    network.requires_grad_(False)
    parameter = nn.Parameter(new)
    network.text_embeddings.word_embeddings = nn.Embedding(len(new), new.shape[1], padding_idx=0)
    network.text_embeddings.word_embeddings.weight = parameter
    return parameter


def _read(network: CompactNetwork, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sentence embeddings (B, 384), and the learned halves of the ITC embeddings (B, 128)."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = network.text_hidden(ids, mask)
        texts = network.embed_text_hidden(hidden, mask)
    return mean_pooled(hidden.float(), mask), texts[:, :-BELIEF_SIZE]


@torch.no_grad()
def _read_all(network: CompactNetwork, texts: Texts) -> tuple[Tensor, Tensor]:
    starts = range(0, len(texts), _BATCH)
    read = [_read(network, *texts.batch(range(start, min(start + _BATCH, len(texts))))) for start in starts]
    pooled, learned = zip(*read, strict=True)
    return torch.cat(pooled), torch.cat(learned)
