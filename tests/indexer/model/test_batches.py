"""Batches that shrink to what the memory holds; a network that refuses above a size stands for a full device."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from indexer.errors import ModelError
from indexer.model._batches import Batches


class Device:
    """Doubles rows, as long as no more than ``memory`` come at once."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.tried: list[int] = []

    def __call__(self, rows: Tensor, *more: Tensor) -> Tensor:
        self.tried.append(len(rows))
        if len(rows) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows * 2 + sum(more)


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 8, 9, 100])
@pytest.mark.parametrize("memory", [1, 3, 8, 1000])
def test_every_row_comes_out_once_and_in_order(rows: int, memory: int) -> None:
    device = Device(memory)
    values = torch.arange(rows * 3).reshape(rows, 3)
    result = Batches(16).run(device, values, values)
    assert torch.equal(result, values * 3)
    assert max(size for size in device.tried if size <= memory) <= memory


def test_what_was_too_much_is_not_tried_again() -> None:
    device, batches = Device(5), Batches(64)
    batches.run(device, torch.zeros(64, 1))
    assert batches.size == 4
    assert device.tried[:5] == [64, 32, 16, 8, 4]
    device.tried.clear()
    batches.run(device, torch.zeros(64, 1))
    assert device.tried == [4] * 16


def test_a_small_call_that_fails_halves_what_it_was() -> None:
    device, batches = Device(2), Batches(64)
    assert torch.equal(batches.run(device, torch.ones(3, 1)), torch.full((3, 1), 2.0))
    assert device.tried == [3, 1, 1, 1]


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ModelError, match="too little free memory"):
        Batches(8).run(Device(0), torch.zeros(4, 1))


def test_memory_that_a_cpu_lacks_halves_as_well() -> None:
    def greedy(rows: Tensor) -> Tensor:
        if len(rows) > 2:
            torch.empty(1 << 50)
        return rows

    batches = Batches(8)
    assert torch.equal(batches.run(greedy, torch.ones(5, 1)), torch.ones(5, 1))
    assert batches.size == 2


def test_other_errors_are_left_alone() -> None:
    def broken(_: Tensor) -> Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Batches(8).run(broken, torch.zeros(4, 1))


def test_no_rows_give_none() -> None:
    assert Batches(8).run(Device(8), torch.zeros(0, 3)).shape == (0, 3)


def test_several_threads_share_what_they_learn() -> None:
    device, batches = Device(3), Batches(64)
    values = torch.arange(50.0)[:, None]
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: batches.run(device, values), range(20)):
            assert torch.equal(result, values * 2)
    assert batches.size in {1, 2, 3}


@pytest.mark.parametrize(
    ("overhead", "row", "memory", "found"),
    [
        (1.0, 0.0, 1000, 256),  # always faster, up to the most
        (1.0, 0.0, 255, 128),  # as far as the memory goes
        (1.0, 0.0, 127, 64),
        (1.0, 0.0, 63, 32),
        (1.0, 0.0, 31, 32),  # not even the first: `run` will find what does
        (0.0, 1.0, 1000, 32),  # never faster
        (64.0, 1.0, 1000, 256),
        (8.0, 1.0, 1000, 128),  # 64: 11 % faster, 128: 6 %, 256: 3 %
        (2.0, 1.0, 1000, 32),
    ],
)
def test_grows_as_long_as_it_pays_and_fits(overhead: float, row: float, memory: int, found: int) -> None:
    tried: list[int] = []

    def seconds(count: int) -> float:
        tried.append(count)
        if count > memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return overhead + row * count

    batches = Batches(32, most=256)
    batches.grow(seconds)
    assert batches.size == found
    tried_by_then = list(tried)
    batches.grow(seconds)
    assert tried == tried_by_then


def test_grows_only_where_it_may() -> None:
    batches = Batches(4)
    batches.grow(lambda _: pytest.fail("there is nothing to try"))
    assert batches.size == 4


def test_what_has_grown_is_halved_again_when_memory_gets_scarce() -> None:
    device, batches = Device(100), Batches(16, most=64)
    batches.grow(lambda _: 1.0)
    assert batches.size == 64
    device.memory = 20
    assert torch.equal(batches.run(device, torch.ones(64, 1)), torch.full((64, 1), 2.0))
    assert batches.size == 16
