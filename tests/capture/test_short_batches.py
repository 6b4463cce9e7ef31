"""When the next short batch is predicted."""

from __future__ import annotations

import random

from tb_bnlens.capture.short_batches import ShortBatches


def wanted(sizes: list[int]) -> list[int]:
    short_batches = ShortBatches()
    return [step for step, size in enumerate(sizes, 1) if short_batches.meet(step, size < 32)]


def test_the_steps_around_the_third_the_sixth_and_the_twelfth() -> None:
    assert wanted([32, 32, 32, 32, 2] * 13) == [14, 15, 29, 30, 59, 60]


def test_a_part_of_an_epoch_at_the_start_is_left_over() -> None:
    assert wanted([32, 2] + [32, 32, 32, 32, 2] * 4) == [11, 12]


def test_batches_that_are_all_of_one_size_want_nothing() -> None:
    assert wanted([32] * 200) == []


def test_batches_of_random_sizes_want_little() -> None:
    draw = random.Random(0)
    assert len(wanted([draw.choice([32, 24, 16]) for _ in range(10_000)])) <= 30
