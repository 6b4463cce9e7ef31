"""What each group of layers costs: it alone is put right, then all others are."""

from __future__ import annotations

from tb_bnlens.capture.bench import Bench, Present
from tb_bnlens.moments.moments import Mask, Moments


def put_right(bench: Bench, present: Present, groups: dict[str, Mask]) -> None:
    """Each group's share: put right alone at inference, and alone left wrong in batch mode.

    Args:
        bench: makes the passes.
        present: the statistics that are right.
        groups: group of ``metadata.GROUPS`` -> its channels, [C_total].
    """
    moving, broken = bench.subject.moving, bench.subject.nonfinite()
    base = present.best().where(broken, moving)
    if broken.any():
        _with(bench, present, "put_right:nonfinite", broken, moving)
    made: dict[bytes, str] = {}
    for name, mask in groups.items():
        if name == "nonfinite":
            continue
        if mask.all() and _is_one_group(bench):
            bench.passes.same_as(f"put_right:{name}", "recalibrated")
            bench.passes.same_as(f"only:{name}", "inference")
            continue
        same = made.setdefault(mask.tobytes(), name)
        if same != name:
            bench.passes.same_as(f"put_right:{name}", f"put_right:{same}")
            bench.passes.same_as(f"only:{name}", f"only:{same}")
            continue
        _with(bench, present, f"put_right:{name}", mask, base)
        bench.run(f"only:{name}", bench.by_batch(mask, base))


def _with(bench: Bench, present: Present, name: str, mask: Mask, base: Moments) -> None:
    bench.run(name, bench.on_each(lambda index: present.best(index).where(mask, base).or_else(base)))


def _is_one_group(bench: Bench) -> bool:
    """Whether putting all channels right is recalibration, and leaving all of them wrong is inference."""
    wired = any(bench.runner.at_inference.values())
    return bool(bench.subject.trained.all()) and not bench.subject.nonfinite().any() and not wired
