"""How a caption or a query is cleaned and tokenised."""

import re
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

MAX_WORDS = 50
"""Words of a text that are kept."""

_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")


def clean_text(text: str) -> str:
    """Clean a text as BLIP-2's reference evaluation does (``BlipCaptionProcessor`` in salesforce/LAVIS).

    Lower-cases it, turns each of ``. ! " ( ) * # : ; ~`` into a space, collapses white space, and keeps the first 50
    words. Commas, question marks, hyphens, apostrophes and slashes stay. Halves of a surrogate pair, as undecodable
    arguments of a command and cut JSON have them, are no characters and left out.
    """
    characters = text.encode(errors="ignore").decode()
    return " ".join(_PUNCTUATION.sub(" ", characters.lower()).split()[:MAX_WORDS])


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], device: str) -> tuple[Tensor, Tensor]:
    """Clean B texts and tokenise them: token ids and attention mask, (B, L) int64 each, L the longest of this batch.

    A text that many photos are matched with is tokenised once. ``tokenizer`` truncates, pads and adds [CLS] and [SEP]
    itself.
    """
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    encodings = tokenizer.encode_batch([clean_text(text) for text in row_of])
    rows = torch.tensor([row_of[text] for text in texts], device=device)
    ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
    mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
    return ids[rows], mask[rows]
