"""Who sees which pictures: every one once, whatever the number of processes and wherever one starts."""

import numpy as np
import pytest

from crosshead.data.batching.order import (
    balanced_order,
    epoch_order,
    evaluation_batches,
    samples_per_epoch,
    training_batches,
)


def test_an_epoch_uses_whole_steps() -> None:
    assert samples_per_epoch(103, 10) == 100
    assert samples_per_epoch(103, 10, world_size=3) == 90
    assert samples_per_epoch(103, 10, world_size=2, accumulation_steps=2) == 80
    with pytest.raises(ValueError, match=r"5 training images are fewer than one step of 6 .*to 1 or less"):
        samples_per_epoch(5, 2, world_size=3)
    with pytest.raises(ValueError, match=r"5 training images .* x 8 processes .*: start fewer processes"):
        samples_per_epoch(5, 1, world_size=8)


def seen(order: np.ndarray, batch_size: int, start: int, world_size: int) -> list[list[int]]:
    """The global batches, put together from those of all processes."""
    parts = [
        training_batches(order, batch_size, start=start, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return [[i for _, part in step for i in part.tolist()] for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_processes_share_the_order_that_one_process_with_the_whole_batch_has(world_size: int) -> None:
    order = epoch_order(90, 97, seed=3, epoch=1)
    alone = seen(order, 3 * world_size, 0, 1)
    assert seen(order, 3, 0, world_size) == alone
    assert [i for step in alone for i in step] == order.tolist()[: 90 // (3 * world_size) * 3 * world_size]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_start_in_the_middle_goes_on_with_the_rest(world_size: int) -> None:
    order = epoch_order(24, 25, seed=0, epoch=0)
    whole = seen(order, 2, 0, world_size)
    stride = 2 * world_size
    for start in range(0, 25, stride):
        assert seen(order, 2, start, world_size) == whole[start // stride :]


def test_a_start_that_another_number_of_processes_left_is_not_lost() -> None:
    order = epoch_order(24, 24, seed=0, epoch=0)
    assert seen(order, 2, 10, 3) == [order[10:16].tolist(), order[16:22].tolist()]


def test_positions_tell_where_a_batch_begins() -> None:
    order = epoch_order(12, 12, seed=0, epoch=0)
    for position, part in training_batches(order, 3, start=6, rank=1, world_size=2):
        assert part.tolist() == order[position : position + 3].tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 11])
def test_evaluation_sees_every_picture_exactly_once(world_size: int) -> None:
    every = [
        i
        for rank in range(world_size)
        for _, part in evaluation_batches(10, 2, rank=rank, world_size=world_size)
        for i in part.tolist()
    ]
    assert sorted(every) == list(range(10))


def test_a_balanced_order_gives_every_class_its_share_and_every_picture_its_turn():
    targets = [0] * 50 + [1] * 3 + [4] * 7
    order = balanced_order(31, targets, seed=3, epoch=2)
    labels = np.asarray(targets)[order]
    assert sorted(np.bincount(labels)[[0, 1, 4]].tolist()) == [10, 10, 11]
    rare = np.bincount(order, minlength=60)[50:53]
    assert rare.max() - rare.min() <= 1 and len(set(order[labels == 0].tolist())) == (labels == 0).sum()
    assert (balanced_order(31, targets, seed=3, epoch=2) == order).all()
    assert (balanced_order(31, targets, seed=3, epoch=3) != order).any()
