"""The forms that the benchmark compares: what each gives back of tokens whose statistics are known."""

import pytest
import torch
from torch import Tensor

from scripts._token_forms import Known, coded, forms, nearest_level, shannon_bound

WIDTH = 32


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    """(40, 17, 32): of 4 x 4 patches and one token more; channels of spreads from 8 to 1/8, patches alike."""
    draw = torch.Generator().manual_seed(0)
    photo, patch = (torch.randn(40, count, WIDTH, generator=draw) for count in (1, 17))
    return (2 * photo + patch) * 2.0 ** torch.linspace(3, -3, WIDTH)


def knowing(others: Tensor) -> Known:
    return Known(read=torch.eye(WIDTH), taken=torch.eye(WIDTH), heeded=torch.eye(WIDTH), others=others, classifier=0)


def errors(tokens: Tensor) -> dict[str, float]:
    kept, others = tokens[:20], tokens[20:]
    known = knowing(others)
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
    assert found["cosines and axes, the best that 2.2 bits can be"] < 0.9 * found["cosines, coded, 2.2 bits"]
    known = knowing(tokens[:0])
    assert not any("directions" in name or "rank" in name for name, _, _ in forms(tokens[:1], known))


def test_coded_tokens_know_nothing_of_other_photos_and_bear_channels_that_stand_out() -> None:
    """Of normal values, all alike, no code of 2.2 bits leaves less than 4.7 % of the square (Shannon's bound); steps of
    one width leave 1.5 dB more at most, and some bits go to the scales. Where two channels of 256 are far larger, the
    others lose little.
    """
    tokens = torch.randn(2, 65, 256, generator=torch.Generator().manual_seed(3))
    standing_out = tokens.clone()
    standing_out[..., :2] *= 100
    known = Known(read=torch.eye(256), taken=torch.eye(256), heeded=torch.eye(256), others=tokens[:0], classifier=64)
    back = coded(tokens, torch.eye(256), known)
    assert 2 ** (-2 * 2.2) < (back - tokens).square().mean() < 2 ** (-2 * 2.0) * 10**0.15
    torch.testing.assert_close(coded(tokens[1:], torch.eye(256), known), back[1:])
    others = slice(2, None)
    error = (coded(standing_out, torch.eye(256), known) - standing_out)[..., others].square().mean()
    assert error < 1.3 * (back - tokens)[..., others].square().mean()
