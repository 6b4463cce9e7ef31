"""Short trainings of PyTorch models that nobody here wrote: whether the lens changes a bit of them, and what it says.

``python -m tests.upstream.zoo NAME ...`` for some, all without names; ``-v`` prints what each report says. It runs
where PyTorch is; a model whose library is missing is left out. Weights are random. Each training runs without the
lens, with it at full density, and at its defaults; where something differs, once more without. Behind each,
``check``, ``recalibrate``, ``set_momentum`` and the printed rescues are run.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import math
import random
import sys
import tempfile
import time
import traceback
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tb_bnlens.torch as lens
from tests.frameworks.torch_runs import report_of
from tests.upstream.zoo_models import STEPS, TRAININGS, Training

LENSES: dict[str, dict[str, Any]] = {
    "full density": {"overhead": math.inf, "on_error": "raise"},
    "defaults": {},
}

MOMENTUM = 0.4
"""Of all BatchNorm modules: so few steps are too few for 0.1."""


def seeded() -> None:
    """Every generator at its start."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def trained(name: str, options: Mapping[str, Any] | None, where: Path | None = None) -> tuple[Training, dict[str, str]]:
    """A training at its end and its state, with a lens of these options or without one."""
    seeded()
    training = TRAININGS[name]()
    for module in training.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = MOMENTUM
    losses, recorder = [], None
    if options is not None:
        settings = {"verbose": 0, "optimizer": training.optimizer, **training.options, **options}
        recorder = lens.Recorder(training.model, str(where), **settings)
    for i in range(STEPS):
        loss, x, y = training.step(i)
        losses.append(float(loss).hex())
        if recorder is not None:
            recorder.record(x, y)
    after = state(training)
    if recorder is not None:
        recorder.close()
    return training, {**state(training), "losses": " ".join(losses), "before close": repr(sorted(after.items()))}


def state(training: Training) -> dict[str, str]:
    """Digests of all that training writes."""
    held = (training.model, training.optimizer, *training.also)
    found = {f"{type(one).__name__} {i}": digest(one.state_dict()) for i, one in enumerate(held) if one is not None}
    modules = [one for one in held if isinstance(one, torch.nn.Module)]
    found["gradients"] = digest([p.grad for m in modules for p in m.parameters()])
    found["modes"] = digest([(n, m.training) for one in modules for n, m in one.named_modules()])
    found["flags"] = digest([p.requires_grad for m in modules for p in m.parameters()])
    found["random"] = digest([torch.get_rng_state(), *map(repr, (np.random.get_state(), random.getstate()))])  # noqa: NPY002
    return found


def digest(thing: Any) -> str:
    """SHA-256 of nested values, to the bit."""
    total = hashlib.sha256()
    for leaf in _leaves(thing):
        if isinstance(leaf, torch.Tensor):
            total.update(f"{leaf.shape}{leaf.dtype}{leaf.stride()}".encode())
            total.update(leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            total.update(repr(leaf).encode())
    return total.hexdigest()


def _leaves(thing: Any) -> Iterator[Any]:
    if isinstance(thing, Mapping):
        for key, value in thing.items():
            yield key
            yield from _leaves(value)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from _leaves(value)
    else:
        yield thing


def unlike(left: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    """What differs."""
    return [key for key in {**left, **right} if left.get(key) != right.get(key)]


def compared(name: str, talk: bool) -> bool:
    """Train one with and without the lens; print what differs and the verdict. True if the lens harmed or failed."""
    start = time.monotonic()
    plain = trained(name, None)[1]
    alone = time.monotonic() - start
    by_itself: list[str] = []
    wrong: list[str] = []
    says: list[str] = []
    for lens_name, options in LENSES.items():
        with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            try:
                training, after = trained(name, options, Path(directory))
            except Exception:
                wrong.append(f"{lens_name}: {traceback.format_exc()}")
                continue
            differs = unlike(plain, after)
            if differs and not by_itself:
                by_itself = unlike(plain, trained(name, None)[1])
            report = report_of(Path(directory))
            found = [f"differs in {key}" for key in differs if key not in by_itself] + remedies(training, report)
            model = weakref.ref(training.model)
            del training
            gc.collect()
            wrong += [f"{lens_name}: {what}" for what in (*found, *(["the model is kept alive"] * bool(model())))]
        warned = [str(w.message) for w in raised if "BN Lens" in str(w.message)]
        says += [f"{lens_name}: {sentence}" for sentence in (*warned, *said(report))]
    verdict = "CHANGED" if wrong else "identical"
    print(f"{name}: {verdict} ({alone:.0f} s alone, {time.monotonic() - start:.0f} s in all)")
    for line in (*wrong, *(f"differs without the lens too: {key}" for key in by_itself), *(says if talk else ())):
        print(f"    {line}")
    sys.stdout.flush()
    return bool(wrong)


def said(report: Any) -> Iterator[str]:
    """What a report says that a reader should check."""
    yield f"{report['severity']}: {report['verdict']}"
    yield from (f"note: {note}" for note in report["notes"])
    yield from (f"{what} not evaluated: {why}" for what, why in report["losses"]["not_evaluated"].items())
    for finding in report["findings"]:
        if finding["status"] in ("fail", "error"):
            yield f"{finding['rule']} {finding['severity']}: {finding['summary']}"


def remedies(training: Training, report: Any) -> list[str]:
    """What goes wrong with ``check``, ``recalibrate``, ``set_momentum`` and the printed rescue."""
    wrong = []
    before = state(training)
    data = [batch for _, *batch in (training.step(i) for i in range(3))]
    before = state(training)
    settings = {k: v for k, v in training.options.items() if k in ("loss", "forward", "metrics")}
    forward = {k: v for k, v in settings.items() if k == "forward"}

    def attempt(what: str, work: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = work()
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {error}")
            return None
        if differs := unlike(before, state(training)):
            wrong.append(f"{what} changes {differs}")
        return result

    found = attempt("check", lambda: lens.check(training.model, data, quiet=True, **settings))
    if found is not None:
        wrong += [f"check: {f['summary']}" for f in found.report["findings"] if f["status"] == "error"]

    def again() -> None:
        with lens.recalibrate(training.model, data, **forward):
            if state(training) == before:
                wrong.append("recalibrate changes nothing")

    attempt("recalibrate", again)
    attempt("set_momentum", lambda: lens.set_momentum(training.model, lens.set_momentum(training.model, 0.05)))
    for finding in report["findings"]:
        if finding.get("rescue"):
            try:
                scope = {"model": training.model, "data": data, "loss_fn": settings.get("loss"), **forward}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    exec(compile(finding["rescue"], finding["rule"], "exec"), scope)
            except Exception as error:
                wrong.append(f"rescue of {finding['rule']}: {type(error).__name__}: {error}: {finding['rescue']}")
    return wrong


def main() -> int:
    """Compare the trainings that are named, or all; 1 where the lens changes one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changed = False
    found = [[n for n in TRAININGS if wanted.lower() in n.lower()] for wanted in arguments.names or [""]]
    chosen = dict.fromkeys(n for names in found for n in names)
    for name in chosen:
        try:
            changed |= compared(name, arguments.verbose)
        except ImportError as error:
            print(f"{name}: left out ({error})", flush=True)
    return int(changed)


if __name__ == "__main__":
    raise SystemExit(main())
