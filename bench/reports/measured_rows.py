"""Results that others measured and handed in, as rows of comparison tables: below the own row of their method, each source by
itself, never averaged with own runs and never ranked.

A difference to the own number is given only where it means something: equal conditions, images and hyper-parameters, and equal
class orders. Otherwise the row says what is different.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from bench.reports.formats import INDENT, Table, TableCell, percent
from bench.reports.layout import Layout
from bench.reports.rows import Column
from bench.results import run_facts
from bench.results.conditions import ZERO_SHOT
from bench.results.groups import MethodRuns
from bench.results.measured.groups import MeasuredMethod, differences, differences_in_method, grouped
from bench.results.measured.schema import MeasuredRun
from bench.results.run_folder import RECORDS

DASH = "a dash: not available"
JOINT, JOINT_NOTE = " ‡", "‡ learned all tasks at once (upper bound), not ranked"
Manifests = Mapping[str, Mapping[str, Any]]


class MeasuredRows:
    """The measured rows of one table, in the order in which they are asked for."""

    def __init__(
        self,
        table: Table,
        columns: Sequence[Column],
        runs: Sequence[MeasuredRun],
        manifests: Manifests,
        tasks: int,
        order: Column,
        layout: Layout,
    ):
        """tasks: so many the table's streams have; order: the number that orders methods that were not run here."""
        self.table = table
        self.columns = columns
        self.manifests = manifests
        found = grouped([run for run in runs if run["protocol"] == table.conditions["protocol"]])
        found = [one for one in found if layout.wants(one["method"], one.label)]
        self.left = [one for one in found if len(one.runs[0].tasks) == tasks]
        self.left.sort(key=lambda one: _place(one, order))
        self.other_tasks = len(found) - len(self.left)  # groups of runs on a stream of another number of tasks
        self.sources: dict[str, int] = {}  # who, when and how -> the number by which rows refer to it
        self.compared = False

    def below(self, own: MethodRuns) -> None:
        """Rows for what others measured of a method that was run here with the same changes to its hyper-parameters."""
        for theirs in [one for one in self.left if (one["method"], one["overrides"]) == (own.method, own.overrides)]:
            self.left.remove(theirs)
            self._add(theirs, own)

    def finish(self) -> None:
        """Rows for methods that were not run here, and the notes."""
        for theirs in self.left:
            self._add(theirs, None)
        self.table.notes += self._notes()

    def _add(self, theirs: MeasuredMethod, own: MethodRuns | None) -> None:
        mine = [self.manifests[run_id] for run_id in own.run_ids if run_id in self.manifests] if own else []
        differ = differences(theirs, self.table.conditions, mine or list(self.manifests.values()))
        names = list(differ)
        said = [f"{name} ({how})" for name, how in differ.items()]
        if own:
            if settings := differences_in_method(theirs, mine):
                names.append("settings")
                said += [f"settings ({', '.join(settings)} here)"]
            if (orders := {order for order, _ in own.seeds}) != theirs.orders:
                names.append("class orders")
                said.append(f"class orders ({_listed(theirs.orders)}, here {_listed(orders)})")
        source = theirs.source + (f"; differs in {', '.join(said)}" if said else "") + _here(theirs, mine)
        number = self.sources.setdefault(source, len(self.sources) + 1)
        label = f"measured [M{number}]" + (f", other {' and '.join(names)}" if names else "")
        self.compared |= own is not None and not names
        cells = []
        data: dict[str, Any] = {"method": theirs["method"], "overrides": theirs["overrides"], "runs": len(theirs.runs)}
        data |= {"source": f"measured by {theirs['who']}, {theirs.when}", "flag": "; ".join(said)}
        for column in self.columns:
            text, numbers = _number(theirs, column, own if not names else None, self.table.digits)
            cells.append(TableCell(text))
            data |= numbers
        first = INDENT + label if own else f"{theirs.label}{JOINT if theirs.joint else ''}, {label}"
        self.table.rows.append([TableCell(first), *cells, TableCell(str(len(theirs.runs)))])
        self.table.data.append(data)
        dashes = any(cell.text == "-" for cell in cells)
        notes = [DASH] * dashes + [JOINT_NOTE] * (theirs.joint and own is None)
        self.table.notes += [note for note in notes if note not in self.table.notes]

    def _notes(self) -> list[str]:
        notes = []
        if self.other_tasks:
            notes.append(f"measured, not shown: {self.other_tasks} sets of runs with another number of tasks")
        if not self.sources:
            return [*notes, f"no measured result for {self.table.conditions['protocol']}"]
        how = "measured: by others, never averaged with own runs, not ranked"
        how += "; in brackets: own minus theirs" if self.compared else ""
        return [*notes, how, *(f"[M{number}] {source}" for source, number in self.sources.items())]


def _place(theirs: MeasuredMethod, order: Column) -> tuple[bool, bool, float, str, str]:
    """Zero-shot first, then from best to worst, those without the number last; as own rows are ordered."""
    values = _known(theirs, order)
    sign = -1 if order.higher_is_better else 1
    mean = fmean(values) if values else 0.0
    return theirs["method"] != ZERO_SHOT, not values, sign * mean, theirs.label, theirs["who"]


def _known(theirs: MeasuredMethod, column: Column) -> list[float]:
    return [value for run in theirs.runs if not np.isnan(value := float(column.function(run.data)))]


def _number(
    theirs: MeasuredMethod, column: Column, own: MethodRuns | None, digits: int
) -> tuple[str, dict[str, float | None]]:
    """What they measured in one column: (as printed, as data). own: the runs to hold it against."""
    values = _known(theirs, column)
    if not values:
        return "-", {column.key: None}
    mean, std = fmean(values), stdev(values) if len(values) > 1 else None
    text = percent(mean, digits) + (f" ± {percent(std, digits)}" if std is not None else "")
    data: dict[str, float | None] = {column.key: mean, f"{column.key}_std": std, f"{column.key}_n": len(values)}
    here = column.mean(own) if own else None
    if here is not None:
        text += f" ({percent(here - mean, digits, signed=True)})"
        data[f"{column.key}_difference"] = here - mean
    return text, data


def _here(theirs: MeasuredMethod, mine: Sequence[Mapping[str, Any]]) -> str:
    """Is the code of the method another one here, and have the same runs, made here once more, given the same numbers?"""
    codes = {run_facts.code(manifest) for manifest in mine} - {"", theirs["source"]}
    code = "; the method's code is another one here" if codes else ""
    records = {manifest["run_id"]: manifest.get("checksums", {}).get(RECORDS) for manifest in mine}
    common = [run for run in theirs.runs if run["run_id"] in records]
    if not common:
        return code
    others = [run["run_id"] for run in common if run["records_sha256"] != records[run["run_id"]]]
    if others:
        return f"{code}; made here too, with OTHER numbers: {', '.join(others)}"
    return f"{code}; {len(common)} of these runs made here too, with equal numbers"


def _listed(orders: set[int]) -> str:
    return ", ".join(map(str, sorted(orders)))
