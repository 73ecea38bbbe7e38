"""With which versions and on which devices the runs of a page were made, for its top."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bench.reports.formats import counted
from bench.results.run_facts import NOT_STATED, VERSIONS

FACTS = {"bench": "bench", **VERSIONS, "device": "device", "threads": "threads"}  # as the page says it -> key of the environment


def made_with(manifests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Fact -> its value; where runs differ, all values with their numbers of runs, the most frequent first.

    >>> cpu, gpu = ({"environment": {"torch": "2.15.0", "device": name}} for name in ("cpu x86_64", "cuda H100"))
    >>> made_with([cpu, gpu, cpu])
    {'torch': '2.15.0', 'device': 'cpu x86_64 (2 runs), cuda H100 (1 run)'}
    """
    runs = list(manifests)
    found = {name: Counter(_value(run, key) for run in runs) for name, key in FACTS.items()}
    return {name: _said(values) for name, values in found.items() if set(values) - {NOT_STATED}}


def _value(manifest: Mapping[str, Any], key: str) -> str:
    """Of a run that was continued elsewhere, both."""
    places = [place for place in (manifest.get("begun_in"), manifest.get("environment")) if isinstance(place, Mapping)]
    values = dict.fromkeys(str(place[key]).strip() for place in places if place.get(key) not in (None, ""))
    return " then ".join(values) or NOT_STATED


def _said(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({counted(number, 'run')})" for value, number in sorted(values.items(), key=lambda pair: -pair[1]))
