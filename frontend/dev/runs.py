"""Runs that show every state of the tab, from the simulator that the tests use."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tb_bnlens.history import Channels, Event, History, Layer
from tb_bnlens.metadata import CHECKPOINTS, LOSS_KINDS
from tests.simulation import Sim, SimLayer, channel_snapshots, simulate

BROKEN = "band/0.999"
HOSTILE = "<b>hostile</b> & 'run'"
LONG = "experiments/2026-11/backbone=mobilenet_v2,alpha=0.5/optimizer=adam,rate=0.01/momentum=0.999,seed=3"


IMPORTED = {
    "source": CHECKPOINTS,
    "not_evaluated": dict.fromkeys(("losses", *LOSS_KINDS, "replayed"), "This record was made from checkpoints."),
}


@dataclass(frozen=True)
class SimulatedRun:
    """A run of the simulator under a name, with snapshots of its channels."""

    name: str
    sim: Sim
    repeats: int = 1
    """Copies of every layer: size without the time to simulate it."""
    said: Mapping[str, object] = field(default_factory=dict)
    """Fields of the manifest."""
    age: float = 0.0
    """Seconds since the last record."""
    empty: bool = False
    """Only the manifest is written yet."""

    @cached_property
    def history(self) -> History:
        """Its record."""
        history = simulate(self.sim, self.name)
        if self.empty:
            parts = ("steps", "wall_times", "layers", "loss_steps", "loss_wall_times", "losses")
            history = replace(history, **{name: getattr(history, name)[:0] for name in parts})
        late = time.time() - self.age - (history.last_record or 0.0)
        history = replace(
            history,
            manifest=replace(history.manifest, **self.said),  # type: ignore[arg-type]
            wall_times=history.wall_times + late,
            loss_wall_times=history.loss_wall_times + late,
        )
        if self.repeats == 1:
            return history
        count = len(self.sim.layers) * self.repeats
        layers = tuple(Layer(i, f"stage_{i // 20}/block_{i}/bn", 16, 0.99, 1e-3, order=i) for i in range(count))
        table = np.tile(history.layers, (1, self.repeats, 1))
        return replace(history, manifest=replace(history.manifest, layers=layers), layers=table)

    @cached_property
    def _snapshots(self) -> tuple[list[int], list[np.ndarray]]:
        steps = sorted({max(1, self.sim.steps // part) for part in (8, 3, 1)})
        return steps, channel_snapshots(self.sim, steps)

    def channels(self, layer: int) -> Channels:
        """Snapshots of a layer's channels."""
        steps, values = self._snapshots
        return Channels(np.array(steps, np.int64), values[layer % len(values)])


def mobilenet(momentum: float) -> list[SimLayer]:
    """BatchNorm layers named as in MobileNetV2; the depthwise ones have a small variance."""
    names = ["bn_Conv1", "expanded_conv_depthwise_BN", "expanded_conv_project_BN"]
    parts = ("expand", "depthwise", "project")
    names += [f"block_{block}_{part}_BN" for block in range(1, 17) for part in parts]
    layers = [*names, "Conv_1_bn"]
    return [SimLayer(name, 16, momentum, 0.2, 0.013 if "depthwise" in name else 0.4) for name in layers]


def band(momentum: float, steps: int = 400, **options: object) -> Sim:
    """Story 1: with momentum 0.999 the statistics are far from converged after 400 steps."""
    events = (
        Event(0, "start", "recording begins"),
        *(Event(step, "epoch", "epoch ends") for step in range(50, steps + 1, 50)),
        Event(250, "learning_rate", "learning rate 0.01 -> 0.0097"),
        Event(300, "recompile", "compiled again"),
    )
    sim = Sim(mobilenet(momentum), steps=steps, planned=steps, batch_loss=1.4, start_loss=15000.0, gain=400.0)
    return replace(sim, events=tuple(e for e in events if e.step <= steps), **options)  # type: ignore[arg-type]


def simulated_runs() -> dict[str, SimulatedRun]:
    """All of them by name."""
    odd = [
        SimLayer("<img src=x onerror=alert(1)>", 8, state="frozen", true_mean=1.5),
        SimLayer("слой/нормализация/" + "x" * 160, 8, poisoned_at=40),
        SimLayer("\"quoted\" & 'bn'", 4, momentum=0.1, collapsed=2),
    ]
    drifting = [SimLayer(f"bn_{i}", 16, 0.99, drift=0.02) for i in range(5)]
    made = [
        SimulatedRun(BROKEN, band(0.999)),
        SimulatedRun("band/0.9", band(0.9)),
        SimulatedRun(LONG, band(0.999, steps=200, validation=(1.1, 40.0))),
        SimulatedRun("deep/200 layers", Sim(mobilenet(0.99)[:10], steps=199, planned=199), repeats=20),
        SimulatedRun("drift", Sim(drifting, steps=400, planned=400, batch_loss=0.1, start_loss=100.0, gain=10.0)),
        SimulatedRun("early", band(0.99, steps=60, planned=6000)),
        SimulatedRun("began", band(0.99, steps=60, planned=6000), empty=True),
        SimulatedRun("stopped", band(0.99, steps=60, planned=6000), said={"ended": "interrupted", "ended_step": 60}),
        SimulatedRun("killed", band(0.99, steps=60, planned=6000), age=7200.0),
        SimulatedRun("imported", Sim(mobilenet(0.999)[:6], steps=50, probe=False), said=IMPORTED),
        SimulatedRun("no losses", Sim(mobilenet(0.999)[:6], steps=50, probe=False)),
        SimulatedRun("silenced", band(0.999, ignore={"momentum-too-high": ("*",), "train-inference-gap": ("*",)})),
        SimulatedRun(HOSTILE, Sim(odd, steps=50, planned=50, dropout=0.4, probe_every=10)),
    ]
    return {run.name: run for run in made}
