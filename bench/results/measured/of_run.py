"""A finished run as a row of measured results, or the reason why it is none.

What is published carries the name of this harness and of whoever ran it, so every doubt refuses: runs that are not whole, whose
numbers do not follow from their own predictions, on stand-in images, on fewer images, on validation images, and those that
nobody else could repeat, because they need a method, a protocol or a folder that only one machine has.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from bench.errors import BenchError, one_line
from bench.results import records, run_facts
from bench.results.measured.schema import ANONYMOUS, COLUMNS, COST, SCHEMA, MeasuredRun, cells_of
from bench.results.run_folder import MANIFEST, NAMES, RECORDS, SAMPLES, RunFolder
from bench.results.soundness import contradictions, other_files
from bench.system import named_files
from bench.system.digests import of_plain_data

RUN_ID = re.compile(r"[0-9a-f]{16}")
# a slash or a drive at the start of a word: where on somebody's disk something lies
PATH = re.compile(r"""(^|[\s=;,"'(:])(~|\.{1,2})?/[\w.~-]|(^|[\s=;,"'(])[A-Za-z]:[\\/]|\\\\\w""")
VERSIONS = {"bench": "bench", "python": "python", "torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy",
            "cuda": "cuda"}  # fmt: skip


SECONDS = [name for name in COST if name.startswith("seconds")]


def folders(paths: list[Path]) -> list[RunFolder]:
    """The folders of runs at or below the paths, finished or not; those that are hidden are not looked into."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise BenchError(f"{path}: no such folder; bench run writes results")
        for place in [path, *sorted(path.rglob("*"))]:
            below = place.relative_to(path).parts
            if place.is_dir() and not any(part.startswith(".") for part in below) and _holds_a_run(place):
                found[place.resolve()] = None
    return [RunFolder(place) for place in found]


def _holds_a_run(place: Path) -> bool:
    return bool(RUN_ID.fullmatch(place.name)) or any((place / name).exists() for name in NAMES)


def row_of(run: RunFolder, who: str, published: str) -> tuple[MeasuredRun | None, str]:
    """(the row of a run, "") or (None, why it cannot be published)."""
    if not run.finished:
        return None, f"unfinished, it has no {MANIFEST}"
    try:
        if complaint := next(other_files(run), None):
            return None, f"not as it was written: {complaint}"
        stored = Stored(run, records.read_manifest(run.path), records.read_csv(run.records))
        if complaint := next(contradictions(run, stored.manifest, stored.table), None):
            return None, f"not as it was written: {complaint}"
        if why := next(_refusals(stored), None):
            return None, why
        return _row(stored, who, published), ""
    except BenchError as error:
        return None, str(error)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        return None, f"{MANIFEST} is damaged ({type(error).__name__}: {one_line(error)})"


@dataclass(frozen=True)
class Stored:
    """A run that is whole, and what its files hold."""

    run: RunFolder
    manifest: Mapping[str, Any]
    table: pd.DataFrame

    @property
    def overrides(self) -> str:
        return str(self.table["overrides"].iloc[0])

    @property
    def published_overrides(self) -> str:
        """The changed hyper-parameters; of one that names a file the file's own name, its folder is nobody's business."""
        settings = self.manifest["identity"]["settings"]
        parts = []
        for part in self.overrides.split(";"):
            field, equals, value = part.partition("=")
            if named_files.is_digest(settings.get(field)):
                value = PurePath(value.replace("\\", "/")).name
            parts.append(f"{field}{equals}{value}")
        return ";".join(parts)


def _refusals(stored: Stored) -> Iterator[str]:
    identity = stored.manifest["identity"]
    yield from of_conditions(str(identity["protocol"]), str(identity["limits"]))
    yield from _not_stated(stored.manifest)
    yield from paths_in(identity, stored.published_overrides)


def of_conditions(protocol: str, limits: str) -> Iterator[str]:
    """Why numbers under these conditions are none to publish."""
    if any(option.partition("=")[0] == "validation" for option in protocol.split("+")[1:]) or "validation" in limits:
        yield "scored on validation images, not on test images"
    elif limits:
        yield records.restrictions(limits) or f"limits {limits}"


def _not_stated(manifest: Mapping[str, Any]) -> Iterator[str]:
    stated = {"images": manifest.get("images"), "method's source": run_facts.code(manifest)}
    for what, value in (stated | {"versions": manifest.get("environment")}).items():
        if not value:
            yield f"an earlier version has made it, which noted nothing of its {what}; run it again with --fresh"
            return


def paths_in(identity: Mapping[str, Any], overrides: str) -> Iterator[str]:
    """The hyper-parameters that name a place on somebody's disk. Files whose content counts are digests by now."""
    for name, value in identity.get("settings", {}).items():
        if isinstance(value, str) and (re.search(r"[/\\]", value) or value.startswith("~")):
            yield f"its setting {name} names a folder or file of one machine, so that nobody else can repeat it"
            return
    others = {name: value for name, value in identity.items() if name != "settings"} | {"overrides": overrides}
    for name, value in others.items():
        if isinstance(value, str) and PATH.search(value):
            yield f"its {name} names a folder or file of one machine, so that nobody else can repeat it"
            return


def _row(stored: Stored, who: str, published: str) -> MeasuredRun:
    manifest, table = stored.manifest, stored.table
    cells = dict.fromkeys(COLUMNS, "") | {"schema": str(SCHEMA), "who": who or ANONYMOUS, "published": published}
    cells |= {name: str(table[name].iloc[0]) for name in ("run_id", *records.CONDITIONS, "order_seed", "seed")}
    cells |= {"overrides": stored.published_overrides, "identity": json.dumps(manifest["identity"], sort_keys=True)}
    cells |= _environment(manifest) | _cost(manifest.get("cost", {})) | _digests(manifest) | _matrices(table)
    row = MeasuredRun(cells, {})
    same = cells["overrides"] == stored.overrides
    if same and row.records_text() != stored.run.records.read_text(encoding="utf-8"):
        raise BenchError(f"{RECORDS} has another form than this version writes; run it again with --fresh")
    cells["records_sha256"] = row.digest_of_records()
    cells["row_sha256"] = row.digest_of_row()
    return MeasuredRun(cells, row.metrics_from_cells())


def _environment(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Versions and device; of a run that was begun under others, both."""
    places = [place for place in (manifest.get("begun_in"), manifest["environment"]) if place]

    def said(key: str) -> str:
        return " and ".join(dict.fromkeys(str(place.get(key) or run_facts.NOT_STATED) for place in places))

    found = {column: said(key) for column, key in VERSIONS.items()}
    return found | {"device": said("device"), "threads": str(manifest["environment"]["threads"])}


def _cost(cost: Mapping[str, Any]) -> dict[str, str]:
    tasks = cost.get("seconds_per_task")
    found: dict[str, Any] = {name: cost.get(name) for name in COST}
    for name in ("learn", "evaluate"):
        found[f"seconds_{name}"] = sum(task[name] for task in tasks) if tasks else None
    rounded = {name: round(value, 3) if value is not None and name in SECONDS else value for name, value in found.items()}
    return {name: "" if value is None else str(value) for name, value in rounded.items()}


def _digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    reference = manifest.get("reference") or {}
    of_reference = {name: reference[name] for name in ("images_digest", "sentences_digest") if name in reference}
    return {
        "weights_digest": str(manifest["weights_digest"]),
        "images": of_plain_data(manifest["images"]),
        "reference": of_plain_data(of_reference) if of_reference else "",
        "source": run_facts.code(manifest),
        "samples_sha256": manifest["checksums"][SAMPLES],
    }


def _matrices(table: pd.DataFrame) -> dict[str, str]:
    tasks = table.drop_duplicates("eval_task").sort_values("eval_task")
    correct = [
        (int(row.after_task), int(row.eval_task), str(row.candidates), round(row.value * row.n)) for row in table.itertuples()
    ]
    return {
        "tasks": json.dumps(list(tasks["eval_name"]), ensure_ascii=False),
        "test_images": " ".join(str(int(n)) for n in tasks["n"]),
        "correct": cells_of(correct),
    }
