"""Who meets whom in a comparison: two sides, the conditions that both were run under, and their runs pair by pair.

Runs meet only under the same conditions (protocol version, backbone, weights, templates, exemplars, image limits) and
with the same class order and seed. What has no partner, and in what partners differ, is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError, unknown_name
from bench.results import loaded, run_facts
from bench.results.conditions import SEEDS, SHARED, heading
from bench.results.loaded import Results
from bench.results.run_table import repeated_run, values
from bench.system import method_source, registry
from bench.system.method_source import Source

DIGESTS = {"weights_digest": "weights", "images_digest": "images"}  # of a manifest: they can differ under equal conditions


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str  # as a caption prints it
    runs: pd.DataFrame  # bench.results.run_table.values of its runs
    results: Results  # where they come from
    folder: bool

    def only(self, label: str) -> "Side":
        name = f"{label} in {self.name}" if self.folder else label
        return Side(name, self.runs[self.runs["label"] == label], self.results, self.folder)

    @property
    def labels(self) -> list[str]:
        """The methods of which it has runs, as the tables print them."""
        return sorted(set(self.runs["label"]))

    @property
    def conditions(self) -> pd.DataFrame:
        """What its runs were made under, each set of conditions once."""
        return self.runs[SHARED].drop_duplicates()

    def manifests(self, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Those of the runs that have one."""
        return [self.results.manifests[run_id] for run_id in run_ids if run_id in self.results.manifests]


def sides(a: str, b: str, paths: Sequence[Path], metrics: Sequence[str] | None) -> tuple[Side, Side]:
    """A and B: each a method as the tables print it, found at or below the paths, or a folder of runs."""
    read: dict[tuple[Path, ...], tuple[Results, pd.DataFrame]] = {}  # two methods come from the same runs: read once

    def side(name: str) -> Side:
        # the package of a method being written lies in a folder of its name; ./NAME is the folder in any case
        folder = Path(name).exists() and name not in registry.names("method")
        places = (Path(name),) if folder else tuple(paths)
        if places not in read:
            results = loaded.load(places)
            read[places] = results, values(results.table, metrics, results.samples_of)
        results, runs = read[places]
        found = Side(name, runs, results, folder)
        if folder:
            return found
        if name not in found.labels:
            raise unknown_name("method or folder", name, found.labels)
        return found.only(name)

    return side(a), side(b)


def opponents(a: Side, b: Side) -> tuple[list[tuple[Side, Side]], list[str]]:
    """One method against one other; of two folders with several methods, each method against itself, and a note on each
    that the other folder does not hold."""
    if len(a.labels) == len(b.labels) == 1:
        return [(a.only(a.labels[0]), b.only(b.labels[0]))], []
    if not (a.folder and b.folder):
        several = a if a.folder else b
        raise BenchError(f"{several.name} holds several methods ({', '.join(several.labels)}); name a folder with one")
    common = sorted(set(a.labels) & set(b.labels))
    if not common:
        raise BenchError(f"no method in common: {a.name} holds {', '.join(a.labels)}; {b.name} holds {', '.join(b.labels)}")
    return [(a.only(label), b.only(label)) for label in common], [*_only_in(a, b), *_only_in(b, a)]


def _only_in(side: Side, partner: Side) -> list[str]:
    """A note on every method that only this folder holds, with the variants of it that the other one has."""
    notes = []
    for label in side.labels:
        if label not in partner.labels:
            close = [theirs for theirs in partner.labels if theirs.split(" (")[0] == label.split(" (")[0]]
            instead = f"; the other folder has {', '.join(close)}" if close else ""
            notes.append(f"only in {side.name}, not compared: {label}{instead}")
    return notes


# -- conditions -------------------------------------------------------------------------------------------------


def shared_conditions(a: Side, b: Side) -> list[dict[str, str]]:
    """The conditions that both were run under; BenchError if there are none."""
    shared = a.conditions.merge(b.conditions).to_dict("records")
    if not shared:
        raise BenchError(_mismatch(a, b))
    return shared


def _mismatch(a: Side, b: Side) -> str:
    """Why two sides share no conditions: the first column in which they have nothing in common."""
    for column in SHARED:
        ours, theirs = (sorted(set(side.runs[column])) for side in (a, b))
        if not set(ours) & set(theirs):
            said = [", ".join(value or "none" for value in found) for found in (ours, theirs)]
            return f"{a.name} and {b.name} cannot be compared: {column} {said[0]} against {said[1]}"
    return f"{a.name} and {b.name} cannot be compared: no run of one has the conditions of a run of the other"


def on_one_side(side: Side, partner: Side, shared: Sequence[Mapping[str, str]]) -> list[str]:
    """A note on every set of conditions under which only this side was run, with what differs."""
    notes = []
    theirs = partner.conditions.to_dict("records")
    for conditions in side.conditions.to_dict("records"):
        if conditions in list(shared):
            continue
        same = [candidate for candidate in theirs if candidate["protocol"] == conditions["protocol"]]
        if not same:
            notes.append(f"only {side.name} was run on {conditions['protocol']}")
            continue
        differing = [[column for column in SHARED if candidate[column] != conditions[column]] for candidate in same]
        closest, columns = min(zip(same, differing), key=lambda pair: len(pair[1]))
        how = ", ".join(f"{column} {conditions[column] or 'none'} against {closest[column] or 'none'}" for column in columns)
        notes.append(f"only {side.name} was run on {heading(conditions)}: {how} of {partner.name}")
    return notes


# -- pairs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """The runs of A and B that may be compared."""

    table: pd.DataFrame  # a row for every (order_seed, seed) that both have; columns of A end in _a, those of B in _b
    notes: list[str]  # what was left out, and in what the partners differ beside what is compared


def paired(a: Side, b: Side, conditions: Mapping[str, str]) -> Pairs:
    """The pairs under these conditions; BenchError if there are none."""
    runs_a, runs_b = (_under(side, conditions) for side in (a, b))
    table = runs_a.merge(runs_b, on=SEEDS, suffixes=("_a", "_b")).sort_values(SEEDS, ignore_index=True)
    if not len(table):
        seeds_a, seeds_b = ("; ".join(_seeds(runs)) for runs in (runs_a, runs_b))
        where = f"on {conditions['protocol']}: {seeds_a} against {seeds_b}"
        raise BenchError(f"{a.name} and {b.name} have no seeds in common {where}")
    refused = _refused(a, b, table)
    if len(refused) == len(table):
        raise BenchError(next(iter(refused.values())))
    kept = table.drop(index=list(refused)).reset_index(drop=True)
    notes = [*_without_partner("A", runs_a, table), *_without_partner("B", runs_b, table)]
    notes += [f"left out: {why}" for why in refused.values()]
    return Pairs(kept, [*notes, *_made_otherwise(a, b, kept)])


def _under(side: Side, conditions: Mapping[str, str]) -> pd.DataFrame:
    """The runs of a side under these conditions, no two of them with the same seeds."""
    runs = side.runs[(side.runs[SHARED] == pd.Series(conditions)).all(axis=1)]
    if repeated := repeated_run(runs):
        raise BenchError(f"{repeated}; name the folder of one of them")
    return runs


def _seeds(runs: pd.DataFrame) -> list[str]:
    return [f"order {order} seed {seed}" for order, seed in sorted(zip(runs["order_seed"], runs["seed"]))]


def _without_partner(letter: str, runs: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    met = set(zip(pairs["order_seed"], pairs["seed"]))
    alone = runs[[seeds not in met for seeds in zip(runs["order_seed"], runs["seed"])]]
    return [f"left out: {words} of {letter}, without a partner of equal class order and seed" for words in _seeds(alone)]


def _refused(a: Side, b: Side, pairs: pd.DataFrame) -> dict[int, str]:
    """Row of a pair -> why it is none: its runs have seen other weights or images under the same name."""
    refused = {}
    for pair in pairs.itertuples():
        manifest_a, manifest_b = a.results.manifests.get(pair.run_id_a, {}), b.results.manifests.get(pair.run_id_b, {})
        for key, what in DIGESTS.items():
            if manifest_a.get(key) and manifest_b.get(key) and manifest_a[key] != manifest_b[key]:
                ids = f"{pair.run_id_a} and {pair.run_id_b}"
                refused[pair.Index] = f"runs {ids} saw different {what} under the same name; run one of them again"
    return refused


def _made_otherwise(a: Side, b: Side, pairs: pd.DataFrame) -> list[str]:
    """In what the runs of a pair differ beside what is compared: of one method its settings, of any two the machine."""
    notes = []
    for letter, side, run_ids in (("A", a, pairs["run_id_a"]), ("B", b, pairs["run_id_b"])):
        if mixed := run_facts.mixtures(side.manifests(run_ids)):
            notes.append(f"{letter}: averaged over runs that differ in {', '.join(mixed)}")
    for pair in pairs.itertuples():
        manifest_a, manifest_b = a.results.manifests.get(pair.run_id_a), b.results.manifests.get(pair.run_id_b)
        if manifest_a and manifest_b:
            notes += _differences(manifest_a, manifest_b, same_method=pair.method_a == pair.method_b)
    return list(dict.fromkeys(notes))


def _differences(manifest_a: Mapping[str, Any], manifest_b: Mapping[str, Any], same_method: bool) -> list[str]:
    facts_a, facts_b = _machine(manifest_a), _machine(manifest_b)
    notes = []
    if same_method:
        facts_a = run_facts.settings_and_version(manifest_a) | facts_a
        facts_b = run_facts.settings_and_version(manifest_b) | facts_b
        source_a, source_b = Source.from_json(manifest_a.get("source")), Source.from_json(manifest_b.get("source"))
        if source_a and source_b and (modules := method_source.changed_modules(source_a, source_b)):
            notes.append(f"the method's code differs: {', '.join(modules)}")
    return notes + [f"A -> B: {line}" for line in run_facts.differing(facts_a, facts_b)]


def _machine(manifest: Mapping[str, Any]) -> dict[str, str]:
    identity = manifest.get("identity", {})
    device = {"device": str(identity.get("device", "")), "precision": str(identity.get("precision", "float32"))}
    device |= {"accelerate": str(identity.get("accelerate", "none"))}
    return device | run_facts.versions([manifest])
