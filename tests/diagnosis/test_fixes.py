"""Each printed fix is applied as printed to a real run that has the fault, and the finding goes away.

``CURES`` says how, ``NOT_RUN`` why not; a rule with a fix is in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tb_bnlens.diagnosis import words  # noqa: E402
from tb_bnlens.metadata import KERAS  # noqa: E402
from tb_bnlens.report import run_report  # noqa: E402
from tests.diagnosis import real_runs as real  # noqa: E402
from tests.diagnosis.faults import FAULTS  # noqa: E402
from tests.diagnosis.limits import above_each  # noqa: E402
from tests.diagnosis.real_runs import Build, Trained  # noqa: E402
from tests.diagnosis.test_real_runs import assert_named, record  # noqa: E402

Report = dict[str, Any]


@dataclass(frozen=True)
class Faulty:
    """A run that has the fault, as it ended."""

    rule: str
    build: Build
    model: Any
    data: Any
    fix: str
    rescue: str
    directory: Path

    def apply(self, **names: Any) -> dict[str, Any]:
        """Run the fix as printed, with these names in reach besides ``model`` and ``data``."""
        scope = {"model": self.model, "data": self.data, **names}
        exec(compile(self.fix, self.rule, "exec"), scope)
        return scope

    def rescued(self) -> None:
        """Run the rescue as printed."""
        exec(compile(self.rescue, self.rule, "exec"), {"model": self.model, "data": self.data})

    def gone(self, build: Build, **options: Any) -> None:
        """Train so, and the finding is gone, with no other in its place."""
        report = record(build, self.directory, **options)[0]
        found = {f["rule"]: f["severity"] for f in report["findings"] if f["status"] == "fail"}
        assert self.rule not in found, found
        assert report["severity"] in ("none", "info"), found


def trained_again(faulty: Faulty, **options: Any) -> None:
    """A fix that comes before compile: all is trained again."""

    def repair(model: Any, data: Any) -> Trained:
        scope = faulty.apply(model=model, data=data)
        return scope["model"], scope["data"]

    faulty.gone(faulty.build, repair=repair, **options)


def trained_longer(faulty: Faulty) -> None:
    """Larger batches are fewer: as many steps as before, or nearly."""
    trained_again(faulty, epochs=60)


def trained_on(epochs: int) -> Callable[[Faulty], None]:
    """A fix for the trained model, which is trained on for so many epochs."""

    def cure(faulty: Faulty) -> None:
        scope = faulty.apply()
        faulty.gone(lambda run: real.fit(run, scope["model"], scope["data"], epochs))

    return cure


def without_training(faulty: Faulty, repair: Callable[[Faulty], object] = Faulty.apply) -> None:
    """A fix for the trained model itself: inference comes down to batch mode, at the same weights."""
    before, batch = mean_loss(faulty, False), mean_loss(faulty, True)
    repair(faulty)
    after = mean_loss(faulty, False)
    assert before > 1.5 * batch, (before, batch)
    assert after < 1.2 * batch, (before, batch, after)


def rescued(faulty: Faulty) -> None:
    """A rescue does the same."""
    without_training(faulty, Faulty.rescued)


def mean_loss(faulty: Faulty, training: bool) -> float:
    """Over the data, in Keras' own training or inference mode; these networks have nothing but BatchNorm to tell."""
    model = faulty.model
    kept = [np.asarray(v).copy() for v in model.non_trainable_variables]
    losses = [real.cross_entropy()(y, model(x, training=training)) for x, y in faulty.data]
    for variable, value in zip(model.non_trainable_variables, kept, strict=True):
        variable.assign(value)
    return float(np.mean(losses))


def with_norms_of_their_own(faulty: Faulty) -> None:
    scope = faulty.apply()
    faulty.gone(faulty.build, norms=(scope["norm_a"], scope["norm_b"]))


def with_training_passed_on(faulty: Faulty) -> None:
    assert "training=training" in faulty.fix
    faulty.gone(faulty.build, passes_on=True)


def with_training_true(faulty: Faulty) -> None:
    assert "model(x, training=True)" in faulty.fix
    faulty.gone(lambda run: real.own_loop(run, True))


def rescued_and_trained_on(faulty: Faulty) -> None:
    """A rescue for the trained model, which is trained on."""
    faulty.rescued()
    faulty.gone(lambda run: real.fit(run, faulty.model, faulty.data, 1))


def with_dropout_last(faulty: Faulty) -> None:
    assert "after the last BatchNormalization" in faulty.fix
    faulty.gone(lambda run: real.dropout_first(run, last=True))


def with_one_call(faulty: Faulty) -> None:
    assert "concatenate([real, generated])" in faulty.fix
    report, _ = record(lambda run: real.called_apart(run, together=True), faulty.directory)
    assert not [f for f in report["findings"] if f["rule"] == faulty.rule and f["status"] == "fail"]


CURES: dict[str, tuple[tuple[str, Callable[[Faulty], None]], ...]] = {
    "non-finite-statistics": (("poisoned", rescued_and_trained_on),),
    "variance-shift": (("dropout before BatchNorm", with_dropout_last),),
    "unseen-updates": (("called on other data too", with_one_call),),
    "never-updated": (
        ("momentum 1", trained_again),
        ("loop without training=True", with_training_true),
        ("pretrained, loop without training=True", rescued),
    ),
    "set-after-trace": (("momentum set after the trace", trained_on(2)), ("unfrozen after the trace", trained_on(4))),
    "momentum-too-high": (("momentum 0.9997", trained_again), ("negative loss", trained_again)),
    # The momentum's window has to pass a few times, as the finding says.
    "drift": (("drift", trained_on(12)), ("drift under a schedule", trained_on(12))),
    "frozen-mismatch": (("frozen on other data", trained_on(1)),),
    "inference-mode-layer": (
        ("called in inference mode", trained_on(1)),
        ("called in inference mode", with_training_passed_on),
    ),
    "alternating-domains": (("shared by two domains", with_norms_of_their_own),),
    "unlike-batches": (("domains in turn", trained_again), ("sorted by class", trained_again)),
    "momentum-too-low": (("momentum 0.1", trained_again),),
    "short-last-batch": (("short last batch", trained_again),),
    "averaged-weights": (("averaged weights", without_training),),
    "batch-noise": (("batch noise", trained_longer),),
    "validation-shift": (("shifted validation", without_training),),
}
"""Rule -> real runs (of ``FAULTS``) and how the fix is applied to each."""
ELSEWHERE = {"ignores-statistics", "padded-rows", "dominated-statistics", "memorized-batches", "noisy-training"}
"""Causes whose fixes and rescues test_compositions.py runs."""
IN_TORCH = {"no-tracked-statistics", "frozen-weights-moving-statistics", "cumulative-average", "mixed-conventions"}
"""Causes of PyTorch models, whose fixes tests/frameworks/test_torch_causes.py runs."""
NOT_RUN = {
    "collapsed-channels": "Its fix for batches of one row is that of batch-noise: larger batches.",
    "before-after-update": "Nothing is at fault; the line only says what to compare with what.",
    "train-inference-gap": "No cause is known; its rescue is that of the others, which test_rescues.py runs.",
    "moved-outside-training": "It is code of the user's own that has to change; test_rescues.py runs the rescue.",
    "replica-spread": "It takes two devices, made before TensorFlow starts: test_replicas.py runs it.",
}
QUICK = {"poisoned", "momentum 0.1", "domains in turn"}

ALL = [
    pytest.param(rule, fault, cure, id=f"{rule}: {fault}", marks=() if fault in QUICK else pytest.mark.slow)
    for rule, ways in CURES.items()
    for fault, cure in ways
]


@pytest.mark.parametrize(("rule", "fault", "cure"), ALL)
def test_the_fix_cures(rule: str, fault: str, cure: Callable[[Faulty], None], tmp_path: Path) -> None:
    build = FAULTS[fault].build
    report, (model, data) = record(build, tmp_path / "faulty")
    assert_named(report, FAULTS[fault])
    found = next(f for f in report["findings"] if f["rule"] == rule)
    assert found["status"] == "fail"
    cure(Faulty(rule, build, model, data, found["fix"], found["rescue"], tmp_path / "repaired"))


def test_every_cause_with_a_fix_is_run_or_says_why_not() -> None:
    files = Path(words.__file__).parent.glob("*.py")
    with_fix = {f.stem.replace("_", "-") for f in files if re.search(r"^\s+fix=", f.read_text(), re.MULTILINE)}
    assert with_fix == CURES.keys() | NOT_RUN.keys() | ELSEWHERE | IN_TORCH
    assert not CURES.keys() & NOT_RUN.keys()


def small_model() -> tuple[Any, Any]:
    model = keras.Sequential(
        [keras.Input((4,)), *(keras.layers.BatchNormalization(name=n) for n in "abc"), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    return model, tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(32)


def test_every_variant_of_a_fix_runs() -> None:
    tried: set[str] = set()
    reports = [run_report(history) for history in above_each()]
    for report in reports:
        # PyTorch's run in tests/frameworks.
        for finding in report["findings"] if report["framework"] == KERAS else ():
            for code in {finding["fix"], finding["rescue"]} - tried - {""}:
                tried.add(code)
                # In a narrow column the rest of a comment behind code looks like code.
                assert not re.search(r"^ *[^#\s].*  # ", code, re.MULTILINE), code
                model, data = small_model()
                exec(compile(code, finding["rule"], "exec"), {"model": model, "data": data})
    assert len(tried) >= 12, tried
