"""Finished runs, sorted into what one picture may show together: a protocol under one set of conditions, as in tables."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from bench.results import accuracy, comparable, records, samples
from bench.results.run_data import TASK_INCREMENTAL, RunData
from bench.results.run_table import SEEDS, SHARED, ZERO_SHOT, heading, label
from bench.system.files import sha256


@dataclass(frozen=True)
class Results:
    """Finished runs at or below some paths."""

    table: pd.DataFrame  # their records
    manifests: dict[str, dict]  # run id -> manifest.json; not there for records that came without one
    samples_of: Callable[[str], Mapping[str, np.ndarray] | None]  # run id -> per-image arrays


def load(paths: Iterable[Path]) -> Results:
    paths = [Path(path) for path in paths]
    table = records.load(paths)
    manifests = records.manifests(file for path in paths for file in records.find(path))
    return Results(table, manifests, samples.of_runs(paths))


def nothing() -> Results:
    """No runs at all."""
    return Results(records.nothing(), {}, lambda run_id: None)


@dataclass(frozen=True)
class Entry:
    """A method with its hyper-parameters: all of its runs in one group."""

    method: str
    overrides: str
    table: pd.DataFrame  # one row a run: CONDITIONS, SEEDS, run_id
    runs: list[RunData]  # the same runs

    @property
    def label(self) -> str:
        return label(self.method, self.overrides)

    @property
    def run_ids(self) -> list[str]:
        return list(self.table["run_id"])

    @property
    def joint(self) -> bool:
        return self.runs[0].joint

    @cached_property
    def last(self) -> np.ndarray:
        """(runs,) accuracy after the last task, mean over tasks."""
        return np.array([accuracy.last(run.learned) for run in self.runs])


@dataclass(frozen=True)
class Group:
    """Runs that may be compared."""

    conditions: dict[str, str]
    tasks: list[str]
    entries: list[Entry]  # zero-shot first, then from best to worst at the end of the stream
    apart: str = ""  # what sets it apart from other groups of its protocol, as name=value;...

    @property
    def protocol(self) -> str:
        return self.conditions["protocol"]

    @property
    def task_incremental(self) -> bool:
        return self.conditions["scenario"] == TASK_INCREMENTAL

    @property
    def heading(self) -> str:
        return heading(self.conditions)

    @property
    def stem(self) -> str:
        """A file name's beginning.

        >>> Group({"protocol": "mini60-6x10"}, [], [], "limits=train=5").stem
        'mini60-6x10_limits=train=5'
        """
        return slug(self.protocol) + (f"_{slug(self.apart)}" if self.apart else "")

    @property
    def run_ids(self) -> list[str]:
        return [run_id for entry in self.entries for run_id in entry.run_ids]

    def entry(self, method_label: str) -> Entry:
        return next(entry for entry in self.entries if entry.label == method_label)


def slug(text: str) -> str:
    """A text as a part of a file name; where characters are lost, a digest keeps different texts apart.

    >>> slug("coop (epochs=3;rate=-1)"), slug("../<b>")
    ('coop-epochs=3,rate=-1', 'b-9f46ae')
    """
    readable = text.replace(" (", "-").replace(")", "").replace(";", ",")
    safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", readable).strip("-.")
    return safe if safe == readable else f"{safe}-{sha256(text.encode())[:6]}".lstrip("-")


def build(results: Results) -> list[Group]:
    """All groups, in the order in which their records were found."""
    groups = []
    for found in comparable.sets(results.table):
        entries = []
        for (method, overrides), own in found.methods.items():
            own = own.sort_values(SEEDS)
            entries.append(Entry(method, overrides, own, [found.data[run_id] for run_id in own["run_id"]]))
        entries.sort(key=lambda entry: (entry.method != ZERO_SHOT, -np.nan_to_num(entry.last.mean(), nan=-1), entry.label))
        groups.append(Group(found.conditions, found.tasks, entries))
    return [_set_apart(group, groups) for group in groups]


def _set_apart(group: Group, groups: list[Group]) -> Group:
    """Note the conditions in which a group differs from others of its protocol."""
    siblings = [other.conditions for other in groups if other.protocol == group.protocol]
    differing = [column for column in SHARED if len({conditions[column] for conditions in siblings}) > 1]
    apart = ";".join(f"{column}={group.conditions[column] or 'none'}" for column in differing)
    return Group(group.conditions, group.tasks, group.entries, apart)
