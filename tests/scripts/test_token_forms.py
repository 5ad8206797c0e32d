"""The forms that the benchmark compares: what each gives back of tokens whose statistics are known."""

import pytest
import torch
from torch import Tensor

from scripts._token_forms import Known, forms, nearest_level, shannon_bound

WIDTH = 32


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    """(40, 17, 32): of 4 x 4 patches and one token more; channels of spreads from 8 to 1/8, patches alike."""
    draw = torch.Generator().manual_seed(0)
    photo, patch = (torch.randn(40, count, WIDTH, generator=draw) for count in (1, 17))
    return (2 * photo + patch) * 2.0 ** torch.linspace(3, -3, WIDTH)


def errors(tokens: Tensor) -> dict[str, float]:
    kept, others = tokens[:20], tokens[20:]
    known = Known(read=torch.eye(WIDTH), heeded=torch.eye(WIDTH), others=others, classifier=0)
    return {name: float((keep() - kept).norm() / kept.norm()) for name, _, keep in forms(kept, known)}


def test_levels_and_the_bound_of_two_bits() -> None:
    """Max's table for 4 levels: 0.1175; Shannon's bound: 0.0625."""
    values = torch.randn(1 << 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        nearest_level(torch.tensor([9.0, 0.1])), torch.tensor([1.510, 0.4528]), atol=1e-3, rtol=0
    )
    assert (nearest_level(values) - values).square().mean() == pytest.approx(0.1175, rel=0.03)
    assert (shannon_bound(values) - values).square().mean() == pytest.approx(0.0625, rel=0.03)


def test_every_form_keeps_as_much_as_it_should(tokens: Tensor) -> None:
    found = errors(tokens)
    assert all(error < 1 for error in found.values())
    assert found["float16"] < found["int8 per channel"] < found["int4 per channel"] < 0.1
    cosines = found["cosines and directions read, 2.2 bits"]
    assert found["cosines and directions heeded, 2.2 bits"] == cosines  # heeded is what is read here
    # Channels of such spreads, and patches so alike, are what it is for.
    assert cosines < 0.7 * found["rotated, 2 bits"]
