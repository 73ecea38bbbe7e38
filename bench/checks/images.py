"""The part of `bench doctor` that asks: are the images still there from which finished runs were made?

A result stays what it is when images move on, but nobody can repeat it, and the same command would run on others. So it is
said, and is nothing wrong.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.checks.diagnosis import Diagnosis
from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.results import records
from bench.results.run_folder import finished_runs
from bench.streams import identity as stream_identity
from bench.streams import names as protocol_names

SHOWN = 5  # runs that are named in a line


def examine(results: Path, folders: Folders, diagnosis: Diagnosis) -> None:
    diagnosis.section("images of finished runs")
    found: dict[str, list[str]] = {}  # what became of the images -> runs
    compared, earlier = 0, 0
    now: dict[tuple, Any] = {}
    for run in finished_runs(results):
        try:
            manifest = records.read_manifest(run.path)
        except BenchError:
            continue  # said with the results
        if manifest.get("content") == "pinned" or records.is_synthetic(manifest["identity"]["limits"]):
            compared += 1
            continue
        if not isinstance(manifest.get("images"), Mapping):
            earlier += 1
            continue
        compared += 1
        for complaint in _gone(manifest, folders, now):
            found.setdefault(complaint, []).append(str(run.path.relative_to(results)))
    for complaint, runs in found.items():
        more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
        diagnosis.note(f"{complaint}: {', '.join(runs[:SHOWN])}{more}")
    if earlier:
        diagnosis.note(f"{earlier} finished runs of an earlier version do not say from which images they were made")
    if compared and not found:
        diagnosis.fine(f"{compared} finished runs: their images are there as they were")


def _gone(manifest: Mapping[str, Any], folders: Folders, now: dict[tuple, Any]) -> list[str]:
    """One sentence for each data set whose images are not there as a run has seen them."""
    given, identity = manifest["protocol_given"], manifest["identity"]
    limits = dict(part.split("=", 1) for part in identity["limits"].split(";") if "=" in part)
    limits_now = tuple(int(limits[name]) if name in limits else None for name in ("train", "test"))
    key = (given, identity["order_seed"], limits_now)
    if key not in now:
        try:
            protocol = protocol_names.find(given)
            now[key] = stream_identity.present(protocol, identity["order_seed"], folders, *limits_now)
        except BenchError as error:
            now[key] = str(error)
    names = ", ".join(manifest["images"])
    if now[key] is None:
        return [f"made from images that are no longer there ({names}: nothing in {folders.data})"]
    if isinstance(now[key], str):
        return [f"made from images that are no longer there ({now[key]})"]
    changed = [name for name, splits in manifest["images"].items() if now[key].get(name) != splits]
    where = f"asked for as {given}" if given.startswith("folder:") else f"in {folders.data}"
    names = ", ".join(changed)
    return [f"made from images that are no longer there (those of {names}, {where}, are others now)"] if changed else []
