"""Numbers from papers as rows of comparison tables: below the measured row of their method, each source by itself.

They are printed as the paper prints them. A difference to the measured number is given only where it means something: the same
backbone and weights, and all images.
"""

from collections.abc import Sequence

import pandas as pd

from bench.reports.formats import INDENT, Table, TableCell
from bench.reports.layout import Layout
from bench.reports.rows import Column
from bench.results import published as publications
from bench.results.groups import MethodRuns
from bench.results.published import Source, as_printed
from bench.results.records import validation_part


class PublishedRows:
    """The published rows of one table, in the order in which they are asked for."""

    def __init__(self, table: Table, columns: Sequence[Column], published: pd.DataFrame, layout: Layout):
        self.table = table
        self.columns = columns
        found = publications.beside(published, table.conditions)
        self.left = {method: sources for method, sources in found.items() if layout.wants(method)}  # those without a row yet
        self.numbers: dict[str, int] = {}  # paper, table and backbone -> the number by which the rows refer to it

    def below(self, own: MethodRuns) -> None:
        """Rows for what papers say of a method that was measured; not where its hyper-parameters were changed."""
        if not own.overrides:
            for source in self.left.pop(own.method, []):
                self._add(source, own)

    def finish(self) -> None:
        """Rows for methods that were not measured, and the notes."""
        for method in sorted(self.left):
            for source in self.left[method]:
                self._add(source, None)
        self.table.notes += self._notes()

    @property
    def _all_images(self) -> bool:
        return self.table.conditions["limits"] in ("", "nan")

    def _add(self, source: Source, own: MethodRuns | None) -> None:
        """One row: below the measured row of its method, or with the method's name when nothing was measured."""
        if not any(column.key in source.values for column in self.columns):
            return
        number = self.numbers.setdefault(source.where, len(self.numbers) + 1)
        label = f"published [{number}]" + (f", {source.flag}" if source.flag else "")
        measured = own if source.comparable and self._all_images else None
        cells = []
        data: dict[str, object] = {"method": source.method, "source": source.where, "flag": source.flag}
        for column in self.columns:
            text, numbers = _number(source, column, measured, self.table.digits)
            cells.append(TableCell(text))
            data |= numbers
        first = INDENT + label if own else f"{source.method}, {label}"
        self.table.rows.append([TableCell(first), *cells, TableCell("")])
        self.table.data.append(data)

    def _notes(self) -> list[str]:
        if validation_part(self.table.conditions["limits"]):
            return ["papers report test images: no published number stands beside those of a validation part"]
        if not self.numbers:
            return [f"no published number of these metrics for {self.table.conditions['protocol']}"]
        how = "published: as printed there; in brackets: measured minus published"
        if not self._all_images:
            how = "published: as printed there; no difference, because the images here are others or fewer"
        return [how, *(f"[{number}] {where}" for where, number in self.numbers.items())]


def _number(source: Source, column: Column, own: MethodRuns | None, digits: int) -> tuple[str, dict[str, float]]:
    """What a source says in one column: (as printed, as data). own: the runs to hold it against."""
    value, std = source.values.get(column.key), source.stds.get(column.key)
    if value is None:
        return "", {}
    text = as_printed(value) + (f" ± {as_printed(std)}" if std is not None else "")
    data = {column.key: value / 100}
    mean = column.mean(own) if own else None
    if mean is not None:
        text += f" ({100 * mean - value:+.{digits}f})"
        data[f"{column.key}_difference"] = mean - value / 100
    return text, data
