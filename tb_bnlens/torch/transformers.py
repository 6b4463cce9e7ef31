"""A callback for the ``Trainer`` of Transformers, thin over ``Recorder``."""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable
from typing import Any

from tb_bnlens.frameworks.torch.layers import unwrapped
from tb_bnlens.torch.recorder import Recorder


def _callback() -> Any:
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ModuleNotFoundError:
        return object


class BNLens(_callback()):  # type: ignore[misc]
    """Record a ``Trainer.train`` of Transformers::

        from tb_bnlens.torch.transformers import BNLens

        trainer = Trainer(model, args, train_dataset=data, callbacks=[BNLens("runs/exp1")])

    The ``Trainer`` does not show its callbacks the batch, so a hook on the model keeps the arguments of the last call
    in training mode. The loss is the one in the model's output.

    Args:
        log_dir: TensorBoard run directory; ``TrainingArguments.logging_dir`` or ``output_dir`` where it is not given.
        loss: ``loss(output, inputs)``, where the model's output holds none.
        options: arguments of ``Recorder``: ``metrics``, ``optimizer`` (that of the ``Trainer`` where it is not given),
            ``forward`` (called with the model and the ``(args, kwargs)`` of its last call), ``validation_data``,
            ``probe_data``, ``overhead``, ``tolerance``, ``ignore``, ``on_error``, ``planned_steps`` (``max_steps``
            where it is not given) and ``verbose``.
    """

    def __init__(self, log_dir: str | None = None, loss: Callable[..., Any] | None = None, **options: Any):
        self._log_dir, self._loss, self._options = log_dir, loss, options
        self.recorder: Recorder | None = None
        """The recorder of the training that runs."""
        self._inputs: Any = None
        self._hook: Any = None

    def __deepcopy__(self, memo: Any) -> BNLens:
        """A callback with the same options that records nothing yet. What it was given is shared."""
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "recorder": None, "_inputs": None, "_hook": None}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Begin a record."""
        plain, _ = unwrapped(model)
        directory = self._log_dir or getattr(args, "logging_dir", None) or args.output_dir
        planned = int(state.max_steps) if getattr(state, "max_steps", 0) > 0 else None
        settings = {"planned_steps": planned, "optimizer": kwargs.get("optimizer"), "forward": _call, **self._options}
        self.recorder = Recorder(plain, directory, self._loss, **settings)
        self._hook = plain.register_forward_pre_hook(_Look(self.look), with_kwargs=True)

    def look(self, module: Any, args: Any, kwargs: Any) -> None:
        """Keep the arguments of a call in training mode."""
        if module.training:
            self._inputs = (args, dict(kwargs))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a step of the optimizer."""
        if self.recorder is not None and self._inputs is not None:
            inputs = self._inputs
            self.recorder.record(inputs, inputs[1] if self._loss is not None else None, step=int(state.global_step))
            self._inputs = None  # also those of a pass

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge and close the record."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self.recorder is not None:
            self.recorder.close()


class _Look:
    """The hook on the model. In a copy or file of the model a function that does nothing, of Python's own, is there."""

    def __init__(self, look: Callable[..., None]):
        self._look = look

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        self._look(module, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


def _call(model: Any, x: Any) -> Any:
    args, kwargs = x
    return model(*args, **kwargs)
