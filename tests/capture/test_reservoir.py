"""Which batches are kept: evenly, bounded, and the same however busy the machine is."""

from __future__ import annotations

import numpy as np
import pytest

from tb_bnlens.capture.reservoir import KEPT_BYTES, MOST, MOST_EARLY, Reservoir


def kept(steps: int, planned: int | None = None, epoch: int | None = None, nbytes: int = 1024) -> tuple[list[int], int]:
    """Steps of the kept batches of a run, and the looks that it took."""
    reservoir = Reservoir(lambda _: 32, lambda _: nbytes)
    reservoir.planned_steps, reservoir.epoch_steps = planned, epoch
    made = looks = 0
    while (step := reservoir.next_step(made)) <= steps:
        reservoir.offer(step - 1, [step])
        made, looks = step, looks + 1
    assert all(k.batch == k.step for k in reservoir.batches())
    return [k.step for k in reservoir.batches()], looks


@pytest.mark.parametrize("steps", [48, 100, 401, 5_000, 100_000])
@pytest.mark.parametrize("planned", [True, False])
def test_the_last_half_is_covered_evenly(steps: int, planned: bool) -> None:
    chosen, looks = kept(steps, steps if planned else None)
    assert MOST - 3 <= len(chosen) <= MOST
    assert looks <= MOST * (2 + np.log2(steps / MOST)) * (1.0 if planned else 1.4)
    assert steps * 0.45 < chosen[0] < steps * 0.6 and chosen[-1] > steps * 0.93
    assert max(np.diff(chosen)) <= 2.7 * (steps / 2) / MOST


@pytest.mark.parametrize("epoch", [47, 50, 64, 89, 100, 313])
@pytest.mark.parametrize("epochs", [2, 4, 8, 20, 50])
def test_epochs_in_the_same_order_are_covered_together(epoch: int, epochs: int) -> None:
    """As good as a random draw of as many positions at least, in how many there are and in the widest hole."""
    chosen, _ = kept(epoch * epochs, epoch * epochs, epoch)
    positions = np.unique((np.array(chosen) - 1) % epoch)
    hole = int(np.max(np.diff(np.append(positions, positions[0] + epoch))))
    draws = [np.unique(np.random.default_rng(i).integers(0, epoch, len(chosen))) for i in range(99)]
    holes = [np.max(np.diff(np.append(d, d[0] + epoch))) for d in draws]
    assert len(positions) >= 0.95 * len(chosen)
    assert hole <= np.median(holes)


def test_a_single_long_epoch_is_covered_whole() -> None:
    chosen, _ = kept(1_000, 1_000, epoch=1_000)
    assert chosen[0] < 130 and chosen[-1] > 870 and len(chosen) >= MOST / 2


def test_a_run_that_ends_far_before_its_plan_has_batches() -> None:
    chosen, _ = kept(88, planned=8_800)
    assert len(chosen) >= 5 and chosen[-1] > 80


def test_the_start_of_a_long_run_takes_few_looks() -> None:
    """Those of the last half alone, ten of them, took 87 looks at a millisecond each."""
    chosen, looks = kept(1_000, planned=500_000)
    assert looks <= 1.1 * MOST_EARLY * (1 + np.log(1_000 / MOST_EARLY))
    assert MOST_EARLY <= len(chosen) <= MOST_EARLY + 2
    assert max(np.diff([0, *chosen, 1_000])) <= 2.7 * 1_000 / MOST_EARLY


def test_memory_is_bounded() -> None:
    assert len(kept(500, nbytes=KEPT_BYTES // 5)[0]) <= 5
    assert len(kept(500, nbytes=2 * KEPT_BYTES)[0]) == 1


def test_batches_of_one_execution_and_of_skipped_steps() -> None:
    together = Reservoir(lambda _: 32, lambda _: 0)
    for made in range(0, 300, 10):
        if together.wants(made, 10):
            together.offer(made, [made + i + 1 for i in range(10)])
    assert [k.step for k in together.batches()] == kept(300)[0] == [k.batch for k in together.batches()]
    sparse = Reservoir(lambda _: 32, lambda _: 0)
    for made in range(0, 300, 10):
        sparse.offer(made, [made], steps=10)
    assert len(sparse.batches()) >= MOST / 2 - 2 and all(k.batch < k.step <= k.batch + 10 for k in sparse.batches())


def test_the_memory_of_a_batch_is_counted_once() -> None:
    counted: list[int] = []
    reservoir = Reservoir(lambda _: 32, lambda batch: counted.append(batch) or 1024)  # type: ignore[func-returns-value]
    for step in range(200):
        if reservoir.wants(step):
            reservoir.offer(step, [step])
    assert len(reservoir.batches()) > 1 and len(set(counted)) == len(counted)


def test_the_last_batches_of_a_run_of_one_epoch_are_kept() -> None:
    assert kept(500, planned=500, epoch=500)[0][-3:] == [498, 499, 500]
    assert kept(500, planned=500, epoch=50)[0][-3:] != [498, 499, 500]
    # A run that goes on for more than its plan has no more of them.
    assert len(kept(600, planned=500, epoch=500)[0]) <= MOST
