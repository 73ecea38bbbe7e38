"""The regression gate: fresh results against a stored baseline, with a tolerance, for people and for CI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from bench import baseline as baselines
from bench import groups
from bench.errors import BenchError
from bench.files import write_atomically
from bench.metrics import DEFAULTS, METRICS, find
from bench.records import CONDITIONS
from bench.tolerance import Tolerance
from bench.values import SHARED, heading, label, points, repeated_run, values

ROUNDING = 1e-9  # of means; never a difference


@dataclass(frozen=True)
class Change:
    """One metric of one method, then and now; fractions, NaN = no such row."""

    conditions: Mapping[str, str]  # SHARED
    method: str  # with its overrides, as the tables print it
    metric: str
    verdict: Literal["regression", "missing", "improvement", "within", "new"]
    before: float
    now: float
    allowed: float = np.nan  # how far it may get worse

    @property
    def failed(self) -> bool:
        return self.verdict in ("regression", "missing")

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
        return f"{title} of {self.method}: {moved}, allowed {points(self.allowed)}"


@dataclass(frozen=True)
class Outcome:
    """What the gate found."""

    baseline: Path
    changes: list[Change]
    notes: list[str]

    @property
    def passed(self) -> bool:
        return not any(change.failed for change in self.changes)

    @property
    def counts(self) -> str:
        """How many rows got which verdict, in words."""
        found = [change.verdict for change in self.changes]
        said = [f"{found.count(verdict)} {verdict}{plural * (found.count(verdict) != 1)}"
                for verdict, plural in (("regression", "s"), ("missing", ""), ("improvement", "s"), ("new", ""))]  # fmt: skip
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
        column = next(column for column in SHARED if old[column] != new[column])
        return f"{protocol} cannot be compared: {column} {new[column] or 'none'}, in {baseline} {old[column] or 'none'}"
    for conditions in common.to_dict("records"):
        old, new = (_weights(table, conditions) for table in (stored, fresh))
        if old and new and old != new:
            names = f"weights {conditions['pretrained']} are {' '.join(new)}, in {baseline} {' '.join(old)}"
            return f"{conditions['protocol']} cannot be compared: {names}"
    return None


def compare(baseline: Path, stored: pd.DataFrame, fresh: pd.DataFrame, tolerance: Tolerance) -> Outcome:
    """Row by row; both tables in the form of a baseline."""
    fresh, notes = _known(stored, fresh)
    partners, more_notes = _partners(stored, fresh)
    now = {(*_key(row), row.metric): row for row in fresh.itertuples()}
    changes, seeds = [], {}
    for row in stored.itertuples():
        conditions = {column: getattr(row, column) for column in SHARED}
        method = label(row.method, row.overrides)
        other = now.pop((*partners[_key(row)], row.metric), None) if _key(row) in partners else None
        if other is None:
            changes.append(Change(conditions, method, row.metric, "missing", row.mean, np.nan))
            continue
        allowed = tolerance.allowed(row.metric, row.mean, row.std, row.n, other.n)
        gain = (other.mean - row.mean) * (1 if METRICS[row.metric].higher_is_better else -1)
        verdict = "regression" if gain < -allowed - ROUNDING else "improvement" if gain > allowed + ROUNDING else "within"
        changes.append(Change(conditions, method, row.metric, verdict, row.mean, other.mean, allowed))
        if row.runs and row.runs != other.runs:
            seeds[f"{method} on {row.protocol}: other order/seed than the baseline ({other.runs} against {row.runs})"] = None
    for row in now.values():
        conditions = {column: getattr(row, column) for column in SHARED}
        changes.append(Change(conditions, label(row.method, row.overrides), row.metric, "new", np.nan, row.mean))
    return Outcome(baseline, changes, [*notes, *more_notes, *seeds])


def _key(row) -> tuple[str, ...]:
    return tuple(getattr(row, column) for column in CONDITIONS)


def _known(stored: pd.DataFrame, fresh: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The fresh rows under conditions that the baseline knows, and a note on the others."""
    conditions = stored[SHARED].drop_duplicates()
    known = fresh[SHARED].merge(conditions, how="left", indicator=True)["_merge"].eq("both").to_numpy()
    others = sorted({heading(row) for row in fresh.loc[~known, SHARED].to_dict("records")})
    return fresh[known], [f"not in the baseline, not compared: {other}" for other in others]


def _weights(table: pd.DataFrame, conditions: Mapping[str, str]) -> list[str]:
    """Which weights the rows under these conditions were made with, as far as it is known."""
    own = table[(table[SHARED] == pd.Series(conditions)).all(axis=1)]
    return sorted(set(" ".join(own["weights"]).split()))


def _partners(stored: pd.DataFrame, fresh: pd.DataFrame) -> tuple[dict[tuple, tuple], list[str]]:
    """From the conditions of a baseline row to those of the fresh row it is compared with.

    Equal ones first. What is left of a method is still compared if there is one of it on either side, so that a changed
    hyper-parameter shows as what it does to the numbers.
    """
    then, now = ([_key(row) for row in table.drop_duplicates(CONDITIONS).itertuples()] for table in (stored, fresh))
    partners = {key: key for key in set(then) & set(now)}
    place = CONDITIONS.index("overrides")
    notes = []
    left: dict[tuple, tuple[list[tuple], list[tuple]]] = {}  # conditions but overrides -> (stored, fresh)
    for side, keys in enumerate((then, now)):
        for key in keys:
            if key not in partners:
                left.setdefault(key[:place] + key[place + 1 :], ([], []))[side].append(key)
    for ours, theirs in left.values():
        if len(ours) == len(theirs) == 1:
            partners[ours[0]] = theirs[0]
            method, *said = ours[0][CONDITIONS.index("method")], theirs[0][place], ours[0][place]
            now_with, then_with = (text or "its own hyper-parameters" for text in said)
            notes.append(f"{method} ran with {now_with}, the baseline with {then_with}")
    return partners, notes
