"""The regression gate: fresh results against a stored baseline, with a tolerance, for people and for CI."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.gate import baseline as baselines
from bench.gate.baseline import Row
from bench.gate.changes import Change, Comparison, Verdict
from bench.gate.tolerance import FLOOR, Tolerance
from bench.results import loaded, run_facts
from bench.results.conditions import SHARED, heading, label
from bench.results.metrics import DEFAULTS, METRICS, find
from bench.results.records import CONDITIONS, restrictions, validation_part
from bench.results.run_table import repeated_run, values
from bench.system.files import write_atomically

ROUNDING = 1e-9  # of means; never a difference
MIXED_CODE = "averaged over runs by different code of the method"


def gate(paths: Sequence[Path], baseline: Path, tolerance: str | None = None, metrics: Sequence[str] | None = None) -> Comparison:
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


def update(paths: Sequence[Path], baseline: Path, metrics: Sequence[str] | None = None) -> tuple[Comparison | None, str]:
    """Replace a baseline file by the results at or below the paths: (what moved, what was done).

    metrics: store these; by default those that the file holds for a protocol, or those that its tables show. There is
    no comparison if there was no file, or if the results cannot be compared with it.
    """
    stored = baselines.read(baseline) if baseline.exists() else None  # a file that is no baseline is not overwritten
    fresh = _measure(paths, stored, metrics)
    moved, done = None, f"wrote {baseline}: {len(fresh)} rows"
    if stored is not None:
        reason = incomparable(baseline, stored, fresh)
        moved = None if reason else compare(baseline, stored, fresh, Tolerance())
        done += f"; not compared with what it held: {reason}" if reason else ""
    mixed = fresh[fresh["code"].str.contains(" ")].drop_duplicates(["protocol", "method", "overrides"])
    for row in mixed.itertuples():
        done += f"\n{label(row.method, row.overrides)} on {row.protocol}: {MIXED_CODE} ({row.code})"
    done += "".join(f"\n{note}" for note in _without_spread(fresh))
    write_atomically(baseline, baselines.to_csv(fresh))
    return moved, done


def _without_spread(fresh: pd.DataFrame) -> list[str]:
    """Of whose runs no tolerance can be made: there is one, or all seeds gave the same numbers."""
    said: dict[tuple[str, str], list[str]] = {}
    for (protocol, method, overrides), own in fresh.groupby(["protocol", "method", "overrides"], sort=False):
        if (own["n"] == 1).all():
            reason = "one run has no spread; several --seeds make the tolerance"
        elif (own["std"].fillna(0.0) < ROUNDING).all():
            reason = f"all {own['n'].max()} runs have equal numbers, whatever their seeds"
        else:
            continue
        said.setdefault((protocol, reason), []).append(label(method, overrides))
    return [
        f"no tolerance from the runs of {', '.join(methods)} on {protocol}: {reason}. The gate will allow {100 * FLOOR:g} point"
        for (protocol, reason), methods in said.items()
    ]


def _measure(paths: Sequence[Path], stored: pd.DataFrame | None, metrics: Sequence[str] | None) -> pd.DataFrame:
    """The fresh results in the form of a baseline, with the metrics that the stored one holds for each protocol."""
    held: dict[str, list[str]] = {}
    if stored is not None:
        held = {protocol: list(dict.fromkeys(own["metric"])) for protocol, own in stored.groupby("protocol")}

    def wanted(conditions: Mapping[str, str]) -> Sequence[str]:
        return metrics or held.get(conditions["protocol"]) or DEFAULTS[conditions["scenario"]]

    results = loaded.load(paths)
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


def _refuse_variants(table: pd.DataFrame, manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """Two versions of a method in one folder, say: which of them is the fresh result?"""
    runs = table.drop_duplicates("run_id")
    facts: dict[tuple[str, ...], dict[str, str]] = {}
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
        names_then, names_now = (", ".join(sorted(set(table["protocol"]))) for table in (then, now))
        return f"{baseline} is of {names_then}, these results are of {names_now}"
    common = then.merge(now)
    for protocol in sorted(protocols - set(common["protocol"])):
        row_then, row_now = (table[table["protocol"] == protocol].iloc[0] for table in (then, now))
        how = ", ".join(
            f"{column} {row_now[column] or 'none'}, in {baseline} {row_then[column] or 'none'}"
            for column in SHARED
            if row_then[column] != row_now[column]
        )
        return f"{protocol} cannot be compared: {how}"
    for conditions in common.to_dict("records"):
        weights_then, weights_now = _weights(stored, conditions), _weights(fresh, conditions)
        if weights_then and weights_now and weights_then != weights_now:
            how = f"weights {conditions['pretrained']} are {' '.join(weights_now)}, in {baseline} {' '.join(weights_then)}"
            return f"{conditions['protocol']} cannot be compared: {how}"
    return None


def compare(baseline: Path, stored: pd.DataFrame, fresh: pd.DataFrame, tolerance: Tolerance) -> Comparison:
    """Row by row; both tables in the form of a baseline."""
    partners = _partners(stored, fresh)
    now = {(*_key(row), row.metric): row for row in fresh.itertuples()}
    changes = []
    notes: dict[str, None] = {}  # each once, in the order in which they are found
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
    return Comparison(baseline, changes, [*_held_out(fresh), *notes], _versions(stored, fresh))


def _held_out(fresh: pd.DataFrame) -> list[str]:
    """A note on every protocol whose numbers are none of test images."""
    pairs = fresh[["protocol", "limits"]].drop_duplicates().itertuples(index=False)
    return [f"{row.protocol}: {restrictions(row.limits)}" for row in pairs if validation_part(row.limits)]


def _change(then: Row, now: Row, tolerance: Tolerance) -> Change:
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
    verdict = _verdict(gain, allowed)
    if shared or (own and verdict != "regression"):
        verdict = "changed"
    method = label(then.method, then.overrides)
    return Change(_shared(then), method, then.metric, verdict, then.mean, now.mean, allowed, (*shared, *own), not shared)


def _verdict(gain: float, allowed: float) -> Verdict:
    """Of two numbers that may be compared."""
    if gain < -allowed - ROUNDING:
        return "regression"
    return "improvement" if gain > allowed + ROUNDING else "within"


def _shared(row: Row) -> dict[str, str]:
    return {column: getattr(row, column) for column in SHARED}


def _seeds(then: str, now: str) -> str:
    """Which order/seed one side has and the other has not."""
    seeds_then, seeds_now = then.split(), now.split()
    lost = [seed for seed in seeds_then if seed not in seeds_now]
    added = [seed for seed in seeds_now if seed not in seeds_then]
    alone = [("the baseline", lost), ("these results", added)]
    said = "; ".join(f"only in {side} {' '.join(seeds)}" for side, seeds in alone if seeds)
    return f"other order/seed than the baseline ({said})"


def _versions(stored: pd.DataFrame, fresh: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(Python or library, version of the baseline, version now)."""
    then, now = _versions_of(stored), _versions_of(fresh)
    names = dict.fromkeys([*run_facts.VERSIONS, *then, *now])
    return [(name, then.get(name, run_facts.NOT_STATED), now.get(name, run_facts.NOT_STATED)) for name in names]


def _versions_of(table: pd.DataFrame) -> dict[str, str]:
    """Python or library -> its version; several of one are joined."""
    found: dict[str, dict[str, None]] = {}
    for cell in dict.fromkeys(table["versions"]):
        for name, value in baselines.separated(cell).items():
            found.setdefault(name, {}).update(dict.fromkeys(value.split(" and ")))
    return {name: " and ".join(own) for name, own in found.items()}


def _key(row: Row) -> tuple[str, ...]:
    return tuple(getattr(row, column) for column in CONDITIONS)


def _weights(table: pd.DataFrame, conditions: Mapping[str, str]) -> list[str]:
    """Which weights the rows under these conditions were made with, as far as it is known."""
    own = table[(table[SHARED] == pd.Series(conditions)).all(axis=1)]
    return sorted(set(" ".join(own["weights"]).split()))


def _partners(stored: pd.DataFrame, fresh: pd.DataFrame) -> dict[tuple[str, ...], tuple[str, ...]]:
    """From the conditions of a baseline row to those of the fresh row that takes its place.

    Equal ones first. Of what is left, a method that has one row on either side is the same run, changed: first where only
    its hyper-parameters differ, so that what that does to the numbers is seen, then where other conditions do.
    """
    then, now = ([_key(row) for row in table.drop_duplicates(CONDITIONS).itertuples()] for table in (stored, fresh))
    partners = {key: key for key in set(then) & set(now)}
    without_overrides = [name for name in CONDITIONS if name != "overrides"]
    for kept in (without_overrides, ["protocol", "method"]):
        waiting_then = _alike([key for key in then if key not in partners], kept)
        taken = set(partners.values())
        waiting_now = _alike([key for key in now if key not in taken], kept)
        for common, keys in waiting_then.items():
            candidates = waiting_now.get(common, [])
            if len(keys) == len(candidates) == 1:
                partners[keys[0]] = candidates[0]
    return partners


def _alike(keys: Sequence[tuple[str, ...]], columns: Sequence[str]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """The conditions of rows, those together that are equal in these columns."""
    places = [CONDITIONS.index(column) for column in columns]
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in keys:
        found.setdefault(tuple(key[place] for place in places), []).append(key)
    return found
