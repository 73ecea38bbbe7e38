"""`bench tune`: settings of methods searched for on validation images, every trial an ordinary run."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands import completion
from bench.commands.options import CACHE_DIR, DATA_DIR, Option, chosen_folders, split_names, split_seeds, with_options
from bench.commands.run import OPTIONS as RUN_OPTIONS
from bench.commands.run import refuse_unknown, request_of
from bench.errors import BenchError, printable, unknown_name

if TYPE_CHECKING:
    from bench.images.dataset import Folders
    from bench.runs.facts import Facts
    from bench.runs.launch import Launcher
    from bench.runs.request import Request
    from bench.runs.tuning.result import Result
    from bench.runs.tuning.search import Search
    from bench.runs.tuning.trials import Trial

# scenario -> the metric that is tuned for: of each the accuracy at the end, which every method has
DEFAULT_METRICS = {"class-incremental": "last", "task-incremental": "mtil_last", "task-agnostic": "last"}
OWN_SEED = "1000"  # no table is made with it
BUILT_IN = "built-in"

AS_OF_RUN = (
    "backbone", "pretrained", "device", "precision", "set", "data", "limit_train", "limit_test", "threads", "rerun_changed",
    "retry_failed", "jobs",
)  # fmt: skip
OPTIONS: list[Option] = [
    click.option(
        "--protocol", "protocols", callback=split_names, shell_complete=completion.several_of("protocol"),
        help="Protocol, or several separated by commas; one without +validation=... is searched with +validation=20%."),
    click.option("--trials", type=click.IntRange(1, 10_000), default=16, show_default=True,
                 help="Trials of each method; the first is its present recipe."),
    click.option("--search", default=BUILT_IN, show_default=True, metavar="FILE|built-in",
                 help="TOML file with what is tried, or what each method states itself."),
    click.option("--tasks", type=click.IntRange(1, 999_999), help="Search on the first K tasks alone: no look at the future."),
    click.option("--metric", help="What is to be best: a name of bench list metrics.  [last; mtil_last where tasks are known]"),
    click.option("--max-seconds", type=click.FloatRange(min=0.0, min_open=True),
                 help="A trial with a run that takes longer is recorded, but not chosen (the present recipe may be)."),
    click.option("--seeds", default=OWN_SEED, callback=split_seeds, show_default=True, help="Seeds; scores are averaged."),
    click.option("--order-seeds", default=OWN_SEED, callback=split_seeds, show_default=True, help="Seeds of the class order."),
    *(RUN_OPTIONS[name] for name in AS_OF_RUN),
    click.option("--out", default="tuning", type=click.Path(path_type=Path), show_default=True,
                 help="Results folder of the trials; recipes go below its folder tuned/."),
]  # fmt: skip


@click.command("tune", short_help="Search for better settings on validation images.")
@click.argument("methods", callback=split_names, shell_complete=completion.several_of("method", "all"))
@with_options(OPTIONS)
@DATA_DIR
@CACHE_DIR
def tune_command(data_dir: Path | None, cache_dir: Path | None, **given: Any) -> None:
    """Search for better settings of METHODS (names separated by commas, or "all") on validation images.

    Every trial is an ordinary run of the stream's validation part; test images are never opened. Killed and repeated, the command
    goes on. Each search ends in a recipe for bench run --recipe.
    """
    raise SystemExit(tune(given, chosen_folders(data_dir, cache_dir)))


def tune(given: dict[str, Any], folders: "Folders") -> int:
    """Carry out the command and return its exit code; `given` holds the options by name."""
    _require_optuna()
    from bench.runs.facts import Facts
    from bench.runs.tuning import rounds
    from bench.system.claims import Claim, Held

    request = request_of(given)
    refuse_unknown(request.protocols, request.methods)
    metric = _known_metric(given["metric"])
    with Facts(folders, here=given["jobs"] == 1) as facts, contextlib.ExitStack() as claims:
        searches = list(_searches(facts.resolved(request), given, metric, facts))
        for search in searches:
            try:
                claims.enter_context(Claim(search.lock))
            except Held as holder:
                what = f"{search.method} on {search.published}"
                raise BenchError(f"{what} is being tuned by {holder}; stop it, wait, or give another --out") from holder
            search.begin()
        if not searches:
            return 0
        click.echo(f"searches: {len(searches)}, trials of each: {given['trials']}, results in {request.out}")
        how = rounds.How(
            folders,
            given["threads"] or (1 if request.backbone == "mini" else None),
            _launcher(given["jobs"]),
            given["retry_failed"],
            given["rerun_changed"],
            given["max_seconds"],
        )
        try:
            results = rounds.carry_out(searches, given["trials"], how, facts, _tell, _note)
        except KeyboardInterrupt:
            click.echo("\ninterrupted: finished trials are kept, the same command continues", err=True)
            return 130
    return _conclude(searches, results)


def _require_optuna() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise BenchError("bench tune needs Optuna: pip install 'continual-clip-bench[tune]', or pip install optuna")


def _known_metric(name: str | None) -> str | None:
    from bench.results import metrics

    if name and metrics.find(name).needs != "records":
        raise BenchError(f"--metric {name}: it is not made of accuracies alone; choose another one (bench list metrics)")
    return name


def _searches(request: "Request", given: dict[str, Any], metric: str | None, facts: "Facts") -> Iterator["Search"]:
    """Those that there is something to do for; a line for every method that is left out."""
    from bench.runs import assignments, plan
    from bench.runs.tuning import search, spaces

    of_file = {} if given["search"] == BUILT_IN else spaces.read(Path(given["search"]))
    tuned: set[str] = set()
    for name in request.protocols:
        protocol = facts.protocol(search.cut(facts, name, given["tasks"]))
        methods, notes = plan.choose_methods(request.methods, protocol, facts)
        for note in notes:
            _note(note)
        assignments.check_methods(request.set, methods)
        for method in methods:
            tuned.add(method)
            own = replace(request, protocols=(search.cut(facts, name, given["tasks"]),), methods=(method,))
            own = replace(own, set=tuple(one for one in request.set if one.method == method))
            lacking = facts.settings(method, protocol.name, [one.change for one in own.set]).wanting
            if lacking and list(request.methods) == ["all"]:
                _note(f"{method} left out: it needs {' '.join(f'--set {method}.{field}=...' for field in lacking)}")
                continue
            found = search.begun(own, metric or DEFAULT_METRICS[protocol.kind], of_file.get(method, {}), facts)
            if found is None:
                click.echo(f"{method} on {protocol.name}: nothing to tune")
            else:
                yield found
    for method in of_file:
        if method not in tuned:
            raise BenchError(f"{given['search']}: {unknown_name('method of this search', method, tuned)}")


def _launcher(jobs: int) -> "Launcher":
    from functools import partial

    from bench.runs import launch, local_pool

    return partial(local_pool.launch, jobs=jobs) if jobs > 1 else launch.in_process


def _note(text: str) -> None:
    click.echo(f"note: {printable(text)}", err=True)


def _tell(search: "Search", trial: "Trial") -> None:
    """One trial that is over, as a line."""
    values = " ".join(f"{name}={value}" for name, value in trial.values.items())
    if trial.state == "failed":
        outcome = f"failed: {printable(trial.reason)}"
    else:
        outcome = f"{search.metric} {100 * (trial.score or 0.0):.1f}, {trial.seconds:.0f} s"
    present = " (present)" if trial.number == 0 else ""
    click.echo(f"{search.method} on {search.protocol}: trial {trial.number}{present}: {outcome}; {values}")


def _conclude(searches: Sequence["Search"], results: Sequence["Result"]) -> int:
    """The table of what was found, and what could not be."""
    from tabulate import tabulate

    from bench.runs.tuning.result import together, written

    rows = [_row(one) for one in results]
    header = ["method", "protocol", "metric", "present", "best", "trials", "failed", "too slow", "seconds", "changed"]
    if rows:
        click.echo("\n" + tabulate(rows, header, tablefmt="simple", floatfmt=".1f", disable_numparse=[8]))
    for folder in written(results):
        click.echo(f"recipes: one a method in {folder}, all in {together(folder)}; bench run --recipe FILE uses them")
    for search in searches:
        if search.stopped:
            click.echo(f"{search.method} on {search.protocol}: {printable(search.stopped)}; repeat the command", err=True)
    for one in results:
        if one.chosen is None:
            click.echo(f"{one.search.method} on {one.search.protocol}: every trial failed: {one.present.reason}", err=True)
    return 0 if len(results) == len(searches) and all(one.chosen for one in results) else 1


def _row(one: "Result") -> list[Any]:
    trials = one.search.trials
    scores = [None if trial is None or trial.score is None else 100 * trial.score for trial in (one.present, one.chosen)]
    changed = " ".join(f"{name}={value}" for name, value in one.changes.items()) or "nothing: the present recipe stays"
    facts = [one.search.method, one.search.protocol, one.search.metric, *scores, len(trials), one.failed, one.over_time]
    return [*facts, f"{one.seconds:.0f}", changed if one.chosen else "-"]
