"""Many runs as text: a line each, the worst first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tb_bnlens.diagnosis.words.phrases import count
from tb_bnlens.numbers import number
from tb_bnlens.report.schema import Failure, Overview, RunSummary
from tb_bnlens.report.style import Style, columns, padded, printable, shortened
from tb_bnlens.report.summary import summarize

WORDS = {
    "error": "with an error",
    "warning": "with a warning",
    "info": "with a note",
    "silenced": "silenced",
    "not evaluated": "not evaluated",
    "none": "without a finding",
}
"""What a run's sign means in the heading, the worst first."""
OPEN = "?"
"""Mark of a run that cannot be judged."""
SHOWN_FROM = {"harm": 60, "inference": 0, "batch stat.": 72, "step": 90}
"""Columns of numbers, and the width of a terminal from which on each is shown."""
LEAST_CAUSE = 16
GAP = "  "


def render_table(runs: Sequence[Overview], failures: Sequence[Failure], style: Style) -> str:
    """A heading that counts the runs, a line for each, and one for each that could not be judged."""
    rows = ranked(runs)
    shown = [name for name, width in SHOWN_FROM.items() if style.width >= width]
    header = ["run", *shown, "cause"]
    cells = [_cells(name, row, shown) for name, row in rows]
    middle = [max(columns(line[i]) for line in [header, *cells]) for i in range(1, len(header) - 1)]
    # What is left is shared by the names and the causes.
    room = style.width - len("X ") - sum(middle) - len(GAP) * (len(header) - 1)
    names = max(len("run"), min(max((columns(line[0]) for line in cells), default=0), room // 2))
    widths = [names, *middle, max(LEAST_CAUSE, room - names)]
    lines = [tally([row for _, row in rows], len(failures)), ""]
    lines.append(f"  {_line(header, widths)}".rstrip())
    for (_, row), line in zip(rows, cells, strict=True):
        sign = sign_of(row)
        mark = OPEN if sign in ("silenced", "not evaluated") else style.mark(sign)
        lines.append(f"{mark} {_line(line, widths)}".rstrip())
    for failed in failures:
        lines += style.wrap(f"{OPEN} ", printable(f"{failed['run']}: {failed['reason']}"))
    return "\n".join(lines) + "\n"


def worst(runs: Sequence[Overview]) -> str | None:
    """Name of the run that stands first in the table."""
    return ranked(runs)[0][0] if runs else None


def ranked(runs: Sequence[Overview]) -> list[tuple[str, RunSummary]]:
    """(name, summary) of each run, the worst first."""
    return sorted(((run["run"], summarize(run)) for run in runs), key=_worst_first)


def _worst_first(named: tuple[str, RunSummary]) -> tuple[int, float, str]:
    """As the tab sorts its table: by severity, then by harm, then by name."""
    name, row = named
    # Inference without a finite loss, where batch statistics have one: no harm is greater.
    beyond = row["inference"] is None and row["batch"] is not None
    return list(WORDS).index(sign_of(row)), -(math.inf if beyond else row["harm"] or 0.0), name


def _cells(name: str, row: RunSummary, shown: Sequence[str]) -> list[str]:
    numbers = {
        "harm": harm_of(row),
        "inference": number(row["inference"]),
        "batch stat.": number(row["batch"]),
        "step": "" if row["last_step"] is None else f"{row['last_step']:,}",
    }
    return [" ".join(printable(name).split("\n")), *(numbers[column] for column in shown), cause_of(row)]


def harm_of(row: RunSummary) -> str:
    """What inference loses, in the unit that severity goes by; in brackets where it is within chance."""
    return f"({number(row['harm'])})" if row["harm"] and not row["harm_is_sure"] else number(row["harm"])


def cause_of(row: RunSummary) -> str:
    """The worst cause and how many more there are, or why there is none."""
    if row["cause"]:
        return f"{row['cause']} (+{row['causes'] - 1})" if row["causes"] > 1 else row["cause"]
    if row["silenced"]:
        return f"{count(row['silenced'], 'finding')} silenced"
    return "" if row["inference"] is not None else "losses not evaluated"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers, cause = cells
    parts = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:-1], strict=True)]
    return GAP.join([padded(shortened(name, widths[0]), widths[0]), *parts, _cut(cause, widths[-1])])


def _cut(text: str, width: int) -> str:
    # Unlike a path, a sentence says most at its beginning.
    return text if columns(text) <= width else f"{text[: width - 3]}..."


def sign_of(row: RunSummary) -> str:
    """The severity, or what keeps a run without one from being healthy."""
    if row["severity"] != "none":
        return row["severity"]
    if row["silenced"]:
        return "silenced"
    return "not evaluated" if None in (row["inference"], row["batch"]) else "none"


def tally(rows: Sequence[RunSummary], failed: int) -> str:
    """How many runs there are of each sign."""
    counted = Counter(map(sign_of, rows))
    parts = [f"{counted[sign]:,} {words}" for sign, words in WORDS.items() if counted[sign]]
    if failed:
        parts.append(f"{failed:,} could not be judged")
    return f"{count(len(rows) + failed, 'run')}: {', '.join(parts)}"
