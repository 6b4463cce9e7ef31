"""``Recorder`` for PyTorch loops."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tb_bnlens.capture.options import Options
from tb_bnlens.capture.recorder import LoopRecorder
from tb_bnlens.frameworks.torch.adapter import TorchModel
from tb_bnlens.frameworks.torch.batches import Batch
from tb_bnlens.frameworks.torch.layers import unwrapped
from tb_bnlens.frameworks.torch.modes import modes, modes_of
from tb_bnlens.frameworks.torch.ranks import PATIENCE, Ranks, Seen, apart, seen_by
from tb_bnlens.frameworks.torch.untouched import modes_around, unseen_by_modes
from tb_bnlens.moments.moments import Moments
from tb_bnlens.moments.segments import Segments

GAP, MODES = "the gap between ranks", "the modes of the modules"
COUNTS = "what modes of PyTorch around training count"
"""Parts that can be given up on their own; see Guard."""


class Recorder(LoopRecorder):
    """Record a training loop for the BN Lens tab.

    Call ``record(x, y)`` after each step of the optimizer; everything else follows from defaults::

        lens = tb_bnlens.torch.Recorder(model, "runs/exp1", loss=loss_fn)
        for x, y in loader:
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()
            lens.record(x, y)
        lens.close()

    Weights, buffers, modes and random state stay as they are, to the bit. In distributed training, make one on every
    rank: rank 0 writes.

    Args:
        model: a ``torch.nn.Module``, in ``DistributedDataParallel`` or compiled if you like. Lazy modules may be built
            by the first step.
        log_dir: TensorBoard run directory; the record goes to ``<log_dir>/bn_lens``.
        loss: ``loss(predictions, target)``. Without it, the model's output has to be a loss or to hold one, as
            ``output.loss`` or ``output["loss"]``; else losses are not evaluated, and statistics are recorded.
        metrics: name -> ``metric(predictions, target)``, which returns a number or one for each row; or a metric with
            ``update`` and ``compute``, as in torchmetrics. Measured in both modes at the end. Without it, the accuracy
            where the target holds class numbers and the predictions a score for each class.
        optimizer: for the learning rate, which advice on drift uses.
        forward: ``forward(model, x)`` where the model is not called as ``model(x)``, ``model(*x)`` for a tuple of
            its arguments, or ``model(**x)`` for a mapping whose keys are arguments.
        validation_data: a list of batches, tensors ``(x, y)``, or a ``DataLoader`` without persistent workers,
            its own generator or its own sampler, which training may share; its first batches are probed too. The
            rows of its dataset must not depend on how often they were read.
        probe_data: likewise; its first batch is probed instead of the training batch.
        overhead: share of training time that recording may take, e.g. 0.01; ``math.inf`` for full density.
        tolerance: relative error of the running statistics that counts as converged.
        ignore: id of a cause -> layer name patterns that are shown as silenced.
        on_error: ``"warn"`` once and go on, or ``"raise"``.
        planned_steps: training steps that the loop will make in all, where known.
        verbose: 0 to print nothing when the record is closed; else one line with the verdict, the cause, a rescue and
            how to open the tab.

    Raises:
        ValueError: an argument out of range, or a model that is not a module. Faults while recording are warnings.
    """

    def __init__(
        self,
        model: Any,
        log_dir: str,
        loss: Callable[..., Any] | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        optimizer: Any = None,
        forward: Callable[..., Any] | None = None,
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
        self._model = TorchModel(model, loss, metrics, forward, optimizer)
        super().__init__(self._model, options, planned_steps, verbose=verbose)
        self._met = 0
        # Module -> whether it was in training mode after a step: most loops validate in eval mode before they end.
        self._modes: dict[Any, bool] = {}
        self._ranks: Ranks | None = None
        with self._guard(GAP):
            self._ranks = Ranks.of(options.log_dir)

    def _look_for_statistics(self) -> None:
        with self._unseen():
            super()._look_for_statistics()

    def record(self, x: Any, y: Any = None, *, step: int | None = None) -> None:
        """Take note of one step of the optimizer that has just been made on this batch.

        Args:
            x: inputs of the batch, as for ``forward``.
            y: the loss' target; None where the model computes its own loss.
            step: number of steps made so far; counted where it is not given.
        """
        if self.idle:
            return
        batch = Batch(x, y)
        if step is None and not modes_around() and self.passes_by(batch):
            return
        with self._unseen():
            self._record(batch, step)

    def _record(self, batch: Batch, step: int | None) -> None:
        if not self.quiet_for(1) and self.wanted:
            with self._guard(MODES):
                self._modes = modes_of(unwrapped(self._model.model)[0])
        if self._follows:
            # Rank 0 counts steps and writes; this one is asked about its batches at the end.
            with self._guard(GAP):
                self._batches.collect(self._met, batch, 1)
            self._met += 1
        else:
            self.step_made(batch, step)

    def close(self, ended: str = "") -> None:
        """Make the last probe and record, flush, and print the verdict. Safe to call twice.

        Args:
            ended: how the run has ended, ``"planned"``, ``"early"`` or ``"interrupted"``; by the plan where it is not
                given.
        """
        if self.idle:
            return
        in_training, self._modes = self._modes, {}
        with self._unseen(), modes(in_training):
            if not self._closed:
                if ended != "interrupted":
                    self._batches.settle()
                    with self._guard(GAP):
                        self._compare_ranks()
                if self._ranks is not None:
                    with self._guard(GAP):
                        self._ranks.leave()
            self._closed = self._closed or self._follows
            super().close(ended)

    @contextlib.contextmanager
    def _unseen(self) -> Iterator[None]:
        stack = contextlib.ExitStack()
        with self._guard(COUNTS):
            stack.enter_context(unseen_by_modes())
        try:
            yield
        finally:
            with self._guard(COUNTS):
                stack.close()

    @property
    def _follows(self) -> bool:
        return self._ranks is not None and self._ranks.rank != 0

    def _compare_ranks(self) -> None:
        """Measure on every rank what its batches make of the statistics of rank 0, and tell rank 0."""
        kept, adapter, until = self.kept_batches(), self._model, time.monotonic() + PATIENCE
        layers = adapter.layers()
        if self._ranks is None or not kept or not layers:
            return
        if self._follows:
            given = self._ranks.fetch("statistics", 0, until)
            if given is not None:
                self._ranks.publish("seen", **asdict(seen_by(adapter, kept, Moments(given["mean"], given["variance"]))))
            return
        others = self._ranks.others()
        snapshot = adapter.reader(layers).read()
        moving = Moments(snapshot.mean, snapshot.spread).double()
        self._ranks.publish("statistics", mean=moving.mean, variance=moving.variance)
        seen = [seen_by(adapter, kept, moving)]
        for rank in others:
            found = self._ranks.fetch("seen", rank, until)
            if found is None:
                self.note(
                    f"Rank {rank} has told no losses. The recorders of all ranks have to be closed, within "
                    f"{PATIENCE:.0f} seconds of one another, and after a block with model.join()."
                )
            else:
                seen.append(Seen(**found))
        if len(seen) > 1:
            self._log.ranks = [(float(s.inference), float(s.batch)) for s in seen]
            adapter.rank_means.extend(apart(seen, Segments([t.channels for t in layers])))
