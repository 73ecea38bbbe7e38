"""What the page says about one group of comparable runs: tables, charts, comparisons, and how to repeat every run."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bench.pictures import series
from bench.pictures.file_names import slug
from bench.pictures.notes import averaged, hollow, where
from bench.pictures.page import charts
from bench.pictures.page.charts import Chart, Curve, Spot
from bench.pictures.page.heat import Heat, heat
from bench.pictures.page.looks import Look
from bench.pictures.page.page_tables import PageTable, page_table
from bench.pictures.page.places import Place
from bench.pictures.page.reproduction import command
from bench.reports import tables
from bench.reports.against import against
from bench.reports.costs import cost_table
from bench.reports.rows import metric_block, task_blocks
from bench.results import accuracy, calibration, published
from bench.results.conditions import ZERO_SHOT
from bench.results.groups import Group, MethodRuns
from bench.results.loaded import Results
from bench.results.metrics import DEFAULTS, METRICS, final_scores
from bench.results.run_data import TASK_AGNOSTIC, RunData
from bench.system.progress import followed

SURE = ("ece", "auroc", "aupr", "fpr95")  # how far a method knows what it knows: metrics of per-image scores
Looks = Mapping[str, Look]


@dataclass(frozen=True)
class ListedRun:
    """One run, as the page lists it."""

    run_id: str
    title: str
    command: str
    manifest: str  # JSON; empty if the records came without one
    folder: str  # where it lay; empty if nobody knows


@dataclass
class Section:
    """Everything about one group."""

    anchor: str
    group: Group
    summary: PageTable
    per_task: list[PageTable]
    certainty: PageTable | None
    cost: PageTable | None
    paired: PageTable | None
    meanings: dict[str, str]  # title of a column -> what it is
    charts: list[Chart]
    matrices: list[Heat]
    reliability: list[Chart]
    looks: dict[str, Look]  # of its methods, in their order
    runs: dict[str, list[ListedRun]] = field(default_factory=dict)  # label of a method -> its runs

    @property
    def name(self) -> str:
        """How links call it."""
        return self.group.protocol + (f" ({self.group.apart})" if self.group.apart else "")


def section(
    number: int,
    group: Group,
    results: Results,
    looks: Looks,
    runs: pd.DataFrame,
    places: Mapping[str, Place],
    reference: str | None,
) -> Section:
    """runs: bench.results.run_table.values of all runs. reference: whom the others are compared with; None: the best."""
    own = results.table[results.table["run_id"].isin(group.run_ids)]
    papers = published.load()
    papers = papers if published.beside(papers, group.conditions) else None
    has_samples = any(results.samples_of(run_id) is not None for run_id in group.run_ids)
    sure = group.with_samples(results.samples_of) if has_samples else None
    metrics = DEFAULTS[group.conditions["scenario"]]
    meanings = {METRICS[name].title: METRICS[name].summary for name in (*metrics, *(SURE if has_samples else ()))}
    read = group.with_baselines()
    per_task = zip(tables.build(own, view="tasks"), task_blocks(group.conditions["scenario"], group.tasks))
    cost = cost_table(group, results)
    paired = against(group, results, runs, reference)
    return Section(
        anchor=f"{number + 1}-{slug(group.protocol)}",
        group=group,
        summary=page_table(tables.build(own, published=papers)[0], read, metric_block(metrics), meanings),
        per_task=[page_table(table, read, block) for table, block in per_task],
        certainty=_certainty(own, results, meanings) if has_samples else None,
        cost=page_table(cost) if cost else None,
        paired=page_table(paired) if paired else None,
        meanings=meanings,
        charts=list(_charts(group, results, looks)),
        matrices=_matrices(group),
        reliability=list(_reliability(sure, looks)) if sure else [],
        looks={own.label: looks[own.label] for own in group.methods},
        runs={own.label: _runs(own, results, places) for own in group.methods},
    )


def _certainty(own: pd.DataFrame, results: Results, meanings: dict[str, str]) -> PageTable:
    table = tables.build(own, metrics=list(SURE), samples_of=results.samples_of)[0]
    return page_table(table, meanings=meanings)


def _runs(own: MethodRuns, results: Results, places: Mapping[str, Place]) -> list[ListedRun]:
    found = []
    for row in own.table.to_dict("records"):
        manifest = results.manifests.get(row["run_id"], {})
        place = places.get(row["run_id"])
        text = json.dumps(manifest, indent=1, ensure_ascii=False) if manifest else ""
        title = f"order seed {row['order_seed']}, seed {row['seed']}"
        line = command(row, manifest, place.results if place else None)
        found.append(ListedRun(row["run_id"], title, line, text, place.folder if place else ""))
    return found


# -- charts -----------------------------------------------------------------------------------------------------


def _charts(group: Group, results: Results, looks: Looks) -> Iterator[Chart]:
    competing = _competing(group, "the classes learned so far compete")
    title = "Accuracy on the tasks learned so far"
    yield from _curves(group, title, competing, lambda run: accuracy.after_each_task(run.learned), looks)
    competing = _competing(group, "all classes of the stream compete")
    yield from _curves(group, "Zero-shot accuracy on the tasks still to come", competing, series.future_accuracy, looks)
    yield from _cost(group, results, looks)


def _curves(group: Group, title: str, note: str, values: Callable[[RunData], np.ndarray], looks: Looks) -> Iterator[Chart]:
    found, drawn = [], []
    for own in group.methods:
        mean, spread = series.mean_and_spread(np.array([values(run) for run in own.runs]))
        if not np.isnan(mean).all():
            found.append(Curve(own.label, looks[own.label], mean, spread))
            drawn.append(own)
    if found:
        yield charts.curves(title, "; ".join([note, averaged(drawn, "band"), *hollow(drawn)]), where(group), found)


def _cost(group: Group, results: Results, looks: Looks) -> Iterator[Chart]:
    spots, drawn, reference, devices = [], [], None, set()
    for own in group.methods:
        mean, spread = (float(value) for value in series.mean_and_spread(own.last))
        if own.method == ZERO_SHOT:
            reference = reference or (own.label, looks[own.label], mean)
            continue
        manifests = [results.manifests.get(run_id, {}) for run_id in own.run_ids]
        seconds = float(np.mean([series.training_seconds(manifest) for manifest in manifests]))
        if not np.isnan(seconds) and not np.isnan(mean):
            # a method that learns nothing measurable still has a place on a logarithmic axis
            spots.append(Spot(own.label, looks[own.label], max(seconds, 1e-3), mean, spread))
            drawn.append(own)
            devices |= {manifest.get("environment", {}).get("device", "unknown device").strip() for manifest in manifests}
    if spots:
        note = "; ".join([f"time spent in learning on {', '.join(sorted(devices))}", averaged(drawn, "bars"), *hollow(drawn)])
        yield charts.cost("Accuracy at the end against training time", note, where(group), spots, reference)


def _matrices(group: Group) -> list[Heat]:
    matrices = {own.label: series.mean_matrix(own) for own in group.methods}
    values = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices.values()])
    low = min(0.9, np.floor(10 * values.min(initial=1.0)) / 10)  # the same colours for all methods
    return [
        heat(own.label, averaged([own]), matrices[own.label], group.tasks, low)
        for own in group.methods
        if not np.isnan(matrices[own.label]).all()
    ]


def _reliability(group: Group, looks: Looks) -> Iterator[Chart]:
    for own in followed(group.methods, f"calibration on {group.protocol}", len(group.methods)):
        scores = [pair for run in own.runs if (pair := final_scores(run))]
        if len(scores) < len(own.runs):
            continue
        confidence, correct = (np.concatenate(arrays) for arrays in zip(*scores))
        ece = float(np.mean([calibration.ece(*pair) for pair in scores]))
        pooled = "one run" if len(own.runs) == 1 else f"images of {len(own.runs)} runs, ECE: mean over runs"
        note = f"all {group.scored} images after the last task; {calibration.BINS} bins, area: share of the images; {pooled}"
        look = charts.GREY if own.method == ZERO_SHOT else looks[own.label]
        title = f"Reliability of {own.label}"
        yield charts.reliability(title, note, where(group), own.label, look, series.bins(confidence, correct), ece)


# -- words ------------------------------------------------------------------------------------------------------


def _competing(group: Group, otherwise: str) -> str:
    if group.conditions["scenario"] == TASK_AGNOSTIC:
        return "classes of tasks to come compete, too"
    return "each task's own classes compete" if group.task_incremental else otherwise


def matrix_note(group: Group) -> str:
    """How to read the matrices of a group."""
    learned = "learned tasks: the classes learned so far compete; future tasks (framed, or right of the line): all classes"
    return _competing(group, learned)
