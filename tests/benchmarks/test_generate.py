"""A long run's truth is what the reader and the report say of it, whatever TensorBoard kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the recorder writes the runs")

from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer, tag_types

from tb_bnlens import metadata
from tb_bnlens.history import History
from tb_bnlens.reader import open_logdir, read_run
from tb_bnlens.report import run_report
from tests.benchmarks.generate import Truth, plan, scheduled, write

STEPS, LAYERS = 20_000, 9


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    truth = plan(STEPS, LAYERS)
    logdir = tmp_path_factory.mktemp("long")
    write(logdir / "run", truth)
    return logdir, truth


@pytest.fixture(scope="module")
def history(generated: tuple[Path, Truth]) -> History:
    return read_run(open_logdir(generated[0]), "", "run")


def test_all_that_was_written_is_read(history: History, generated: tuple[Path, Truth]) -> None:
    truth = generated[1]
    assert tuple(history.steps) == truth.records
    assert tuple(history.loss_steps) == truth.probes
    assert len(history.manifest.layers) == LAYERS
    assert history.problems == ()
    assert [(e.step, e.kind) for e in history.manifest.events] == [
        (0, "start"),
        (truth.learning_rate_drop, "recompile"),
        (truth.momentum_change, "momentum"),
    ]


def test_bad_batches_between_two_records_are_seen(history: History, generated: tuple[Path, Truth]) -> None:
    truth = generated[1]
    first, last = truth.bad_batches
    assert not any(first <= step <= last for step in truth.records)
    after = int(np.searchsorted(history.steps, last))
    bad = list(truth.bad_layers)
    good = [layer for layer in range(LAYERS) if layer not in bad]
    assert (history.row("since_max")[after, bad] == 30.0).all()
    assert (history.row("since_max_step")[after, bad] == last).all()
    assert (history.row("since_max")[after, good] < 3.0).all()
    grown = history.row("distance_rms")[after] / history.row("distance_rms")[after - 1]
    assert grown[bad].min() > 1.1 * grown[good].max()


def test_the_momentum_change_is_seen(history: History, generated: tuple[Path, Truth]) -> None:
    truth = generated[1]
    momentum = history.row("momentum")
    changed = history.steps >= truth.momentum_change
    assert np.allclose(momentum[~changed], truth.momentums[0]) and np.allclose(momentum[changed], truth.momentums[1])


def test_records_grow_with_the_logarithm_of_the_steps() -> None:
    counts = [len(scheduled(steps, layers=4)[0]) for steps in (1_000, 10_000, 100_000)]
    assert counts[0] < 128 * (1 + np.log(1_000 / 128)), "one a step to 128, then step/128 apart"
    # As many more for each factor of ten.
    assert counts[2] - counts[1] == pytest.approx(counts[1] - counts[0], rel=0.25)
    assert counts[2] - counts[1] < 350


def test_records_of_many_layers_are_fewer() -> None:
    few, many = (len(scheduled(10_000, layers)[0]) for layers in (4, 500))
    assert many < few / 2


def provider_that_keeps(logdir: Path, records: int) -> Any:
    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        size_guidance={tag_types.TENSORS: 10}, tensor_size_guidance={metadata.PLUGIN_NAME: records}
    )
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return data_provider.MultiplexerDataProvider(multiplexer, str(logdir))


@pytest.mark.parametrize("kept", [60, 20])
def test_few_samples_give_fewer_points_and_not_wrong_ones(
    history: History, generated: tuple[Path, Truth], kept: int
) -> None:
    sampled = read_run(provider_that_keeps(generated[0], kept), "", "run", cap=kept)
    assert len(sampled.steps) == kept
    positions = np.searchsorted(history.steps, sampled.steps)
    assert np.array_equal(sampled.layers, history.layers[positions], equal_nan=True)
    assert sampled.last_step == history.last_step
    assert sampled.manifest.events == history.manifest.events
    assert any(f"keeps {kept} records" in problem for problem in sampled.problems)
    whole, part = run_report(history), run_report(sampled)
    assert part["severity"] == whole["severity"]
    for ours, theirs in zip(whole["layers"], part["layers"], strict=True):
        for name in ("state", "distance", "steps_to_converge", "momentum", "updates"):
            assert ours[name] == theirs[name], name
