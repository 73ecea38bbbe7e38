"""What the gate found, as text for the terminal, as Markdown, and as JUnit XML."""

import re
from pathlib import Path
from xml.etree import ElementTree

from bench.gate.changes import Change, Comparison
from bench.reports.formats import Table, TableCell, points, write
from bench.results.conditions import heading
from bench.results.metrics import METRICS
from bench.results.run_facts import NOT_STATED
from bench.system.files import write_atomically


def text(comparison: Comparison) -> str:
    """What moved, what to mind, and one line with the verdict."""
    return f"{moved(comparison)}\n\n{comparison.summary}"


def moved(comparison: Comparison) -> str:
    """As text, without the verdict."""
    parts = [write(_tables(comparison), "plain") or "nothing moved", "\n".join([*comparison.notes, _versions(comparison)])]
    return "\n\n".join(filter(None, parts))


def _versions(comparison: Comparison) -> str:
    """One line: the versions of the baseline and of these results side by side."""
    if all(then == NOT_STATED for _, then, _ in comparison.versions):
        now = ", ".join(f"{name} {found}" for name, _, found in comparison.versions if found != NOT_STATED)
        return f"versions: not stated by the baseline; now {now or NOT_STATED}"
    said = [f"{name} {then}" if then == now else f"{name} {then} -> {now}" for name, then, now in comparison.versions]
    return f"versions, baseline -> now: {', '.join(said)}"


def markdown(comparison: Comparison) -> str:
    """The same for a pull request."""
    tables = write(_tables(comparison), "markdown") or "Nothing moved."
    notes = "\n".join(f"- {note}" for note in comparison.notes)
    versions = [f"| {name} | {then} | {now} |" for name, then, now in comparison.versions]
    beside = "\n".join(["| versions | baseline | now |", "| :--- | :--- | :--- |", *versions]) if versions else ""
    return "\n\n".join(filter(None, [f"## {comparison.summary}", tables, notes, beside])) + "\n"


def publish(comparison: Comparison, junit_file: Path | None, markdown_file: Path | None) -> None:
    """Write the reports that are wanted."""
    if junit_file:
        write_atomically(junit_file, junit(comparison))
    if markdown_file:
        write_atomically(markdown_file, markdown(comparison))


def junit(comparison: Comparison) -> str:
    """A suite per set of conditions, a case per method and metric; a row that is new counts as skipped."""
    root = ElementTree.Element("testsuites", {"name": "bench gate", **_counts(comparison.changes)})
    everywhere = ElementTree.SubElement(root, "properties")
    for name, then, now in comparison.versions:
        for when, value in (("baseline", then), ("now", now)):
            ElementTree.SubElement(everywhere, "property", name=f"{name} ({when})", value=_printable(value))
    for conditions, changes in _groups(comparison.changes):
        suite = ElementTree.SubElement(root, "testsuite", {"name": _printable(heading(conditions)), **_counts(changes)})
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in conditions.items():
            ElementTree.SubElement(properties, "property", name=name, value=_printable(value))
        for change in changes:
            owner = _printable(f"{conditions['protocol']}.{change.method}")
            case = ElementTree.SubElement(suite, "testcase", classname=owner, name=change.metric, time="0")
            sentence = _printable(change.sentence)
            if change.failed:
                ElementTree.SubElement(case, "failure", type=change.verdict, message=sentence).text = sentence
            elif change.verdict == "new":
                ElementTree.SubElement(case, "skipped", message=sentence)
            else:
                ElementTree.SubElement(case, "system-out").text = sentence
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _groups(changes: list[Change]) -> list[tuple[dict[str, str], list[Change]]]:
    """(conditions, changes) in order of appearance."""
    found: dict[tuple[tuple[str, str], ...], list[Change]] = {}
    for change in changes:
        found.setdefault(tuple(change.conditions.items()), []).append(change)
    return [(dict(conditions), own) for conditions, own in found.items()]


def _counts(changes: list[Change]) -> dict[str, str]:
    new = sum(change.verdict == "new" for change in changes)
    return {"tests": str(len(changes)), "failures": str(sum(c.failed for c in changes)), "errors": "0", "skipped": str(new)}


def _printable(value: str) -> str:
    """Without the characters that XML 1.0 cannot hold even escaped."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", value)


def _tables(comparison: Comparison) -> list[Table]:
    """A table per set of conditions, with the rows that moved."""
    tables = []
    for conditions, changes in _groups(comparison.changes):
        rows = [c for c in changes if c.verdict != "within" or points(c.difference) != points(0)]
        if not rows:
            continue
        table = Table(
            caption=heading(conditions),
            reading=f"What moved, in percent; allowed: how far it may get worse. {len(changes) - len(rows)} rows did not move.",
            header=["method", "metric", "baseline", "now", "difference", "allowed", "verdict"],
            rows=[],
            left=2,
        )
        for how in dict.fromkeys(f"{c.method}: {', '.join(c.differs)}" for c in rows if c.differs):
            table.notes.append(f"changed, {how}")
        for c in rows:
            numbers = [points(c.before), points(c.now), points(c.difference, signed=True), points(c.allowed)]
            verdict = c.verdict.upper() if c.failed else c.verdict
            table.rows.append([TableCell(cell) for cell in (c.method, METRICS[c.metric].title, *numbers, verdict)])
        lower = sorted({METRICS[c.metric].title for c in rows if not METRICS[c.metric].higher_is_better})
        if lower:
            table.notes.append(f"lower is better: {', '.join(lower)}")
        tables.append(table)
    return tables
