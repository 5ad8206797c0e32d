"""Texts as token ids, tokenised once."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from indexer.model._text import clean_text

# Flickr8k's captions are 14 tokens long on average, and fewer than 1 in 100 is longer than this.
_MAX_TOKENS = 26


class Texts:
    """N cleaned texts and their token ids."""

    def __init__(self, texts: Iterable[str], tokenizer_file: Path) -> None:
        self._texts = [clean_text(text) for text in texts]
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(_MAX_TOKENS)
        self._ids = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(self._texts)]

    def __len__(self) -> int:
        return len(self._ids)

    def tokenised_by(self, tokenizer_file: Path) -> "Texts":
        """The same texts by another tokenizer."""
        return Texts(self._texts, tokenizer_file)

    def by_length(self) -> list[int]:
        """The texts' indices, the shortest first."""
        return sorted(range(len(self)), key=lambda index: len(self._ids[index]))

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Token ids (B, T) padded to the longest of the batch, and their attention mask."""
        chosen = [self._ids[index] for index in indices]
        ids = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in chosen], batch_first=True)
        return ids, mask


def by_length(mask: Tensor, run: Callable[[Tensor, int], tuple[Tensor, ...]], parts: int = 4) -> tuple[Tensor, ...]:
    """Run ``run(rows, length)`` on texts of like length together, trimmed to the longest; rows come back in order.

    Captions differ in length by a factor of three: padded to the longest of the batch, half of the work is on padding.
    """
    lengths = mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    chunks = order.chunk(parts)
    results = [run(rows, int(lengths[rows].max())) for rows in chunks]
    back = order.argsort()
    return tuple(torch.cat(columns)[back] for columns in zip(*results, strict=True))
