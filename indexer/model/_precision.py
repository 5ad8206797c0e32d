"""In which precision a CPU computes fastest what moves no search result."""

import contextlib

import torch


def encoder_dtype(device: str) -> torch.dtype:
    """For an image encoder whose output is kept in float16: float16 on a CPU with units for it, else float32.

    The CPU itself is asked: one without them is slower in float16. bfloat16, faster still where there are matrix units
    for it, would show in the vectors (docs/benchmarks.md).
    """
    has_units = device == "cpu" and torch.cpu.get_capabilities().get("avx512_fp16", False)
    return torch.float16 if has_units else torch.float32


def products(dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Meanwhile convolutions and matrix products on the CPU take factors of this dtype."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
