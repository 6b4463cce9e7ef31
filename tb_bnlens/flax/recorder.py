"""``Recorder`` for loops with flax nnx."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tb_bnlens.capture.options import Options
from tb_bnlens.capture.recorder import LoopRecorder
from tb_bnlens.frameworks.flax.adapter import FlaxModel
from tb_bnlens.frameworks.flax.batches import Batch
from tb_bnlens.frameworks.flax.layers import Modes, in_modes, modes_of
from tb_bnlens.frameworks.flax.runner import Forward

MODES = "the modes of the modules"
"""A part that can be given up on its own; see Guard."""


class Recorder(LoopRecorder):
    """Record a training loop for the BN Lens tab.

    Call ``record(x, y)`` after each step of the optimizer; everything else follows from defaults::

        model.train()
        lens = tb_bnlens.flax.Recorder(model, "runs/exp1", loss=loss_fn)
        for x, y in batches:
            train_step(model, optimizer, x, y)
            lens.record(x, y)
        lens.close()

    Each pass runs on a copy of the module, so parameters, statistics, modes and random streams stay as they are, to the
    bit. A loop that trains a split state has to put it in the module (``nnx.update(model, state)``) before ``record``.

    Args:
        model: an ``nnx.Module``, in the mode of training when ``record`` is called.
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``.
        loss: ``loss(predictions, target)``, one number or one for each row, which can be compiled. Without it losses
            are not evaluated, and statistics are recorded.
        metrics: name -> ``metric(predictions, target)``, likewise. Measured in both modes at the end.
            Without it, the accuracy where the target is the class and the predictions a score for each class.
        forward: ``forward(model, x, training)`` where the model is not called as ``model(x)``, or ``model(*x)`` for a
            tuple. Modules are in the right mode by themselves; ``training`` is for models that take theirs as an
            argument.
        validation_data: a list of batches ``(x, y)``, or arrays ``(x, y)``; its first batches are probed too.
        probe_data: likewise; its first batch is probed instead of the training batch.
        overhead: share of training time that recording may take, e.g. 0.01; ``math.inf`` for full density.
        tolerance: relative error of the running statistics that counts as converged.
        ignore: id of a cause -> layer name patterns that are shown as silenced.
        on_error: ``"warn"`` once and go on, or ``"raise"``.
        planned_steps: training steps that the loop will make in all, where known.
        verbose: 0 to print nothing when the record is closed; else one line with the verdict, the cause, a rescue and
            how to open the tab.

    Raises:
        ValueError: an argument out of range, or a model that is not an nnx module. Faults while recording are warnings.
    """

    def __init__(
        self,
        model: Any,
        log_dir: str,
        loss: Callable[..., Any] | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        forward: Forward | None = None,
        validation_data: Any = None,
        probe_data: Any = None,
        overhead: float = 0.01,
        tolerance: float = 0.1,
        ignore: Mapping[str, str | Sequence[str]] | None = None,
        on_error: str = "warn",
        planned_steps: int | None = None,
        verbose: int = 1,
    ):
        options = Options(log_dir, validation_data, probe_data, overhead, tolerance, ignore, on_error)
        self._model = FlaxModel(model, loss, metrics, forward)
        super().__init__(self._model, options, planned_steps, verbose=verbose)
        # After a step: most loops validate in eval mode before they end.
        self._modes: Modes = []

    def record(self, x: Any, y: Any = None, *, step: int | None = None) -> None:
        """Take note of one step of the optimizer that has just been made on this batch.

        Args:
            x: the model's input: an array, a tuple of arguments, or any other tree.
            y: the loss' target.
            step: number of steps made so far; counted where it is not given.
        """
        if self.idle:
            return
        if not self.quiet_for(1) and self.wanted:
            with self._guard(MODES):
                self._modes = modes_of(self._model.model)
        self.step_made(Batch(x, y), step)

    def close(self, ended: str = "") -> None:
        """Make the last probe and record, flush, and print the verdict. Safe to call twice.

        Args:
            ended: how the run has ended, ``"planned"``, ``"early"`` or ``"interrupted"``; by the plan where it is not
                given.
        """
        if self.idle:
            return
        in_training, self._modes = self._modes, []
        with in_modes(in_training):
            super().close(ended)
