"""Leaderboards: the runs of many results folders and of files that `bench publish` wrote, ranked under equal conditions.

A place holds what one person or folder measured of one method with one code, one set of versions and one device, under one set
of conditions; only its own seeds are averaged. Runs meet in a ranking only if everything that voids a comparison is equal, the
digests of weights and images among it, where they are known. A method that learned all tasks at once has no rank.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.reports.formats import Table, TableCell, counted, percent
from bench.results import records, run_facts
from bench.results.conditions import SHARED, heading, label
from bench.results.groups import MethodRuns, comparable
from bench.results.loaded import Results, load
from bench.results.measured import files
from bench.results.measured.groups import MeasuredMethod, grouped
from bench.results.measured.schema import MeasuredRun
from bench.results.metrics import DEFAULTS, METRICS
from bench.results.run_data import TASK_INCREMENTAL, RunData
from bench.results.run_folder import MANIFEST, RECORDS, RunFolder
from bench.system.digests import of_plain_data
from bench.system.files import file_digest
from bench.system.progress import followed

IMAGES, WEIGHTS = "images", "weights"  # digests that belong to the conditions beside those of the records
Said = Callable[[Path], str]  # how a folder is called
Made = tuple[str, RunData, tuple[int, int]]  # a run's id, its data, its seeds


@dataclass(frozen=True)
class Place:
    """One row of a leaderboard."""

    conditions: dict[str, str]  # SHARED, and the digests of weights and images
    method: str  # as the tables print it
    who: str
    when: str
    runs: list[RunData]
    seeds: list[tuple[int, int]]  # (order seed, seed) of each run
    made_with: dict[str, str]  # versions and device
    settings: dict[str, str]  # version of the method and its hyper-parameters
    code: str  # start of the digest of the method's source
    run_ids: list[str]

    @property
    def joint(self) -> bool:
        return self.runs[0].joint

    def numbers(self, metric: str) -> list[float]:
        """Of every run for which it is available."""
        values = [float(METRICS[metric].function(run)) for run in self.runs]
        return [value for value in values if not np.isnan(value)]

    def mean(self, metric: str) -> float:
        values = self.numbers(metric)
        return fmean(values) if values else float("nan")


@dataclass
class Board:
    """The places under one set of conditions, from best to worst; those that are not ranked last."""

    conditions: dict[str, str]
    places: list[Place]
    ranks: list[int | None] = field(default_factory=list)  # of each place

    @property
    def metrics(self) -> Sequence[str]:
        return DEFAULTS[self.conditions["scenario"]]

    @property
    def final(self) -> str:
        """The metric that ranks."""
        return "mtil_last" if self.conditions["scenario"] == TASK_INCREMENTAL else "last"

    @property
    def heading(self) -> str:
        return heading(self.conditions, also=("exemplars", "templates"))


def boards(paths: Sequence[Path], said: Said = str) -> list[Board]:
    """One leaderboard for every set of conditions, those of one protocol together. said: how a folder is called."""
    published = _of_files(path for path in paths if path.is_file())
    folders = [path for path in paths if not path.is_file()]
    for path in folders:
        if not path.exists():
            raise BenchError(f"{path}: no such file or folder; bench run writes results, bench publish files of them")
    known = {(run["run_id"], run["records_sha256"]) for run in published}
    places = [_of_published(theirs) for theirs in grouped(published)]
    read: set[str] = set()  # runs, so that one that lies below two of the paths, or was copied there, counts once
    for path in followed(folders, "reading folders", len(folders)):
        places += _of_folder(path, said(path), known, read)
    if not places:
        raise BenchError(f"{', '.join(map(str, paths))}: no finished run there; bench run writes them")
    found: dict[tuple[str, ...], list[Place]] = {}
    for place in places:
        found.setdefault(_key(place.conditions), []).append(place)
    ranked = [_ranked(own) for own in found.values()]
    return sorted(ranked, key=lambda board: (board.conditions["protocol"], -len(board.places), board.heading))


def _key(conditions: Mapping[str, str]) -> tuple[str, ...]:
    """What must be equal. A file of weights may have any name: where their digest is known, it alone counts."""
    named = {**conditions, "pretrained": ""} if conditions[WEIGHTS] != run_facts.NOT_STATED else conditions
    return tuple(str(named[name]) for name in (*SHARED, WEIGHTS, IMAGES))


def _ranked(places: list[Place]) -> Board:
    board = Board(places[0].conditions, [])
    order: dict[bool, list[Place]] = {True: [], False: []}  # by: is it ranked?
    for place in places:
        order[not place.joint and not np.isnan(place.mean(board.final))].append(place)
    for own in order.values():
        own.sort(key=lambda place: (-np.nan_to_num(place.mean(board.final), nan=-1.0), place.method, place.who))
    board.places = order[True] + order[False]
    printed = [percent(place.mean(board.final)) for place in order[True]]
    board.ranks = [1 + printed.index(text) for text in printed]  # equal numbers share a rank
    board.ranks += [None] * len(order[False])
    return board


# -- where places come from -------------------------------------------------------------------------------------


def _of_files(paths: Iterable[Path]) -> list[MeasuredRun]:
    """The rows of published files; BenchError unless their numbers hold together."""
    found: dict[tuple[str, str], MeasuredRun] = {}
    for path in paths:
        if not files.is_measured(path):
            raise BenchError(f"{path}: not a file that bench publish has written; give folders of results, or such files")
        runs = files.read(path)
        if complaint := next(files.complaints(runs), None):
            raise BenchError(f"{path}: {complaint}; bench publish --check says more")
        for run in runs:
            found.setdefault((run["who"], run["row_sha256"]), run)
    return list(found.values())


def _of_published(theirs: MeasuredMethod) -> Place:
    versions = {name: theirs[name] for name in ("bench", "python", "torch", "open_clip", "device")}
    identity = theirs.runs[0].identity
    return Place(
        conditions=theirs.conditions | {WEIGHTS: theirs["weights_digest"], IMAGES: theirs["images"]},
        method=theirs.label,
        who=theirs["who"],
        when=theirs.when,
        runs=[run.data for run in theirs.runs],
        seeds=[run.seeds for run in theirs.runs],
        made_with=versions,
        settings=run_facts.settings_and_version({"identity": identity}),
        code=theirs["source"],
        run_ids=[run["run_id"] for run in theirs.runs],
    )


def _of_folder(path: Path, who: str, known: set[tuple[str, str]], read: set[str]) -> list[Place]:
    """The runs of a results folder, without those that stand in a published file (known) and those that were read already."""
    results = load([path])
    lie = {folder.name: folder for file in records.find(path) if _carried_out(folder := file.parent.resolve()) not in read}
    read |= {_carried_out(folder) for folder in lie.values()}
    days = {run_id: _day(folder) for run_id, folder in lie.items() if RunFolder(folder).finished}
    places = []
    for group in comparable(results.table):
        for own in group.methods:
            for made in _alike(own, results, known, lie):
                places.append(_of_runs(made, group.conditions, results, who, days))
    return places


def _carried_out(folder: Path) -> str:
    """What tells a run from the same one carried out elsewhere: its manifest holds the seconds it took. A copy has the same."""
    manifest = folder / MANIFEST
    return file_digest(manifest) + file_digest(folder / RECORDS) if manifest.is_file() else str(folder)


def _day(folder: Path) -> str:
    """On which a run's manifest was written, as the file system has it: a run itself holds no date."""
    written = (folder / MANIFEST).stat().st_mtime
    return datetime.datetime.fromtimestamp(written, datetime.UTC).date().isoformat()


def _alike(own: MethodRuns, results: Results, known: set[tuple[str, str]], lie: Mapping[str, Path]) -> list[list[Made]]:
    """The runs of a method in parts that differ in nothing but their seeds."""
    parts: dict[tuple[str, ...], list[Made]] = {}
    for run_id, run, seeds in zip(own.run_ids, own.runs, own.seeds):
        manifest = results.manifests.get(run_id, {})
        if run_id not in lie or (run_id, manifest.get("checksums", {}).get(RECORDS)) in known:
            continue
        facts = [*_made_with(manifest).values(), run_facts.code(manifest), _weights(manifest), _images(manifest)]
        parts.setdefault((label(own.method, own.overrides), *facts), []).append((run_id, run, seeds))
    return list(parts.values())


def _of_runs(made: Sequence[Made], conditions: Mapping[str, str], results: Results, who: str, days: Mapping[str, str]) -> Place:
    first = results.manifests.get(made[0][0], {})
    row = results.table[results.table["run_id"] == made[0][0]].iloc[0]
    when = sorted({days[run_id] for run_id, _, _ in made if run_id in days})
    return Place(
        conditions=_without_digests(conditions) | {WEIGHTS: _weights(first), IMAGES: _images(first)},
        method=label(str(row["method"]), str(row["overrides"])),
        who=who,
        when=" to ".join(dict.fromkeys([when[0], when[-1]])) if when else run_facts.NOT_STATED,
        runs=[run for _, run, _ in made],
        seeds=[seeds for _, _, seeds in made],
        made_with=_made_with(first),
        settings=run_facts.settings_and_version(first),
        code=run_facts.code(first) or run_facts.NOT_STATED,
        run_ids=[run_id for run_id, _, _ in made],
    )


def _without_digests(conditions: Mapping[str, str]) -> dict[str, str]:
    """Without what bench.results.run_facts.set_apart has added: here the digests are conditions of their own."""
    return {name: value.split(", images ")[0].split(", weights ")[0] for name, value in conditions.items()}


def _made_with(manifest: Mapping[str, Any]) -> dict[str, str]:
    environment = manifest.get("environment", {})
    keys = {"bench": "bench", "python": "python", "torch": "torch", "open_clip": "open_clip_torch", "device": "device"}
    return {name: str(environment.get(key) or run_facts.NOT_STATED) for name, key in keys.items()}


def _weights(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("weights_digest") or run_facts.NOT_STATED)


def _images(manifest: Mapping[str, Any]) -> str:
    images = manifest.get("images")
    return of_plain_data(images) if images else run_facts.NOT_STATED


# -- from a board to a table ------------------------------------------------------------------------------------


def to_table(board: Board) -> Table:
    """A row a place: method, rank, its numbers, who, when and with what."""
    titles = [METRICS[name].title for name in board.metrics]
    spread = "mean ± standard deviation over runs" if any(len(place.runs) > 1 for place in board.places) else "one run a row"
    table = Table(
        caption=board.heading,
        reading=f"Percent, {spread}; ranked by {METRICS[board.final].title}.",
        header=["method", "rank", *titles, "runs", "who", "when", "version", "device"],
        rows=[],
        notes=_notes(board),
        conditions=board.conditions,
    )
    for place, rank in zip(board.places, board.ranks):
        sign = " ‡" if place.joint else ""
        numbers = [_number(place.numbers(name)) for name in board.metrics]
        made = [
            place.who,
            place.when,
            f"bench {place.made_with['bench']}, torch {place.made_with['torch']}",
            place.made_with["device"],
        ]
        cells = [place.method + sign, "-" if rank is None else str(rank), *numbers, str(len(place.runs)), *made]
        table.rows.append([TableCell(text) for text in cells])
        table.data.append({"rank": rank, "method": place.method, "who": place.who, "when": place.when, "runs": len(place.runs),
                           **{name: place.mean(name) for name in board.metrics}})  # fmt: skip
    return table


def _number(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return percent(fmean(values)) + (f" ± {percent(stdev(values))}" if len(values) > 1 else "")


def _notes(board: Board) -> list[str]:
    notes = []
    lower = [METRICS[name].title for name in board.metrics if not METRICS[name].higher_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}")
    if any(place.joint for place in board.places):
        notes.append("‡ learned all tasks at once (upper bound), not ranked")
    if any(not place.numbers(name) for place in board.places for name in board.metrics):
        notes.append("a dash: not available")
    orders = {frozenset(order for order, _ in place.seeds) for place in board.places}
    if len(orders) > 1:
        notes.append("class orders differ between rows, compare with care")
    few = [place for place in board.places if len(place.runs) == 1]
    if few and len(few) < len(board.places):
        notes.append(f"{counted(len(few), 'row')} of one run: how far it varies over seeds is not known")
    return notes
