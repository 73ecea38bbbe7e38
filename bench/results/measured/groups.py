"""Measured rows -> the runs of one method that one person made under one set of conditions, with one code and one machine.

Only such runs are averaged. Anything in which two rows differ, beside their seeds, keeps them apart.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results import run_facts
from bench.results.conditions import SEEDS, SHARED, label
from bench.results.measured.schema import MeasuredRun
from bench.results.records import CONDITIONS
from bench.system.digests import of_plain_data

MADE_BY = ("weights_digest", "images", "reference", "source", "bench", "python", "torch", "open_clip", "numpy", "cuda", "device")


@dataclass(frozen=True)
class MeasuredMethod:
    """Runs that differ in nothing but their seeds."""

    runs: Sequence[MeasuredRun]

    def __getitem__(self, column: str) -> str:
        return self.runs[0][column]

    @property
    def label(self) -> str:
        return label(self["method"], self["overrides"])

    @property
    def conditions(self) -> dict[str, str]:
        return {name: self[name] for name in SHARED}

    @property
    def orders(self) -> set[int]:
        return {order for order, _ in (run.seeds for run in self.runs)}

    @property
    def joint(self) -> bool:
        """Did it learn all tasks at once?"""
        return self.runs[0].data.joint

    @property
    def when(self) -> str:
        days = sorted({run["published"] for run in self.runs})
        return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"

    @property
    def source(self) -> str:
        """Who, when, and with what."""
        versions = f"bench {self['bench']}, Python {self['python']}, torch {self['torch']}, open_clip {self['open_clip']}"
        seeds = ", ".join(f"{order}/{seed}" for order, seed in sorted(run.seeds for run in self.runs))
        return f"{self['who']}, handed in {self.when}: {versions}, {self['device']}; order seed/seed {seeds}"


def grouped(runs: Sequence[MeasuredRun]) -> list[MeasuredMethod]:
    """The runs of equal making, in the order in which they come."""
    found: dict[tuple[str, ...], list[MeasuredRun]] = {}
    for run in runs:
        asked = {name: value for name, value in run.identity.items() if name not in SEEDS}
        key = (run["who"], json.dumps(asked, sort_keys=True), *(run[name] for name in (*CONDITIONS, *MADE_BY)))
        found.setdefault(key, []).append(run)
    return [MeasuredMethod(own) for own in found.values()]


def differences(theirs: MeasuredMethod, conditions: Mapping[str, str], manifests: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What forbids a comparison with a table of own runs: name -> theirs against the table's.

    conditions: the table's; manifests: of some of its runs, for what only those tell. Weights are compared by their digests
    where these are known, since a file may have any name.
    """
    found = {}
    for name in SHARED:
        here = conditions[name].split(", images ")[0].split(", weights ")[0].replace("nan", "")
        if here != theirs[name]:
            found[name] = f"{theirs[name] or 'none'}, here {here or 'none'}"
    weights = {str(manifest.get("weights_digest")) for manifest in manifests} - {"None", ""}
    if weights:
        found.pop("pretrained", None)
    digests = {"weights_digest": weights, "images": {_images(manifest) for manifest in manifests} - {""}}
    for name, own in digests.items():
        if own and theirs[name] not in own:
            found[name.removesuffix("_digest")] = f"{theirs[name][:8]}, here {' and '.join(sorted(one[:8] for one in own))}"
    return found


def differences_in_method(theirs: MeasuredMethod, manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """In which version and hyper-parameters their method is another one than that of these runs."""
    if not manifests:
        return []
    return run_facts.differing(
        run_facts.settings_and_version({"identity": theirs.runs[0].identity}), run_facts.settings_and_version(manifests[0])
    )


def _images(manifest: Mapping[str, Any]) -> str:
    images = manifest.get("images")
    return of_plain_data(images) if images else ""
