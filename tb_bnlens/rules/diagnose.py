"""Run every rule over a history: hand out artifacts, survive crashes, silence, put causes before symptoms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from tb_bnlens.analysis.batches import Batches
from tb_bnlens.analysis.batches import batches as look_at_batches
from tb_bnlens.analysis.lag import LayerTable, table
from tb_bnlens.analysis.loss_gap import Losses, measure
from tb_bnlens.analysis.outlook import Outlook
from tb_bnlens.analysis.outlook import outlook as look_ahead
from tb_bnlens.history import History, Manifest
from tb_bnlens.rules import (
    alternating_domains,
    averaged_weights,
    batch_noise,
    before_after_update,
    collapsed_channels,
    drift,
    dropout_gap,
    frozen_mismatch,
    inference_mode_layer,
    momentum_too_high,
    momentum_too_low,
    never_updated,
    non_finite_statistics,
    overfitting,
    replica_spread,
    set_after_trace,
    short_last_batch,
    train_inference_gap,
    unlike_batches,
    validation_shift,
    warming_up,
)
from tb_bnlens.rules.rule import Finding, Meta, Severity, Status

RULES: tuple[ModuleType, ...] = (
    non_finite_statistics,
    never_updated,
    set_after_trace,
    momentum_too_high,
    warming_up,
    drift,
    frozen_mismatch,
    inference_mode_layer,
    alternating_domains,
    unlike_batches,
    momentum_too_low,
    short_last_batch,
    averaged_weights,
    batch_noise,
    replica_spread,
    validation_shift,
    train_inference_gap,
    overfitting,
    dropout_gap,
    before_after_update,
    collapsed_channels,
)
"""Causes first; among failures of one severity this is the order they are shown in."""


class Artifacts:
    """What rules are judged on, computed once and only when a rule asks."""

    def __init__(self, history: History) -> None:
        self.history = history

    @cached_property
    def manifest(self) -> Manifest:
        """What the recorder says of the run."""
        return self.history.manifest

    @cached_property
    def losses(self) -> Losses:
        """The paired losses on training batches."""
        return measure(self.history, "train")

    @cached_property
    def validation(self) -> Losses:
        """The paired losses on validation data."""
        return measure(self.history, "validation")

    @cached_property
    def layers(self) -> LayerTable:
        """The layers at the end."""
        return table(self.history)

    @cached_property
    def batches(self) -> Batches:
        """Whether the batches are alike."""
        return look_at_batches(self.history, self.layers)

    @cached_property
    def outlook(self) -> Outlook:
        """Steps needed and steps left."""
        return look_ahead(self.manifest, self.losses, self.layers, self.history.last_step)


@dataclass(frozen=True)
class Diagnosis:
    """A rule and what it found."""

    meta: Meta
    finding: Finding
    silenced: bool = False
    """The user silenced the rule for all the layers of the finding."""
    explained_by: str | None = None
    """Id of the failed rule of which this failure is a symptom."""

    @property
    def severity(self) -> Severity:
        """What it counts for in the run's severity: a symptom and a silenced finding count for nothing."""
        if self.silenced or self.explained_by or self.finding.status is not Status.FAIL:
            return Severity.NONE
        return self.finding.severity


def diagnose(
    history: History, rules: Sequence[ModuleType] = RULES, artifacts: Artifacts | None = None
) -> list[Diagnosis]:
    """Run the rules.

    Args:
        history: the run's record.
        rules: modules with ``META`` and ``check``.
        artifacts: to share what was computed already.

    Returns:
        One diagnosis a rule: failures by severity, then symptoms and silenced ones, then errors and the rest.
    """
    artifacts = artifacts or Artifacts(history)
    found = []
    for rule in rules:
        finding = _run(rule.META, rule.check, artifacts)
        finding, silenced = _silence(finding, history.manifest, rule.META.id)
        found.append(Diagnosis(rule.META, finding, silenced))
    return sorted(_causes_first(found), key=_order)


def _run(meta: Meta, check: Callable[..., Finding], artifacts: Artifacts) -> Finding:
    try:
        with np.errstate(all="ignore"):
            arguments: dict[str, Any] = {name: getattr(artifacts, name) for name in meta.requires}
            return check(**arguments)
    except Exception as e:  # one broken rule must not cost the user the report
        return Finding(Status.ERROR, f"The rule itself failed: {type(e).__name__}: {e}. Please report it.")


def _silence(finding: Finding, manifest: Manifest, rule: str) -> tuple[Finding, bool]:
    patterns = manifest.ignore.get(rule, ())
    if not patterns or finding.status is not Status.FAIL:
        return finding, False
    if not finding.layers:
        return finding, "*" in patterns
    kept = tuple(i for i in finding.layers if not _matches(manifest.layers[i].name, patterns))
    if not kept:
        return finding, True
    left_out = len(finding.layers) - len(kept)
    if not left_out:
        return finding, False
    summary = f"{finding.summary} ({left_out} of its layers are silenced by ignore.)"
    return replace(finding, layers=kept, summary=summary), False


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _causes_first(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Mark failures that a failed rule explains; a note explains an error only where its rule excuses it."""
    failed = [d for d in found if d.finding.status is Status.FAIL]
    cause: dict[str, Diagnosis] = {}
    for d in sorted(failed, key=lambda d: d.finding.severity.rank):
        for symptom in d.meta.explains:
            cause.setdefault(symptom, d)

    def explained(d: Diagnosis) -> bool:
        by = cause.get(d.meta.id)
        return by is not None and (by.meta.excuses or by.finding.severity.rank <= d.finding.severity.rank)

    return [replace(d, explained_by=cause[d.meta.id].meta.id) if d in failed and explained(d) else d for d in found]


def _order(d: Diagnosis) -> tuple[int, int]:
    if d.finding.status is Status.FAIL:
        return (0 if not (d.explained_by or d.silenced) else 1, d.finding.severity.rank)
    return (2 + [Status.ERROR, Status.NOT_EVALUATED, Status.NOT_APPLICABLE, Status.PASS].index(d.finding.status), 0)
