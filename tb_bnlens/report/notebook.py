"""The report of one run as a fragment of HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from tb_bnlens.numbers import number
from tb_bnlens.report.shown import MODES, counts, loss_of, measured_modes
from tb_bnlens.report.style import MARKS

COLOURS = {"error": "#d93025", "warning": "#e37400", "info": "#1a73e8", "none": "#188038"}
"""Of the mark and the bar; all of them have a contrast of 3 or more on white and on #202124."""
FINDINGS = 3
"""Findings that are shown at most; the text has all of them."""


def as_html(run: Mapping[str, Any]) -> str:
    """The verdict, the losses and metrics in both modes, and the code of the first findings; all text is escaped.

    Colours of text and background are inherited, so that it can be read on light and on dark pages.

    Args:
        run: the report of one run, ``report.schema.Overview``.
    """
    severity = run["severity"]
    colour = COLOURS[severity]
    parts = [
        f'<div style="border-left:4px solid {colour};padding:4px 12px;max-width:60em;font-family:sans-serif">',
        f'<div><b style="color:{colour}">{escape(MARKS[severity])}</b> <b>{escape(run["headline"])}</b></div>',
        *(f"<div>{escape(reason)}</div>" for reason in run["reasons"]),
        *_losses(run["losses"]),
    ]
    validation = run["losses"].get("validation")
    if validation:
        parts += ["<div>Validation data:</div>", *_losses(validation)]
    shown = [f for f in run["findings"] if counts(f)]
    for finding in shown[:FINDINGS]:
        parts += _finding(finding)
    if len(shown) > FINDINGS:
        parts.append(f"<div>And {len(shown) - FINDINGS} more: print this object to see all.</div>")
    return "\n".join([*parts, "</div>"])


def _losses(losses: Mapping[str, Any]) -> Iterable[str]:
    shown = measured_modes(losses)
    if not shown:
        return
    rows = {"loss": [_value(loss_of(losses, k)) if k not in losses["overflowed"] else "not finite" for k in shown]}
    for name, values in losses.get("metrics", {}).items():
        rows[name] = [_value(values.get(k)) for k in shown]
    style = ' style="text-align:right;padding:2px 8px"'
    yield "<table><tr><th></th>" + "".join(f"<th{style}>{MODES[k]}</th>" for k in shown) + "</tr>"
    for name, cells in rows.items():
        yield f"<tr><th{style}>{escape(name)}</th>" + "".join(f"<td{style}>{escape(c)}</td>" for c in cells) + "</tr>"
    yield "</table>"


def _value(value: float | None) -> str:
    return "-" if value is None else number(value)


def _finding(finding: Mapping[str, Any]) -> Iterable[str]:
    for part, label in (("rescue", "Rescue this model"), ("fix", "Next training")):
        if finding[part]:
            yield f"<div>{label} ({escape(finding['title'])}):</div>"
            yield f'<pre style="margin:2px 0 8px;overflow-x:auto">{escape(finding[part].rstrip())}</pre>'
