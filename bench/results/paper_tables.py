"""Tables of papers that can be reproduced: one study file each, which ships with the package.

A study file (results/paper_tables/*.toml) is one that `bench run --study` takes, with a table [paper] more. That says where the
published numbers stand that the runs are held against, how the paper's names are read, and what differs between the paper and
the runs. The numbers themselves are those of results/published/*.csv, and nothing is written down twice.

Feared is a number that is dropped without a word, so every number of the source becomes a cell: with the run that it is held
against, or with the reason why there is none. A name that the study file says nothing of is an error, not a gap.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from bench.errors import unknown_name
from bench.results import published
from bench.results.metrics import METRICS

SUFFIX = ".toml"
UNREAD = "its number was not read"
UNSTATED = "the source does not say which metric it is"
Key = tuple[str, str]  # (protocol, method with its hyper-parameters) of runs


@dataclass(frozen=True)
class PaperTable:
    """What a study file says of the paper."""

    name: str
    text: str  # of the study file
    summary: str
    reported_in: str  # the paper, as the published rows name it
    tables: tuple[str, ...]  # the tables of the paper that are reproduced, as the published rows name them
    backbone: str = ""  # that the runs have: architecture and weights
    arxiv: str = ""
    runs: int = 1  # so many the paper averages
    cannot: str = ""  # why no run can be held against any of its numbers
    facts: Mapping[str, str] = field(default_factory=dict)  # seeds, orders, exemplars, training: as the paper has them
    differs: tuple[str, ...] = ()  # between the paper and the runs
    methods: Mapping[str, str] = field(default_factory=dict)  # the paper's name -> a method here, "method (field=value;...)"
    protocols: Mapping[str, str] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # several: the source does not say which
    datasets: Mapping[str, str] = field(default_factory=dict)  # the paper's name -> a task of the protocol
    absent: Mapping[str, str] = field(default_factory=dict)  # a method, protocol or metric of the paper -> why it is not here

    @property
    def source(self) -> str:
        return f"{self.reported_in}, {', '.join(self.tables)}"


@dataclass(frozen=True)
class Cell:
    """One number of the paper's table."""

    protocol: str  # as the source names these three
    method: str
    metric: str
    value: float | None  # percent, as printed; None: nobody could read it
    std: float | None
    where: str
    certainty: str
    flag: str = ""  # what is not known of the comparison
    key: Key | None = None  # the runs that it is held against; None: there can be none
    metrics: tuple[str, ...] = ()  # the metrics here that it is held against; several: it is not known which
    reason: str = ""  # why there is no run, or no verdict

    @property
    def of_one_dataset(self) -> bool:
        return "/" in self.metric and self.metric not in METRICS


def names() -> list[str]:
    """The tables that ship with the package."""
    folder = files("bench.shipped").joinpath("paper_tables")
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.iterdir() if file.name.endswith(SUFFIX))


@cache
def find(name: str) -> PaperTable:
    """The table of that name, or an error that offers the closest ones."""
    if name not in names():
        raise unknown_name("table", name, names())
    text = (files("bench.shipped") / "paper_tables" / (name + SUFFIX)).read_text(encoding="utf-8")
    study = tomllib.loads(text)
    said: dict[str, Any] = study["paper"]
    facts: dict[str, str] = {what: said[what] for what in ("seeds", "orders", "exemplars", "training") if what in said}
    rest = {what: value for what, value in said.items() if what not in facts}
    for what in ("tables", "differs"):
        rest[what] = tuple(rest.get(what, ()))
    rest["metrics"] = {name: tuple(metrics) for name, metrics in rest.get("metrics", {}).items()}
    backbone = " ".join(study[what] for what in ("backbone", "pretrained") if what in study)
    return PaperTable(name=name, text=text, backbone=backbone, facts=facts, **rest)


def cells(table: PaperTable, keys: Collection[Key]) -> list[Cell]:
    """Every number of the table, in the order of the source, then one cell for each of the runs that it has no number for.

    keys: all runs of the study file.
    """
    rows = published.load()
    rows = rows[(rows["reported_in"] == table.reported_in) & rows["table"].isin(table.tables)]
    found = [_cell(table, row, keys) for row in rows.to_dict("records")]
    read = {cell.key for cell in found}
    return found + [_unread(key) for key in keys if key not in read]


def _cell(table: PaperTable, row: Mapping[str, Any], keys: Collection[Key]) -> Cell:
    reported = table.backbones.get(row["backbone"], row["backbone"])
    flag, comparable = published.difference_in_backbone(reported, *(table.backbone.split() or ["", ""]))
    cell = Cell(
        row["protocol"], row["method"], row["metric"], float(row["value"]), _number(row["std"]), row["table"], row["certainty"],
        flag if comparable else "",
    )  # fmt: skip
    name, slash, dataset = cell.metric.partition("/")
    whole = (cell.metric,) if cell.metric in METRICS else ()
    dataset = table.datasets.get(dataset, dataset)
    metrics = whole or tuple(metric + slash + dataset for metric in table.metrics.get(name, (name,)))
    absent = next((table.absent[one] for one in (cell.method, cell.protocol, name) if one in table.absent), "")
    if reason := table.cannot or absent or ("" if comparable else f"{flag}: {row['backbone']}"):
        return replace(cell, reason=reason)
    key = table.protocols.get(cell.protocol, cell.protocol), table.methods.get(cell.method, cell.method)
    if key not in keys:
        raise LookupError(f"{table.name}: the study file has no run for {cell.method} on {cell.protocol}, and no reason")
    if unknown := [metric for metric in metrics if metric not in METRICS and metric.split("/")[0] not in METRICS]:
        raise LookupError(f"{table.name}: the study file says nothing of the metric {unknown[0]}")
    return replace(cell, key=key, metrics=metrics, reason=UNSTATED if len(metrics) > 1 else "")


def _unread(key: Key) -> Cell:
    return Cell(*key, "", None, None, "", "", key=key, reason=UNREAD)


def _number(value: Any) -> float | None:
    return None if value != value else float(value)  # NaN is no number, not even its own


def row_key(protocol: str, method: str, overrides: str, without: Iterable[str] = ()) -> Key:
    """The row of the table that a run belongs to; without: hyper-parameters that the study file does not set.

    >>> row_key("xtail-order1", "lada", "components=1;epochs=2;units=8", ["epochs"])
    ('xtail-order1', 'lada (components=1;units=8)')
    """
    left_out = set(without)
    own = [part for part in overrides.split(";") if part and part.partition("=")[0] not in left_out]
    from bench.results.conditions import label  # it imports pandas, which what is only shown can do without

    return protocol, label(method, ";".join(own))
