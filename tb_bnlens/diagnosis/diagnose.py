"""Decisions and their words: what the report shows of every cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.cause import Cause
from tb_bnlens.diagnosis.causes import CAUSES
from tb_bnlens.diagnosis.decide import Decision, Status, decide
from tb_bnlens.diagnosis.severity import Severity
from tb_bnlens.diagnosis.words import WORDS, code
from tb_bnlens.diagnosis.words.phrases import count
from tb_bnlens.diagnosis.words.words import Said, Words, as_running
from tb_bnlens.history import Manifest

ORDER = (Status.FAIL, Status.ANOTHER_CAUSE, Status.ERROR, Status.NOT_EVALUATED, Status.NOT_APPLICABLE, Status.PASS)
"""In which findings are listed."""

OVER_TIME = "A check looks at one moment: what shows over time needs a record of the training."


@dataclass(frozen=True)
class Diagnosis:
    """One cause in one run: the decision and its words."""

    decision: Decision
    words: Words
    said: Said
    silenced: bool = False
    """The user silenced it for all its layers."""
    ruled_out: tuple[tuple[str, str], ...] = ()
    """Names of look-alikes, and the measured number that rules each out."""

    @property
    def id(self) -> str:
        """Id of the cause."""
        return self.decision.cause.id

    @property
    def status(self) -> Status:
        """What became of it."""
        return self.decision.status

    @property
    def counts(self) -> bool:
        """Whether it is named and not silenced."""
        return self.decision.failed and not self.silenced

    @property
    def severity(self) -> Severity:
        """What it adds to the severity of the run."""
        return self.decision.severity if self.counts else Severity.NONE


def diagnose(facts: Facts, causes: Sequence[Cause] = CAUSES, words: Mapping[str, Words] = WORDS) -> list[Diagnosis]:
    """Decide every cause of the table and say what was found.

    Args:
        facts: of the run.
        causes: the table.
        words: id of a cause -> its words, for every cause of the table.

    Returns:
        One diagnosis a cause: failures by severity, then silenced ones, then the other statuses.
    """
    decisions = decide(causes, facts)
    words = {name: own.of(facts.manifest.framework) for name, own in words.items()}
    found = []
    for cause in causes:
        decision, silenced = _silence(decisions[cause.id], facts.manifest)
        with np.errstate(all="ignore"):
            said = _translated(_say(decision, decisions[cause.id], facts, words), facts, decision.layers)
            rivals = _ruled_out(decision, decisions, facts, words)
        found.append(Diagnosis(decision, words[cause.id], said, silenced, rivals))
    return sorted(found, key=_order)


def _order(d: Diagnosis) -> tuple[int, bool, int]:
    return ORDER.index(d.status), d.silenced, -d.decision.severity


def _silence(d: Decision, manifest: Manifest) -> tuple[Decision, bool]:
    """Without the layers that the user silenced, and whether none is left."""
    patterns = manifest.ignore.get(d.cause.id, ())
    if not patterns or not d.failed:
        return d, False
    if not d.layers:
        return d, "*" in patterns
    kept = tuple(i for i in d.layers if not any(fnmatchcase(manifest.layers[i].name, p) for p in patterns))
    return (replace(d, layers=kept), False) if kept else (d, True)


def _say(d: Decision, whole: Decision, facts: Facts, words: Mapping[str, Words]) -> Said:
    own = words[d.cause.id]
    if d.status is Status.ERROR:
        return Said(f"BN Lens could not judge this: {d.problem}. Please report it.")
    if d.status is Status.NOT_APPLICABLE:
        return Said(own.absent)
    try:
        if d.status is Status.NOT_EVALUATED:
            over_time = f" {OVER_TIME}" if facts.checked else ""
            return Said(own.unknown(facts) + over_time)
        if d.status is Status.PASS:
            return Said(own.passed(facts, d))
        if d.status is Status.ANOTHER_CAUSE:
            seen = f"Seen in {count(len(d.layers))}. " if d.layers else ""
            return Said(f"{seen}The cause behind it: {words[d.to or d.cause.id].name}.")
        said = own.failed(facts, whole)
    except Exception as e:  # what was decided stands, whatever its words do
        failure = f"{type(e).__name__}: {e}"
        return Said(f"{own.failure_title}. BN Lens could not write the details: {failure}. Please report it.")
    notes = []
    if d.cause.estimate and not facts.evaluated:
        notes.append("The losses were not evaluated, so the severity is an estimate from the distance.")
    if len(d.layers) < len(whole.layers):
        notes.append(f"({len(whole.layers) - len(d.layers)} of its layers are silenced by ignore.)")
    return replace(said, summary=" ".join([said.summary, *notes]), reason=said.reason or said.summary)


def _translated(said: Said, facts: Facts, layers: Sequence[int] = ()) -> Said:
    """In the nouns and the remedies of the framework that wrote the record, for the layers that are named."""
    rescue, fix = (
        code.of_framework(code.reaching(facts, layers, text), facts.manifest) for text in (said.rescue, said.fix)
    )
    said = replace(said, rescue=rescue, fix=fix)
    if facts.in_keras:
        return said
    return replace(
        said,
        summary=as_running(said.summary),
        reason=as_running(said.reason),
        next=as_running(said.next),
        evidence={name: replace(e, label=as_running(e.label)) for name, e in said.evidence.items()},
    )


def _ruled_out(
    d: Decision, decisions: Mapping[str, Decision], facts: Facts, words: Mapping[str, Words]
) -> tuple[tuple[str, str], ...]:
    """Rivals that were judged and do not show, each with its own measured number."""
    if not d.failed:
        return ()
    rivals = [decisions[name] for name in d.cause.rivals if name in decisions]
    return tuple(
        (words[r.cause.id].name, _translated(_say(r, r, facts, words), facts).summary)
        for r in rivals
        if r.status in (Status.PASS, Status.NOT_APPLICABLE)
    )
