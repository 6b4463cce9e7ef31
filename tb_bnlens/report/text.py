"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tb_bnlens.analysis.lag import SPARSE, TOO_FAR_APART
from tb_bnlens.analysis.loss_gap import ERROR_HARM, NOTE_HARM, WARNING_HARM
from tb_bnlens.diagnosis.words.phrases import ON_NEW_BATCHES, STANDARD, count, signed
from tb_bnlens.metadata import HOW_TO_RECORD
from tb_bnlens.numbers import as_set, number
from tb_bnlens.report.compare import layer_name, momentum_as_set, rows
from tb_bnlens.report.shown import MODES, counts, farthest, loss_of, measured_modes
from tb_bnlens.report.style import Style, all_printable, columns, padded, shortened

PLAIN = Style()
WORST_LAYERS = 8
NEW_BATCHES = "new batches"
"""Column of the loss that inference is held against where the batches of training are known by heart."""
HARM = f"a warning from {WARNING_HARM:g}, an error from {ERROR_HARM:g}"
"""What severity makes of a harm."""
TALLY = {
    "pass": "passed",
    "another_cause": "explained by another cause",
    "not_applicable": "do not apply",
    "not_evaluated": "not evaluated",
}


def render(report: Mapping[str, Any], style: Style = PLAIN) -> str:
    """Text of ``report.build_report``'s answer, every run in full."""
    if not report["runs"]:
        return f"No run with a BN Lens record; {HOW_TO_RECORD}.\n"
    return "\n".join(render_run(run, style) for run in report["runs"])


def render_run(run: Mapping[str, Any], style: Style = PLAIN) -> str:
    """Text of one run: verdict, losses, findings, the layers that are farthest off."""
    run = all_printable(run)
    title = f"{run['run']}  ({_when(run)}, {count(len(run['layers']), 'BatchNorm layer')})"
    lines = [*style.title(title), *_verdict(run, style), ""]
    lines += _losses(run, style)
    shown = [f for f in run["findings"] if counts(f)]
    for finding in shown:
        lines += ["", *_finding(finding, style)]
    lines += ["", *_tally(run["findings"], style)]
    lines += _layers(run, style)
    for note in run["notes"]:
        lines += style.wrap("Note: ", note)
    return "\n".join(lines).rstrip() + "\n"


def render_verdict(run: Mapping[str, Any], style: Style = PLAIN) -> str:
    """Text of the verdict alone, and of the code for the most severe cause that has some."""
    run = all_printable(run)
    lines = [*_verdict(run, style), *_losses(run, style)]
    for finding in [f for f in run["findings"] if counts(f) and (f["rescue"] or f["fix"])][:1]:
        lines += _code(finding, "  ")
    return "\n".join(lines) + "\n"


def _when(run: Mapping[str, Any]) -> str:
    if run["checked"]:
        made = f" at step {run['last_step']:,}" if run["last_step"] else ""
        return f"check{made}"
    step = "no step yet" if run["last_step"] is None else f"step {run['last_step']:,}"
    return f"{step} of {run['planned_steps']:,}" if run["planned_steps"] else step


def _verdict(run: Mapping[str, Any], style: Style) -> list[str]:
    lines = style.marked(run["severity"], run["headline"])
    return lines + [line for reason in run["reasons"] for line in style.wrap("  ", reason)]


def _losses(run: Mapping[str, Any], style: Style) -> list[str]:
    losses = run["losses"]
    if losses["step"] is None or all(losses[name] is None for name in MODES):
        why = " ".join(dict.fromkeys(losses["not_evaluated"].values()))
        return style.wrap("  losses not evaluated: ", why) if why else []
    lines = _table(losses, style)
    if losses["batches"] is not None:
        lines.append(f"  means over {count(losses['batches'], 'batch', 'batches')} at step {losses['step']:,}")
    states = {layer["state"] for layer in run["layers"]}
    frozen = "frozen" in states
    constant = "frozen" if frozen else "constant" if "inference_mode" in states else ""
    if frozen and losses["recalibrated"] is not None:
        lines.append("  recalibrated: frozen layers keep their statistics")
    lines += _parts(losses, run["framework"], constant, style)
    lines += _harm(losses, run["severity"], style)
    validation = losses.get("validation")
    if validation:
        over = validation["batches"]
        means = "one batch" if over is None else f"means over {count(over, 'batch', 'batches')}"
        lines += [f"  validation data, {means} at step {validation['step']:,}", *_table(validation, style)]
    return lines


def _table(losses: Mapping[str, Any], style: Style) -> list[str]:
    """The losses and metrics of one set of batches in each mode that was measured."""
    shown = {}
    for name in measured_modes(losses):
        shown[name] = "not finite" if name in losses["overflowed"] else number(loss_of(losses, name))
        if name == "batch" and losses.get("rival") == ON_NEW_BATCHES and losses["rival_loss"] is not None:
            shown[NEW_BATCHES] = number(losses["rival_loss"])
    metrics = {
        m: ["" if name == NEW_BATCHES else number(by.get(name)) for name in shown]
        for m, by in losses["metrics"].items()
    }
    lines = _side_by_side(shown, metrics)
    return lines if max(map(columns, lines)) <= style.width else _one_below_another(shown, metrics, style)


def _side_by_side(shown: Mapping[str, str], metrics: Mapping[str, Sequence[str]]) -> list[str]:
    rows = [(list(shown), ""), (list(shown.values()), ""), *((values, f"  {name}") for name, values in metrics.items())]
    return ["  ".join(f"{value:>12}" for value in values) + name for values, name in rows]


def _one_below_another(shown: Mapping[str, str], metrics: Mapping[str, Sequence[str]], style: Style) -> list[str]:
    lines = []
    for i, (name, loss) in enumerate(shown.items()):
        lines += style.wrap(
            f"{name:>14}  ", ", ".join([loss, *(f"{m} {values[i]}" for m, values in metrics.items() if values[i])])
        )
    return lines


def _parts(losses: Mapping[str, Any], framework: str, constant: str, style: Style) -> list[str]:
    """The parts of the gap, and inference replayed with another momentum."""
    lines = []
    # A layer whose statistics are constant uses them in training and after a recalibration too.
    too = f" and {constant} layers" if constant else ""
    labels = {"dropout": f"training-only layers{too}", "noise": f"batch noise{too}", "stale": "stale statistics"}
    if constant and losses["recalibrated"] is None:
        labels["noise"] = f"{constant} layers"
        if number(losses["training"]) == number(losses["inference"]):
            labels.pop("dropout")  # on the same statistics: nothing else makes training differ from inference
    parts = [f"{label} {signed(losses[part])}" for part, label in labels.items() if losses[part]]
    if parts:
        lines += style.wrap("  parts: ", ", ".join(parts))
    if losses["replayed"]:
        replays = (f"{as_set(r['momentum'], framework):g}: {number(r['loss'])}" for r in losses["replayed"])
        lines += style.wrap("  inference, replayed with momentum ", ", ".join(replays))
    return lines


def _harm(losses: Mapping[str, Any], severity: str, style: Style) -> list[str]:
    """The figure that the severity goes by, beside the steps of severity where it comes near them."""
    harm = losses["harm"]
    if harm is None:
        return []
    against = "" if losses["rival_loss"] is None else f" ({number(losses['rival_loss'])})"
    said = f"{number(harm)} against {losses['rival']}{against}"
    few = losses["batches"] is None and harm >= ERROR_HARM and severity != "error"
    if harm >= NOTE_HARM:
        steps = "a warning at most, from so few batches" if few else HARM
        said += f": {steps if losses['harm_is_sure'] else 'may be chance'}"
    return style.wrap("  harm: ", said)


def _finding(finding: Mapping[str, Any], style: Style) -> list[str]:
    where = f" · {count(len(finding['layers']))}" if finding["layers"] else ""
    since = f" · since step {finding['first_step']:,}" if finding["first_step"] is not None else ""
    lines = style.marked(finding["severity"], f"{finding['title']} [{finding['rule']}]{where}{since}")
    lines += style.wrap("    ", finding["summary"])
    for e in finding["evidence"].values():
        limit = "" if e["limit"] is None else f"  ({e['against']} {_value(e['limit'])})"
        lines += style.wrap("    evidence   ", f"{e['label']}: {_value(e['value'])} {e['unit']}".rstrip() + limit)
    for rival in finding["ruled_out"]:
        lines += style.wrap("    ruled out  ", f"{rival['cause']}: {rival['reason']}")
    lines += _code(finding, "    ")
    if finding["next"]:
        lines += style.wrap("    expect     ", finding["next"])
    return lines


def _code(finding: Mapping[str, Any], indent: str) -> list[str]:
    """What repairs this model, and what to change in the next training."""
    lines = []
    for name, label in (("rescue", "rescue this model"), ("fix", "next training" if finding["rescue"] else "fix")):
        if finding[name]:
            code = finding[name].rstrip().split("\n")
            lines += [f"{indent}{label}", *(f"{indent}    {line}".rstrip() for line in code)]
    return lines


def _value(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


def _tally(findings: Iterable[Mapping[str, Any]], style: Style) -> list[str]:
    findings = list(findings)
    lines = []
    for f in findings:
        if f["status"] == "another_cause":
            lines += style.wrap("  ", f"{f['title']}: explained by {f['explained_by']}.")
    silenced = [f"{f['title']} [{f['rule']}]" for f in findings if f["silenced"]]
    if silenced:
        lines += style.wrap("  silenced by ignore: ", ", ".join(silenced))
    for f in findings:
        if f["status"] == "error":
            lines += style.wrap(f"  {f['rule']}: ", f["summary"])
    tally = {status: sum(f["status"] == status for f in findings) for status in TALLY}
    return [*lines, *style.wrap("  causes: ", ", ".join(f"{n} {TALLY[s]}" for s, n in tally.items() if n))]


def _layers(run: Mapping[str, Any], style: Style) -> list[str]:
    known = farthest(run["layers"], WORST_LAYERS)
    if not known:
        return []
    heading = "layer"
    room = max(len(heading), style.width - len("    momentum  distance  updates to converge"))
    names = [shortened(x["name"], room) for x in known]
    width = max(len(heading), *map(columns, names))
    over, step = run["losses"]["batches"], run["losses"]["step"]
    of = f"{count(over, 'batch', 'batches')} at step {step:,}" if over is not None else "the last record"
    lines = ["", *style.wrap("  ", f"Farthest layers; distance in {STANDARD}, of {of}:")]
    lines.append(f"  {heading:<{width}}  momentum  distance  updates to converge")
    for x, name in zip(known, names, strict=True):
        steps = x["steps_to_converge"]
        words = x["steps_reason"] if steps is None or steps == "never" else f"{steps:,}"
        momentum = as_set(x["momentum"], run["framework"])
        lines += style.wrap(f"  {padded(name, width)}  {momentum:>8g}  {number(x['distance']):>8}  ", words)
    if any(x["steps_reason"] == TOO_FAR_APART for x in known):
        lines += style.wrap("  ", f"Records too far apart: {SPARSE}, so what it follows is not seen.")
    return [*lines, ""]


def render_comparison(difference: Mapping[str, Any], style: Style = PLAIN) -> str:
    """Text of ``compare.compare``'s answer."""
    difference = all_printable(difference)
    a, b = difference["runs"]
    lines = style.title(f"{a}  ->  {b}")
    lines.append(f"  severity: {difference['severity'][0]} -> {difference['severity'][1]}")
    for name, x, y in rows(difference):
        lines += style.wrap("  ", f"{name}: {x} -> {y}")
    for word, rules in difference["findings"].items():
        if rules:
            lines += style.wrap(f"  findings {word}: ", ", ".join(rules))
    lines += _changed_layers(difference, style)
    for run, names in zip((a, b), difference["only"], strict=True):
        if names:
            lines += style.wrap(f"  only in {run}: ", ", ".join(names))
    return "\n".join(lines) + "\n"


def _changed_layers(difference: Mapping[str, Any], style: Style) -> list[str]:
    lines = []
    if difference["layers"]:
        lines.append(f"  {count(len(difference['layers']))} with another momentum or state, for instance:")
    for x in difference["layers"][:WORST_LAYERS]:
        d = " -> ".join(map(number, x["distance"]))
        momentum = _change(momentum_as_set(x["momentum"], difference))
        change = f"momentum {momentum}, {_change(x['state'])}, distance {d}"
        lines += style.wrap(f"    {layer_name(x)}: ", change)
    if difference["distances"]:
        lines.append("  layers whose distance differs most:")
    for x in difference["distances"][:WORST_LAYERS]:
        lines += style.wrap(f"    {layer_name(x)}: ", " -> ".join(map(number, x["distance"])))
    return lines


def _change(pair: list[object]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} -> {pair[1]}"
