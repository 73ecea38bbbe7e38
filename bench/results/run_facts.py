"""What only manifests tell of runs, and how it keeps apart runs that the records alone would take for equal.

The conditions in records.csv do not hold everything: a method's version, a default that was changed, the digests of weights
and images. Runs that differ in one of these are not averaged and do not meet. `set_apart` writes the difference into the
conditions of the table in memory, so that everything that groups by them keeps such runs apart, and prints by what.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.system import method_source
from bench.system.digests import of_plain_data
from bench.system.method_source import Source

VERSIONS = {"Python": "python", "torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy", "CUDA": "cuda"}
NOT_STATED = "not stated"


def settings_and_version(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What makes another method of a run with the same name: its version and all of its hyper-parameters."""
    identity = manifest.get("identity", {})
    settings = identity.get("settings", {})
    found = {"method version": str(identity.get("method_version", ""))}
    return found | {name: _text(value) for name, value in sorted(settings.items())}


def images(manifest: Mapping[str, Any]) -> str:
    """8 hex digits for the images of the stream; empty where an earlier version has not stored any."""
    found = manifest.get("images")
    return of_plain_data(found)[:8] if isinstance(found, Mapping) and found else ""


def code(manifest: Mapping[str, Any]) -> str:
    """8 hex digits for the text of the method's source; empty where an earlier version has not stored any."""
    source = Source.from_json(manifest.get("source"))
    return hashlib.sha256(json.dumps(dict(source.text), sort_keys=True).encode()).hexdigest()[:8] if source else ""


def weights(manifest: Mapping[str, Any]) -> str:
    """8 hex digits of the weights, or architecture and tag; empty where nothing is said."""
    digest = str(manifest.get("weights_digest", ""))
    return digest[:8] if len(digest) == 64 and set(digest) <= set("0123456789abcdef") else digest


def versions(manifests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The versions of Python and libraries that these runs were made with; several of one are joined."""
    found: dict[str, dict[str, None]] = {name: {} for name in VERSIONS}
    for manifest in manifests:
        for environment in (manifest.get("begun_in"), manifest.get("environment")):
            for name, key in VERSIONS.items():
                if isinstance(environment, Mapping) and environment.get(key):
                    found[name][str(environment[key])] = None
    return {name: " and ".join(own) for name, own in found.items() if own}


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """What differs, as "name then -> now".

    >>> differing({"epochs": "5", "lr": "0.1"}, {"epochs": "3", "lr": "0.1", "decay": "0"})
    ['decay not stated -> 0', 'epochs 5 -> 3']
    """
    names = sorted({*one, *other})
    pairs = [(name, one.get(name, NOT_STATED), other.get(name, NOT_STATED)) for name in names]
    return [f"{name} {then} -> {now}" for name, then, now in pairs if then != now]


def _text(value: Any) -> str:
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


# -- apart ------------------------------------------------------------------------------------------------------


def set_apart(table: pd.DataFrame, manifests: Mapping[str, Mapping[str, Any]], conditions: Sequence[str]) -> pd.DataFrame:
    """The records, with the conditions of runs that only their manifests tell apart made different.

    conditions: those that runs share which are averaged, "method" and "overrides" among them. A run without a manifest, or
    with one that says nothing, counts as equal to the others unless these differ among themselves.
    """
    runs = table.drop_duplicates("run_id")
    runs = runs[runs["run_id"].isin(manifests)]
    if len(runs) < 2:
        return table
    shared = [name for name in conditions if name not in ("method", "overrides")]
    changes: dict[str, dict[str, str]] = {}  # run id -> column -> text
    for column, what, of in (("protocol_version", "images", images), ("pretrained", "weights", weights)):
        for _, own in runs.groupby(shared, sort=False, dropna=False):
            found = {run_id: of(manifests[run_id]) for run_id in own["run_id"]}
            if len(set(found.values()) - {""}) > 1:
                for run_id, value in zip(own["run_id"], own[column]):
                    changes.setdefault(run_id, {})[column] = f"{value}, {what} {found[run_id] or NOT_STATED}"
    for _, own in runs.groupby(list(conditions), sort=False, dropna=False):
        for run_id, text in _variants({run_id: settings_and_version(manifests[run_id]) for run_id in own["run_id"]}).items():
            before = own.loc[own["run_id"] == run_id, "overrides"].iloc[0]
            changes.setdefault(run_id, {})["overrides"] = ";".join(part for part in (str(before or ""), text) if part)
    if not changes:
        return table
    table = table.copy()
    for column in ("protocol_version", "pretrained", "overrides"):
        of_run = {run_id: own[column] for run_id, own in changes.items() if column in own}
        table[column] = [of_run.get(run_id, value) for run_id, value in zip(table["run_id"], table[column])]
    return table


def _variants(facts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Run id -> "name=value;..." for the facts in which the runs differ; empty where they do not."""
    names = sorted({name for own in facts.values() for name in own})
    telling = [name for name in names if len({own.get(name, NOT_STATED) for own in facts.values()}) > 1]
    if not telling:
        return {}
    return {run_id: ";".join(f"{name}={own.get(name, NOT_STATED)}" for name in telling) for run_id, own in facts.items()}


# -- said, but averaged -----------------------------------------------------------------------------------------


def mixtures(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what runs differ that are averaged all the same: device, precision, acceleration, processes, code, versions."""
    if len(manifests) < 2:
        return []
    found = []
    for name, usual in (("device", ""), ("precision", "float32"), ("accelerate", "none"), ("processes", "1")):
        values = sorted({str(manifest.get("identity", {}).get(name, usual)) for manifest in manifests})
        if len(values) > 1:
            found.append(f"{name} ({', '.join(values)})")
    sources = [source for manifest in manifests if (source := Source.from_json(manifest.get("source")))]
    modules = sorted({name for one in sources[1:] for name in method_source.changed_modules(sources[0], one)})
    if modules:
        found.append(f"the method's code ({', '.join(modules)})")
    found += [f"version of {name} ({value})" for name, value in versions(manifests).items() if " and " in value]
    return found
