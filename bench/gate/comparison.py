"""The regression gate: fresh results against a stored baseline, with a tolerance, for people and for CI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.gate import baseline as baselines
from bench.gate.tolerance import Tolerance
from bench.reports.formats import points
from bench.results import groups, run_facts
from bench.results.metrics import DEFAULTS, METRICS, find
from bench.results.records import CONDITIONS
from bench.results.run_table import SHARED, heading, label, repeated_run, values
from bench.system.files import write_atomically

ROUNDING = 1e-9  # of means; never a difference
MIXED_CODE = "averaged over runs by different code of the method"
VERDICTS = {"regression": "s", "missing": "", "changed": "", "improvement": "s", "new": ""}  # that are counted -> plural


@dataclass(frozen=True)
class Change:
    """One metric of one method, then and now; fractions, NaN = no such row."""

    conditions: Mapping[str, str]  # SHARED
    method: str  # with its overrides, as the tables print it
    metric: str
    verdict: Literal["regression", "missing", "changed", "improvement", "within", "new"]
    before: float
    now: float
    allowed: float = np.nan  # how far it may get worse
    differs: tuple[str, ...] = ()  # in what the run is another one than the baseline's: "epochs 5 -> 3"
    comparable: bool = True  # may its number be held against the baseline's?

    @property
    def failed(self) -> bool:
        return self.verdict in ("regression", "missing") or (self.verdict == "changed" and not self.comparable)

    @property
    def difference(self) -> float:
        return self.now - self.before

    @property
    def sentence(self) -> str:
        title = METRICS[self.metric].title
        if self.verdict == "missing":
            return f"{title} of {self.method} was {points(self.before)}, there is no such result now"
        if self.verdict == "new":
            return f"{title} of {self.method} is {points(self.now)}, the baseline has no such row"
        moved = f"{points(self.before)} -> {points(self.now)} ({points(self.difference, True)})"
        how = f"; changed: {', '.join(self.differs)}" if self.differs else ""
        if not self.comparable:
            return f"{title} of {self.method}: {moved}, which cannot be compared{how}"
        return f"{title} of {self.method}: {moved}, allowed {points(self.allowed)}{how}"


@dataclass(frozen=True)
class Outcome:
    """What the gate found."""

    baseline: Path
    changes: list[Change]
    notes: list[str]
    versions: list[tuple[str, str, str]] = field(default_factory=list)  # (Python or library, of the baseline, now)

    @property
    def passed(self) -> bool:
        return not any(change.failed for change in self.changes)

    @property
    def counts(self) -> str:
        """How many rows got which verdict, in words."""
        found = [change.verdict for change in self.changes]
        said = [f"{found.count(verdict)} {verdict}{plural * (found.count(verdict) != 1)}"
                for verdict, plural in VERDICTS.items()]  # fmt: skip
        return f"{', '.join(said)}; {len(found) - found.count('new')} rows of {self.baseline}"

    @property
    def summary(self) -> str:
        return f"gate {'passed' if self.passed else 'FAILED'}: {self.counts}"


def gate(paths: Sequence[Path], baseline: Path, tolerance: str | None = None, metrics: Sequence[str] | None = None) -> Outcome:
    """Compare the results at or below the paths with a baseline file.

    metrics: compare these only. Results that cannot be compared with it are a BenchError.
    """
    allowed = Tolerance.parse(tolerance)
    stored = baselines.read(baseline)
    if metrics:
        stored = stored[stored["metric"].isin([name for name in metrics if find(name)])]
        if not len(stored):
            raise BenchError(f"{baseline}: no rows for {', '.join(metrics)}; bench gate with --update and --metrics stores them")
    fresh = _measure(paths, stored, metrics)
    reason = incomparable(baseline, stored, fresh)
    if reason:
        raise BenchError(f"{reason}; bench gate with --update replaces the baseline, if this is meant")
    return compare(baseline, stored, fresh, allowed)


def update(paths: Sequence[Path], baseline: Path, metrics: Sequence[str] | None = None) -> tuple[Outcome | None, str]:
    """Replace a baseline file by the results at or below the paths: (what moved, what was done).

    metrics: store these; by default those that the file holds for a protocol, or those that its tables show. There is
    no outcome if there was no file, or if the results cannot be compared with it.
    """
    stored = baselines.read(baseline) if baseline.exists() else None  # a file that is no baseline is not overwritten
    fresh = _measure(paths, stored, metrics)
    outcome, done = None, f"wrote {baseline}: {len(fresh)} rows"
    if stored is not None:
        reason = incomparable(baseline, stored, fresh)
        outcome = None if reason else compare(baseline, stored, fresh, Tolerance())
        done += f"; not compared with what it held: {reason}" if reason else ""
    mixed = fresh[fresh["code"].str.contains(" ")].drop_duplicates(["protocol", "method", "overrides"])
    for row in mixed.itertuples():
        done += f"\n{label(row.method, row.overrides)} on {row.protocol}: {MIXED_CODE} ({row.code})"
    write_atomically(baseline, baselines.to_csv(fresh))
    return outcome, done


def _measure(paths: Sequence[Path], stored: pd.DataFrame | None, metrics: Sequence[str] | None) -> pd.DataFrame:
    """The fresh results in the form of a baseline, with the metrics that the stored one holds for each protocol."""
    held: dict[str, list[str]] = {}
    if stored is not None:
        held = {protocol: list(dict.fromkeys(own["metric"])) for protocol, own in stored.groupby("protocol")}

    def wanted(conditions: Mapping[str, str]) -> Sequence[str]:
        return metrics or held.get(conditions["protocol"]) or DEFAULTS[conditions["scenario"]]

    results = groups.load(paths)
    _refuse_variants(results.table, results.manifests)
    conditions = results.table[CONDITIONS].drop_duplicates().to_dict("records")
    names = list(dict.fromkeys(name for one in conditions for name in wanted(one)))
    runs = values(results.table, names, results.samples_of)
    repeated = repeated_run(runs)
    if repeated:
        raise BenchError(f"{repeated}; gate a results folder that holds one of them")
    fresh = baselines.summarise(runs, wanted, results.manifests)
    if not len(fresh):
        raise BenchError(f"{', '.join(map(str, paths))}: none of {', '.join(names)} is available in these results")
    return fresh


def _refuse_variants(table: pd.DataFrame, manifests: Mapping[str, Mapping]) -> None:
    """Two versions of a method in one folder, say: which of them is the fresh result?"""
    runs = table.drop_duplicates("run_id")
    facts: dict[tuple, dict[str, str]] = {}
    for run in runs[runs["run_id"].isin(manifests)].to_dict("records"):
        manifest = manifests[run["run_id"]]
        own = run_facts.settings_and_version(manifest) | {"images": run_facts.images(manifest)}
        key = (run["protocol"], run["limits"], run["method"], str(manifest.get("overrides", "")))
        before = facts.setdefault(key, own)
        if what := run_facts.differing(before, own):
            raise BenchError(
                f"{run['method']} on {run['protocol']} has runs that differ: {', '.join(what)}; gate a results folder that holds "
                "one of them"
            )


# -- comparison -------------------------------------------------------------------------------------------------


def incomparable(baseline: Path, stored: pd.DataFrame, fresh: pd.DataFrame) -> str | None:
    """Why results cannot be compared with a baseline: no protocol in common, or one under other conditions or weights."""
    then, now = stored[SHARED].drop_duplicates(), fresh[SHARED].drop_duplicates()
    protocols = set(then["protocol"]) & set(now["protocol"])
    if not protocols:
        old, new = (", ".join(sorted(set(table["protocol"]))) for table in (then, now))
        return f"{baseline} is of {old}, these results are of {new}"
    common = then.merge(now)
    for protocol in sorted(protocols - set(common["protocol"])):
        old, new = (table[table["protocol"] == protocol].iloc[0] for table in (then, now))
        how = ", ".join(
            f"{column} {new[column] or 'none'}, in {baseline} {old[column] or 'none'}"
            for column in SHARED
            if old[column] != new[column]
        )
        return f"{protocol} cannot be compared: {how}"
    for conditions in common.to_dict("records"):
        old, new = (_weights(table, conditions) for table in (stored, fresh))
        if old and new and old != new:
            names = f"weights {conditions['pretrained']} are {' '.join(new)}, in {baseline} {' '.join(old)}"
            return f"{conditions['protocol']} cannot be compared: {names}"
    return None


def compare(baseline: Path, stored: pd.DataFrame, fresh: pd.DataFrame, tolerance: Tolerance) -> Outcome:
    """Row by row; both tables in the form of a baseline."""
    partners = _partners(stored, fresh)
    now = {(*_key(row), row.metric): row for row in fresh.itertuples()}
    changes, notes = [], {}
    for row in stored.itertuples():
        other = now.pop((*partners[_key(row)], row.metric), None) if _key(row) in partners else None
        if other is None:
            changes.append(Change(_shared(row), label(row.method, row.overrides), row.metric, "missing", row.mean, np.nan))
            continue
        changes.append(_change(row, other, tolerance))
        method = label(row.method, row.overrides)
        if row.code and other.code and row.code != other.code:
            notes[f"{method} on {row.protocol}: the method's code is not the baseline's ({row.code} -> {other.code})"] = None
        if " " in other.code:
            notes[f"{method} on {row.protocol}: {MIXED_CODE} ({other.code})"] = None
        if row.runs and row.runs != other.runs:
            notes[f"{method} on {row.protocol}: {_seeds(row.runs, other.runs)}"] = None
    known = set(map(tuple, stored[SHARED].drop_duplicates().to_numpy().tolist()))
    for row in now.values():
        conditions = _shared(row)
        if tuple(conditions.values()) in known:
            changes.append(Change(conditions, label(row.method, row.overrides), row.metric, "new", np.nan, row.mean))
        else:
            notes[f"not in the baseline, not compared: {label(row.method, row.overrides)} on {heading(conditions)}"] = None
    return Outcome(baseline, changes, list(notes), _versions(stored, fresh))


def _change(then, now, tolerance: Tolerance) -> Change:
    """One row of the baseline against the fresh one that takes its place."""
    shared = [f"{column} {getattr(then, column) or 'none'} -> {getattr(now, column) or 'none'}"
              for column in SHARED if getattr(then, column) != getattr(now, column)]  # fmt: skip
    if then.images and now.images and then.images != now.images:
        shared.append(f"images {then.images} -> {now.images}")
    settings = [baselines.separated(row.settings) for row in (then, now)]
    own = run_facts.differing(*settings) if all(settings) else []
    if then.overrides != now.overrides:
        said = " -> ".join(row.overrides or "its own hyper-parameters" for row in (then, now))
        own = own or [f"overrides {said}"]
    allowed = tolerance.allowed(then.metric, then.mean, then.std, then.n, now.n)
    gain = (now.mean - then.mean) * (1 if METRICS[then.metric].higher_is_better else -1)
    verdict = "regression" if gain < -allowed - ROUNDING else "improvement" if gain > allowed + ROUNDING else "within"
    if shared or (own and verdict != "regression"):
        verdict = "changed"
    method = label(then.method, then.overrides)
    return Change(_shared(then), method, then.metric, verdict, then.mean, now.mean, allowed, (*shared, *own), not shared)


def _shared(row) -> dict[str, str]:
    return {column: getattr(row, column) for column in SHARED}


def _seeds(then: str, now: str) -> str:
    """Which order/seed one side has and the other has not."""
    old, new = then.split(), now.split()
    sides = (("the baseline", old, new), ("these results", new, old))
    alone = [(side, [seed for seed in own if seed not in others]) for side, own, others in sides]
    said = "; ".join(f"only in {side} {' '.join(own)}" for side, own in alone if own)
    return f"other order/seed than the baseline ({said})"


def _versions(stored: pd.DataFrame, fresh: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(Python or library, version of the baseline, version now)."""
    sides = []
    for table in (stored, fresh):
        found: dict[str, dict[str, None]] = {}
        for cell in dict.fromkeys(table["versions"]):
            for name, value in baselines.separated(cell).items():
                found.setdefault(name, {}).update(dict.fromkeys(value.split(" and ")))
        sides.append({name: " and ".join(own) for name, own in found.items()})
    names = dict.fromkeys([*run_facts.VERSIONS, *sides[0], *sides[1]])
    return [(name, *(side.get(name, run_facts.NOT_STATED) for side in sides)) for name in names]


def _key(row) -> tuple[str, ...]:
    return tuple(getattr(row, column) for column in CONDITIONS)


def _weights(table: pd.DataFrame, conditions: Mapping[str, str]) -> list[str]:
    """Which weights the rows under these conditions were made with, as far as it is known."""
    own = table[(table[SHARED] == pd.Series(conditions)).all(axis=1)]
    return sorted(set(" ".join(own["weights"]).split()))


def _partners(stored: pd.DataFrame, fresh: pd.DataFrame) -> dict[tuple, tuple]:
    """From the conditions of a baseline row to those of the fresh row that takes its place.

    Equal ones first. Of what is left, a method that has one row on either side is the same run, changed: first where only
    its hyper-parameters differ, so that what that does to the numbers is seen, then where other conditions do.
    """
    then, now = ([_key(row) for row in table.drop_duplicates(CONDITIONS).itertuples()] for table in (stored, fresh))
    partners = {key: key for key in set(then) & set(now)}
    protocol, method, overrides = (CONDITIONS.index(name) for name in ("protocol", "method", "overrides"))
    for what in (lambda key: key[:overrides] + key[overrides + 1 :], lambda key: (key[protocol], key[method])):
        left: dict[tuple, tuple[list[tuple], list[tuple]]] = {}  # what they have in common -> (stored, fresh)
        taken = set(partners.values())
        for side, keys in enumerate((then, now)):
            for key in keys:
                if key not in (partners if side == 0 else taken):
                    left.setdefault(what(key), ([], []))[side].append(key)
        partners |= {ours[0]: theirs[0] for ours, theirs in left.values() if len(ours) == len(theirs) == 1}
    return partners
