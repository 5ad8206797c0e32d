"""Names of things and what they mean, for the text half to learn."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.training.batches import NAME_PROMPTS
from scripts.training.pretrained import sentence_embeddings, tokenizer_file, with_definitions
from scripts.training.texts import Texts


class Names:
    """N names, each as every prompt, and what their embeddings should be."""

    def __init__(self, names: Sequence[str], definitions: Sequence[Sequence[str]]) -> None:
        self._prompts = Texts((prompt.format(name) for name in names for prompt in NAME_PROMPTS), tokenizer_file())
        named = sentence_embeddings(Texts((NAME_PROMPTS[0].format(name) for name in names), tokenizer_file()))
        self.embeddings = with_definitions(named, definitions)
        # Names that MiniLM misunderstands come more often: those that it knows are at a cosine of 0.95 already.
        self._weights = (1 - (named * self.embeddings).sum(dim=-1)).square().tolist()

    def draw(self, count: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random names of this step: token ids and mask (count, L), and embeddings (count, 384)."""
        draw = random.Random(f"names {step}")
        chosen = draw.choices(range(len(self.embeddings)), self._weights, k=count)
        ids, mask = self._prompts.batch([len(NAME_PROMPTS) * i + draw.randrange(len(NAME_PROMPTS)) for i in chosen])
        return ids, mask, self.embeddings[torch.tensor(chosen)]
