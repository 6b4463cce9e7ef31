"""The report as Markdown, for a comment on an issue or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tb_bnlens.diagnosis.words.phrases import count
from tb_bnlens.numbers import as_set, number
from tb_bnlens.report.compare import layer_name, rows
from tb_bnlens.report.runs_table import cause_of, harm_of, ranked, sign_of, tally
from tb_bnlens.report.schema import Failure, Overview
from tb_bnlens.report.shown import MODES, counts, farthest, loss_of, measured_modes

# GitHub's names of its emoji: a console may not be able to print the characters.
SIGNS = {"error": ":x:", "warning": ":warning:", "info": ":information_source:", "none": ":white_check_mark:"}
UNKNOWN = ":grey_question:"
WORST_LAYERS = 10


def render(report: Mapping[str, Any]) -> str:
    """Markdown of ``report.build_report``'s answer: a section for each run, the evidence folded."""
    if not report["runs"]:
        return "No run with a BN Lens record.\n"
    return "\n".join("\n".join(_run(run)) for run in report["runs"])


def render_table(runs: Sequence[Overview], failures: Sequence[Failure]) -> str:
    """Markdown of many runs: a heading that counts them and a row for each, the worst first."""
    rows = ranked(runs)
    lines = [f"### {tally([row for _, row in rows], len(failures))}\n"]
    lines += [
        _line("", "run", "harm", "inference", "batch statistics", "step", "cause"),
        _line("---", "---", "--:", "--:", "--:", "--:", "---"),
    ]
    for name, row in rows:
        step = "" if row["last_step"] is None else f"{row['last_step']:,}"
        losses = (harm_of(row), number(row["inference"]), number(row["batch"]))
        lines.append(_line(SIGNS.get(sign_of(row), UNKNOWN), _cell(name), *losses, step, _cell(cause_of(row))))
    lines += [_line(UNKNOWN, _cell(f["run"]), "", "", "", "", _cell(f["reason"])) for f in failures]
    return "\n".join(lines) + "\n"


def render_comparison(difference: Mapping[str, Any]) -> str:
    """Markdown of ``compare.compare``'s answer: what changed from the first run to the second."""
    return "\n".join(_comparison(difference))


def _comparison(difference: Mapping[str, Any]) -> Iterator[str]:
    runs = [_text(run) for run in difference["runs"]]
    signs = [SIGNS[severity] for severity in difference["severity"]]
    yield f"### {signs[0]} {runs[0]} -> {signs[1]} {runs[1]}\n"
    yield _line("", *(_cell(run) for run in difference["runs"]))
    yield _line("---", "--:", "--:")
    for row in rows(difference):
        yield _line(*map(_cell, row))
    yield ""
    for word, rules in difference["findings"].items():
        if rules:
            yield f"Findings {word}: {', '.join(f'`{rule}`' for rule in rules)}.\n"
    yield from _changed_layers(difference)
    for run, names in zip(runs, difference["only"], strict=True):
        if names:
            yield f"Layers only in {run}: {', '.join(map(_text, names))}.\n"


def _changed_layers(difference: Mapping[str, Any]) -> Iterator[str]:
    layers = difference["distances"][:WORST_LAYERS]
    if not layers:
        return
    yield f"<details><summary>Layers: the {len(layers)} whose distance differs most</summary>\n"
    yield _line("layer", *(f"distance (sd), {_cell(run)}" for run in difference["runs"]))
    yield _line("---", "--:", "--:")
    for layer in layers:
        yield _line(_cell(layer_name(layer)), *map(number, layer["distance"]))
    yield "\n</details>\n"


def _run(run: Mapping[str, Any]) -> Iterator[str]:
    losses = run["losses"]
    measured = losses["inference"] is not None and losses["batch"] is not None
    sign = SIGNS[run["severity"]] if measured or run["severity"] != "none" else UNKNOWN
    yield f"### {sign} {_text(run['run'])}\n"
    yield f"**{_text(run['headline'])}**{''.join(f' {_text(reason)}' for reason in run['reasons'])}\n"
    yield f"{_how_far(run)}\n"
    yield from _losses(losses, "Training data")
    if losses.get("validation"):
        yield from _losses(losses["validation"], "Validation data")
    for finding in run["findings"]:
        if counts(finding):
            yield from _finding(finding)
    yield from _layers(run["layers"], run["framework"])
    for note in run["notes"]:
        yield f"Note: {_text(note)}\n"


def _how_far(run: Mapping[str, Any]) -> str:
    step = "no step yet" if run["last_step"] is None else f"step {run['last_step']:,}"
    planned = f" of {run['planned_steps']:,}" if run["planned_steps"] else ""
    to_the_end = "ended as planned" if planned else "ended"
    ended = {"planned": to_the_end, "early": "stopped early", "interrupted": "interrupted"}
    if run["imported"]:
        end = "made from checkpoints"
    elif run["checked"]:
        end = "a check of the model"
    else:
        end = ended.get(run["ended"], "no end recorded")
    return f"{count(len(run['layers']), 'BatchNorm layer')}, {step}{planned}, {end}."


def _losses(losses: Mapping[str, Any], data: str) -> Iterator[str]:
    modes = measured_modes(losses)
    if losses["step"] is None or not modes:
        return
    over = "one batch at the last probe" if losses["batches"] is None else f"{losses['batches']} batches"
    yield f"{data}: {over}, step {losses['step']:,}.\n"
    yield _line("", *(MODES[mode] for mode in modes))
    yield _line("---", *("--:" for _ in modes))
    yield _line("loss", *("not finite" if m in losses["overflowed"] else number(loss_of(losses, m)) for m in modes))
    for name, values in losses["metrics"].items():
        yield _line(_cell(name), *(number(values[m]) if values.get(m) is not None else "" for m in modes))
    yield ""


def _finding(finding: Mapping[str, Any]) -> Iterator[str]:
    yield f"#### {SIGNS[finding['severity']]} {_text(finding['title'])} (`{finding['rule']}`)\n"
    yield f"{_text(finding['summary'])}\n"
    promise = "" if finding["rescue_loss"] is None else f" (inference loss {number(finding['rescue_loss'])}, measured)"
    for name, label in (("rescue", f"Rescue this model{promise}"), ("fix", "Next training")):
        if finding[name]:
            yield f"{label}:\n"
            yield from _code(finding[name])
    if finding["evidence"]:
        yield "<details><summary>Evidence</summary>\n"
        yield _line("measured", "value", "compared with")
        yield _line("---", "--:", "--:")
        for e in finding["evidence"].values():
            limit = "" if e["limit"] is None else f"{_cell(e['against'])} {_value(e['limit'])}"
            yield _line(_cell(e["label"]), f"{_value(e['value'])} {_cell(e['unit'])}".rstrip(), limit)
        yield "\n</details>\n"


def _layers(layers: list[Mapping[str, Any]], framework: str) -> Iterator[str]:
    known = farthest(layers, WORST_LAYERS)
    if not known:
        return
    yield f"<details><summary>Layers: the {len(known)} of {len(layers)} farthest off</summary>\n"
    yield _line("layer", "momentum", "distance (sd)", "updates to converge")
    yield _line("---", "--:", "--:", "--:")
    for x in known:
        steps = x["steps_to_converge"]
        shown = "" if steps is None else steps if steps == "never" else f"{steps:,}"
        yield _line(_cell(x["name"]), f"{as_set(x['momentum'], framework):g}", number(x["distance"]), shown)
    yield "\n</details>\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> Iterator[str]:
    # A fence longer than any in the text.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield f"{fence}python\n{text.rstrip()}\n{fence}\n"


def _value(value: float | str | None) -> str:
    return _cell(value) if isinstance(value, str) else number(value)


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """Names come from a record: neither markup nor a mention of somebody."""
    escaped = re.sub(r"([\\`*_\[\]<>#~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("@", "@<!-- -->")
