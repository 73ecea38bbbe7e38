"""`bench reproduce`: a paper's table from its study file: what is missing, what it costs, the runs, and a verdict per number.

Only the verdicts go to standard output. They depend on the finished runs alone and not on how often the command was stopped on
the way; all that does goes to standard error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands import run as running
from bench.commands.completion import one_of
from bench.commands.options import CACHE_DIR, DATA_DIR, chosen_folders, with_options
from bench.commands.results import FORMAT
from bench.errors import BenchError, printable
from bench.results import paper_tables
from bench.results.paper_tables import UNREAD, Cell, Key, PaperTable

if TYPE_CHECKING:
    from bench.images.dataset import Folders
    from bench.reports.reproduction import Measured
    from bench.results.groups import Group
    from bench.results.run_data import RunData
    from bench.runs.launch import Outcome
    from bench.runs.paper_study import PaperStudy
    from bench.runs.run import Run

STAND_INS = "stand-in images: shows only that the table goes through"
TAKEN = [option for name, option in running.OPTIONS.items() if name not in ("study", "ablate")]


@click.command("reproduce", short_help="Run a paper's table and say which numbers come out.")
@click.argument("name", metavar="TABLE", shell_complete=one_of(also=paper_tables.names))
@with_options(TAKEN)
@DATA_DIR
@CACHE_DIR
@FORMAT
@click.option("--per-dataset", is_flag=True, help="Show the numbers of single data sets, too.")
@click.option("--every-cell", is_flag=True, help="Run also what the table has and nobody could read the number of.")
@click.option("--full-training", is_flag=True,
              help="On stand-in images train as long as the paper; else as shortly as each method can.")  # fmt: skip
def reproduce_command(name: str, data_dir: Path | None, cache_dir: Path | None, **given: Any) -> None:
    """Run a paper's TABLE (bench list tables) and say of each of its numbers whether it was reproduced. Options narrow the table
    down (--methods, --protocol, --seeds) or change the conditions; what is not what the paper has gets no verdict on it."""
    raise SystemExit(reproduce(paper_tables.find(name), given, chosen_folders(data_dir, cache_dir)))


def reproduce(table: PaperTable, given: dict[str, Any], folders: "Folders") -> int:
    """Carry out the command and return its exit code; `given` holds the options by name."""
    from bench.runs import paper_study

    if given["full_training"] and given["data"] != "synthetic":
        raise BenchError("--full-training is for --data synthetic; on real images methods always train as long as the paper")
    study = paper_study.read(table, running.asked(given), given["full_training"])
    cells = paper_tables.cells(table, paper_study.keys(study.whole))
    wanted = {cell.key for cell in cells if cell.key and (given["every_cell"] or cell.reason != UNREAD)}
    launcher = running.launcher_of(given, study.study)
    plan = running.planned(study.study, given, folders, launcher, wanted=lambda one: study.key(one) in wanted)
    if given["preflight"]:
        return running.preflight_of(plan.runs, folders)
    if plan.runs or given["dry_run"]:
        nothing = f"nothing of {table.name} can be run (bench show {table.name})"
        click.echo(plan.text(given) if plan.runs else nothing, err=not given["dry_run"])
    if given["dry_run"]:
        return 0
    _foreseen(plan, given, folders)
    outcomes = running.carried_out(plan, given, folders, launcher, each_reason=True)
    if outcomes is None:
        return 130
    click.echo(_verdicts(table, study, cells, wanted, outcomes, plan.not_asked_for, given))
    return _conclude(outcomes, plan.not_asked_for)


def _foreseen(plan: running.Plan, given: Mapping[str, Any], folders: "Folders") -> None:
    """What is missing and what it costs, before anything starts."""
    from bench.runs import estimate, preflight

    for remark in plan.remarks:
        click.echo(remark, err=True)
    waiting = [one for one in plan.runs if one.run_id in plan.to_do]
    if not waiting:
        return
    looked = preflight.examine(waiting, folders)
    click.echo("\n".join(looked.lines[:-1]), err=True)
    if looked.missing:
        click.echo(f"{looked.missing} missing: what needs it is downloaded if it can be, or not run", err=True)
    costs = estimate.of_plan(plan.runs, plan.to_do)
    click.echo(estimate.summary(plan.runs, costs, given["jobs"], plan.to_do), err=True)


def _conclude(outcomes: Sequence["Outcome"], not_asked_for: set[str]) -> int:
    """List what was not run, and say whether all was."""
    for outcome in outcomes:
        if outcome.reason:
            click.echo(f"{outcome.run.label}: {outcome.status}: {printable(outcome.reason)}", err=True)
    waiting = sum(outcome.status not in ("finished", "already finished") for outcome in outcomes)
    if waiting:
        click.echo(f"{waiting} of {len(outcomes)} runs are not finished; the same command continues them", err=True)
    return 1 if waiting or not_asked_for else 0


def _verdicts(
    table: PaperTable,
    study: "PaperStudy",
    cells: Sequence[Cell],
    wanted: set[Key],
    outcomes: Sequence["Outcome"],
    not_asked_for: set[str],
    given: Mapping[str, Any],
) -> str:
    """The table of verdicts as text."""
    from bench.reports import reproduction
    from bench.reports.formats import write

    done = [one.run for one in outcomes if one.run.finished and one.run.run_id not in not_asked_for]
    measured = _measured(done, study)
    unfinished = _unfinished(study, wanted, outcomes, not_asked_for)
    runs = [outcome.run for outcome in outcomes]
    void = _void(table, study, runs[0]) if runs else ""
    found = []
    for cell in cells:
        no_verdict = "; ".join(part for part in (void, _changed(study, cell)) if part)
        found.append((cell, reproduction.judge(cell, table, measured, unfinished, no_verdict)))
    remarks = _remarks(table, runs, measured, study)
    return write([reproduction.tabulated(table, found, void, remarks, given["per_dataset"])], given["format_"])


def _changed(study: "PaperStudy", cell: Cell) -> str:
    """The hyper-parameters that the command line sets of the method of a cell."""
    method = cell.key[1].partition(" ")[0] if cell.key else ""
    fields = sorted(field for name, field in study.changed if name == method)
    return f"changed with --set: {', '.join(fields)}" if fields else ""


def _measured(done: Sequence["Run"], study: "PaperStudy") -> dict[Key, "Measured"]:
    """The finished runs of each row of the table, in the order of the plan."""
    from bench.reports.reproduction import Measured
    from bench.results import groups, records

    if not done:
        return {}
    data: dict[str, tuple[Group, RunData]] = {}
    for group in groups.comparable(records.load([one.files.records for one in done])):
        for own in group.methods:
            data |= {run_id: (group, run) for run_id, run in zip(own.run_ids, own.runs)}
    found: dict[Key, Measured] = {}
    for one in done:
        group, run = data[one.run_id]
        found.setdefault(study.key(one), Measured(group.conditions["scenario"], group.tasks, [])).runs.append(run)
    return found


def _unfinished(study: "PaperStudy", wanted: set[Key], outcomes: Sequence["Outcome"], not_asked_for: set[str]) -> dict[Key, str]:
    """Why there is no finished run of a row; rows that the command line leaves out are among them."""
    found = dict.fromkeys(wanted, "left out by --methods or --protocol")
    for outcome in outcomes:
        key = study.key(outcome.run)
        if outcome.run.run_id in not_asked_for:
            found[key] = "finished, but on other data; --rerun-changed runs it again"
        elif outcome.status == "failed":
            found[key] = "its run failed" if outcome.scope == "run" else printable(outcome.reason)
        else:
            found[key] = outcome.status
    return found


def _void(table: PaperTable, study: "PaperStudy", run: "Run") -> str:
    """Why no verdict on the paper comes of runs like this one; empty if one does."""
    from bench.results import published

    reasons = [STAND_INS] if run.synthetic else []
    flag, comparable = published.difference_in_backbone(table.backbone, run.backbone, run.weights_label)
    reasons += [] if comparable else [f"{flag}: {run.backbone} {run.weights_label}"]
    limits = {"training": run.limit_train, "test": run.limit_test}
    few = [f"{what} {number}" for what, number in limits.items() if number]
    reasons += [f"images of every class: {', '.join(few)}"] if few else []
    reasons += ["methods train as shortly as they can"] if study.shortened else []
    return "; ".join(reasons)


def _remarks(table: PaperTable, runs: Sequence["Run"], measured: Mapping[Key, "Measured"], study: "PaperStudy") -> list[str]:
    """What differs between the paper and these runs, and is no part of the study file."""
    if not runs:
        return []
    asked: dict[Key, int] = {}
    for one in runs:
        asked[study.key(one)] = asked.get(study.key(one), 0) + 1
    fewest = min(asked.values())
    found = [f"the paper has {table.runs}, here {fewest}: runs of a row"] if fewest != table.runs else []
    if fewest == 1:
        found.append("one run of a row: its spread over seeds is not known, and not part of the tolerance")
    for (protocol, method), number in asked.items():
        done = len(measured[protocol, method].runs) if (protocol, method) in measured else 0
        found += [f"{method} on {protocol}: {done} of {number} runs are finished"] if 0 < done < number else []
    conditions = dict.fromkeys(f"{one.backbone} {one.weights_label} in {one.precision}" for one in runs)
    return [*found, f"the runs here have {', '.join(conditions)}; the paper {table.backbone}"]
