"""Numbers from papers, which ship with the package: loading them, and laying them beside measured ones.

pandas is imported where it is used: reading somebody's matrix asks for the order of tasks alone, and starts faster without it.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import pandas as pd

COLUMNS = ["method", "protocol", "backbone", "metric", "value", "std", "reported_in", "table", "certainty"]


@dataclass(frozen=True)
class Source:
    """What one table of one paper says of one method."""

    method: str
    where: str  # paper, table and backbone
    flag: str  # why the comparison is not like with like; empty if it is
    comparable: bool  # is a difference to the measured numbers meaningful?
    values: dict[str, float]  # metric -> value as printed, percent
    stds: dict[str, float]  # metric -> its standard deviation as printed, where there is one


@cache
def _load() -> "pd.DataFrame":
    import pandas as pd

    tables = []
    for place in _files():
        with place.open(encoding="utf-8") as file:
            tables.append(pd.read_csv(file))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def _files() -> "list[Traversable]":
    """Those with a number a row."""
    folder = files("bench.shipped").joinpath("published")
    names = sorted(file.name for file in folder.iterdir())
    wanted = [name for name in names if name.endswith(".csv") and not name.endswith(("_matrices.csv", "_orders.csv"))]
    return [folder.joinpath(name) for name in wanted]


def load() -> "pd.DataFrame":
    """All published numbers, one row each; values as printed (percent)."""
    return _load().copy()


def rows() -> list[dict[str, str]]:
    """The same as they are written, without pandas."""
    found = []
    for place in _files():
        with place.open(encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    return found


def as_printed(percentage: float) -> str:
    """A published number with the digits that it was published with, at least one decimal.

    >>> as_printed(71.0), as_printed(71.25)
    ('71.0', '71.25')
    """
    return f"{percentage:.1f}" if round(percentage, 1) == percentage else f"{percentage:g}"


def mtil_orders() -> dict[str, list[str]]:
    """The data sets of MTIL in the order in which they are learned: {"I": [...], "II": [...]}."""
    with (files("bench.shipped") / "published" / "mtil_orders.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["order"], int(row["position"])))
    orders: dict[str, list[str]] = {}
    for row in rows:
        orders.setdefault(row["order"], []).append(row["dataset"])
    return orders


def difference_in_backbone(reported: str, backbone: str, pretrained: str) -> tuple[str, bool]:
    """(what differs between a reported and a measured backbone, may the numbers be subtracted?).

    >>> difference_in_backbone("ViT-B-16 openai", "ViT-B-16", "openai")
    ('', True)
    >>> difference_in_backbone("ViT-B-16", "ViT-B-16", "openai")
    ('weights not stated', True)
    >>> difference_in_backbone("ViT-B-16 openai", "ViT-B-16", "laion400m_e32")
    ('other weights', False)
    >>> difference_in_backbone("vit_b16_224_in21k", "ViT-B-16", "openai")
    ('other backbone', False)
    """
    architecture, _, weights = reported.partition(" ")
    if architecture != backbone.removesuffix("-quickgelu"):
        return "other backbone", False
    if not weights:
        return "weights not stated", True
    return ("", True) if weights == pretrained else ("other weights", False)


def beside(published: "pd.DataFrame", conditions: dict[str, str]) -> dict[str, list[Source]]:
    """What papers say on a table's protocol: {method: sources}. Sources are kept apart, never merged.

    Papers report test images: beside numbers of a validation part nothing stands.
    """
    import pandas as pd

    from bench.results.records import validation_part

    missing = [column for column in COLUMNS if column not in published.columns]
    if missing:
        raise BenchError(f"published numbers: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
    if validation_part(conditions.get("limits", "")):
        return {}
    rows = published[published["protocol"] == conditions["protocol"]]
    found: dict[str, list[Source]] = {}
    for (method, paper, table, backbone), own in rows.groupby(["method", "reported_in", "table", "backbone"], sort=False):
        flag, comparable = difference_in_backbone(backbone, conditions["backbone"], conditions["pretrained"])
        values = dict(zip(own["metric"], own["value"].astype(float)))
        stds = {metric: float(std) for metric, std in zip(own["metric"], own["std"]) if pd.notna(std)}
        found.setdefault(method, []).append(Source(method, f"{paper}, {table}; {backbone}", flag, comparable, values, stds))
    return found
