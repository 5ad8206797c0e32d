"""What ``Blip2ForImageTextRetrieval`` itself makes of photos and texts."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, Blip2ForImageTextRetrieval, BlipImageProcessorPil

from indexer.model._text import clean_text


@torch.inference_mode()
def reference(directory: Path, pixels: Tensor, texts: list[str], *, itm: bool) -> Tensor:
    """Logits of ``forward``: (B, T) ITC similarities, or (B, 2) ITM logits of B pairs."""
    network = Blip2ForImageTextRetrieval.from_pretrained(directory)
    tokenizer = BertTokenizer.from_pretrained(directory)
    encoded = tokenizer(
        [clean_text(text) for text in texts],
        padding=True,
        truncation=True,
        max_length=35,
        split_special_tokens=True,
        return_tensors="pt",
    )
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    if network.config.image_token_index is not None:
        ids = torch.cat([torch.full((len(texts), 32), network.config.image_token_index), ids], dim=1)
        mask = torch.cat([torch.ones(len(texts), 32, dtype=torch.long), mask], dim=1)
    processor = BlipImageProcessorPil(size={"height": pixels.shape[-2], "width": pixels.shape[-1]})
    images = [Image.fromarray(photo.permute(1, 2, 0).numpy()) for photo in pixels]
    out = network(
        pixel_values=processor(images, return_tensors="pt")["pixel_values"],
        input_ids=ids,
        attention_mask=mask,
        use_image_text_matching_head=itm,
    )
    logits: Tensor = out.logits_per_image
    return logits
