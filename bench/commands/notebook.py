"""What a notebook or a script calls in the place of the command line: `bench.run`, `bench.results`, `bench.table`.

They are the commands with their options by name, and give frames of pandas instead of text. What a command answers with a line
and an exit code is a BenchError here. Nothing is forked: more than one job at a time are worker processes of their own.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import chosen_folders
from bench.commands.run import carried_out, launcher_of, planned, run_command, study_of
from bench.errors import BenchError, one_line, printable, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from bench.commands.run import Plan
    from bench.reports.formats import Table
    from bench.runs.launch import Outcome

Place = str | PathLike[str]
Names = str | Sequence[str]


def run(
    protocol: Names | None = None, methods: "Names | type | Sequence[str | type] | None" = None, **options: Any
) -> "pd.DataFrame":
    """Carry out what `bench run` would, and give the results of these runs as `bench.results` does, in the order of the plan.

    methods: names, FILE.py:CLASS, or classes that extend bench.Method. options: those of `bench run` by name, with underscores
    (bench run --help): seeds=[0, 1], limit_train=5, jobs=4, out="results", set={"coop.epochs": 5}, fresh=True, study="s.toml".
    dry_run=True gives the plan: a row a run. BenchError if something is wrong with what is asked for, or if a run fails.
    """
    from bench.streams import sources

    elsewhere = options.get("jobs", 1) != 1 or options.get("launcher", "here") != "here"
    texts = None if methods is None else tuple(_method(one, elsewhere) for one in _listed(methods))
    protocols = None if protocol is None else tuple(_listed(protocol))
    with _parsed({**options, "protocol": _joined(protocols), "methods": _joined(texts)}) as given:
        given |= {name: value for name, value in (("protocols", _flat(protocols)), ("methods", texts)) if value}
        folders = chosen_folders(given.pop("data_dir"), given.pop("cache_dir"))
        sources.forget()
        study = study_of(given)
        launcher = launcher_of(given, study)
        work = planned(study, given, folders, launcher)
        if given["preflight"]:
            _refuse_missing(work, folders)
        if given["dry_run"] or given["preflight"]:
            return _as_frame(work)
        for remark in work.remarks:
            click.echo(remark, err=True)
        with _threads_as_they_are():
            outcomes = carried_out(work, given, folders, launcher)
        if outcomes is None:
            raise KeyboardInterrupt
    _refuse_failed(outcomes, work)
    return results(*(outcome.run.files.records for outcome in outcomes))


def results(*paths: Place, metrics: Names | None = None, records: bool = False) -> "pd.DataFrame":
    """The finished runs at or below the paths ["results"]: a row a run, with its conditions, seeds, metrics and folder.

    Metrics are fractions; by default those that the tables of the runs' scenarios show (bench list metrics). records=True: a row
    for every accuracy instead, as records.csv has them.
    """
    from bench.results import loaded, run_table
    from bench.results.records import find

    places = [Path(path) for path in paths or ("results",)]
    found = loaded.load(places)
    if records:
        return found.table
    frame = run_table.values(found.table, None if metrics is None else _listed(metrics), found.samples_of)
    folders = {file.parent.name: str(file.parent) for place in places for file in find(place)}
    return frame.assign(folder=[folders.get(run_id) for run_id in frame["run_id"]])


def table(
    *paths: Place, metrics: Names | None = None, view: str = "summary", sort: str | None = None, published: bool = False
) -> "pd.DataFrame":
    """What `bench table` prints of the paths ["results"], as numbers: a row a method, with mean, spread (_std) and count (_n).

    view: summary, tasks, matrix or cost. Every row holds the conditions of its table. published=True: with the numbers of papers.
    """
    import pandas as pd

    tables = _tables([Path(path) for path in paths or ("results",)], metrics, view, sort, published)
    return pd.DataFrame([{**one.conditions, **row} for one in tables for row in one.data])


def _tables(
    paths: list[Path], metrics: Names | None, view: str, sort: str | None, published: bool
) -> "list[Table]":
    from bench.reports import costs, foreign_rows, tables
    from bench.results import loaded
    from bench.results import published as papers

    own, files = foreign_rows.split(paths)
    if view == "cost":
        if files:
            raise BenchError(f"{files[0]}: another program measured it, its cost is not known; leave it out of view='cost'")
        return costs.build(own)
    if view not in tables.VIEWS:
        raise unknown_name("view", view, [*tables.VIEWS, "cost"])
    found = loaded.load(own) if own else loaded.nothing()
    return tables.build(
        found.table, None if metrics is None else _listed(metrics), view, sort, found.samples_of,
        papers.load() if published else None, foreign_rows.load(files), found.manifests,
    )  # fmt: skip


# -- from Python's values to options ----------------------------------------------------------------------------


def _listed(value: Any) -> list[Any]:
    """The items of a list, or those of one text with commas, or the one that stands alone."""
    if isinstance(value, str):
        from bench.streams import names

        return names.split_list(value)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, type) else [value]


def _flat(protocols: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(map(str, protocols))) if protocols else None


def _joined(names: Sequence[str] | None) -> str | None:
    """So that the option counts as given; the names themselves are put in after it was read."""
    return None if names is None else ",".join(map(str, names))


def _method(one: Any, elsewhere: bool) -> str:
    """A method's name; of a class its registered one, or what stands for the class. elsewhere: other processes carry it out."""
    from bench.system import method_classes, registry

    if isinstance(one, str):
        return one
    target = f"{getattr(one, '__module__', '')}:{getattr(one, '__qualname__', '')}"
    registered = (name for name in registry.names("method") if registry.target("method", name) == target)
    return next(registered, None) or method_classes.given(one, elsewhere)


@contextlib.contextmanager
def _parsed(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The options as the command line would have them, read by the same rules: values, limits, defaults, environment."""
    parameters = {_python_name(one): one for one in run_command.params if isinstance(one, click.Option)}
    words: list[str] = []
    for name, value in options.items():
        if name not in parameters:
            raise unknown_name("option", name, parameters)
        words += _words(parameters[name], value)
    try:
        context = run_command.make_context("bench.run", words)
    except click.UsageError as error:
        raise BenchError(one_line(error.format_message())) from error
    with context.scope(cleanup=False):
        yield dict(context.params)


def _python_name(option: click.Option) -> str:
    """--limit-train is limit_train; --protocol, protocol."""
    return max(option.opts, key=len).removeprefix("--").replace("-", "_")


def _words(option: click.Option, value: Any) -> list[str]:
    name = max(option.opts, key=len)
    if value is None or value is False:
        return []
    if option.is_flag:
        if value is not True:
            raise BenchError(f"{_python_name(option)}: True or False is wanted, not {value!r}")
        return [name]
    if isinstance(value, Mapping):
        value = _pairs(value)
    several = isinstance(value, Iterable) and not isinstance(value, str | PathLike)
    if option.multiple:
        return [f"{name}={_text(own)}" for own in (value if several else [value])]
    return [f"{name}={','.join(map(_text, value)) if several else _text(value)}"]


def _pairs(table: Mapping[str, Any], before: str = "") -> list[str]:
    """
    >>> _pairs({"coop.epochs": 5, "cgil": {"vae_epochs": 2}})
    ['coop.epochs=5', 'cgil.vae_epochs=2']
    """
    found = []
    for key, value in table.items():
        found += _pairs(value, f"{before}{key}.") if isinstance(value, Mapping) else [f"{before}{key}={_text(value)}"]
    return found


def _text(value: Any) -> str:
    """As a user would write it: true, 1,2,3."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# -- from runs to what is handed back ---------------------------------------------------------------------------


@contextlib.contextmanager
def _threads_as_they_are() -> Iterator[None]:
    """The caller's process goes on: its torch keeps as many threads as it had."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _as_frame(work: "Plan") -> "pd.DataFrame":
    import pandas as pd

    columns = ("protocol", "method", "overrides", "order_seed", "seed", "run_id")
    rows = [{name: getattr(one, name) for name in columns} for one in work.runs]
    return pd.DataFrame(rows, columns=list(columns)).assign(status=work.statuses, folder=[str(one.folder) for one in work.runs])


def _refuse_missing(work: "Plan", folders: Any) -> None:
    from bench.runs import preflight

    looked = preflight.examine(work.runs, folders)
    click.echo("\n".join(looked.lines))
    if looked.missing:
        raise BenchError(f"{looked.missing} missing for this plan, listed above; nothing was started")


def _refuse_failed(outcomes: "Sequence[Outcome]", work: "Plan") -> None:
    """A frame without some of the runs that were asked for would be taken for the answer."""
    lacking = [one for one in outcomes if not one.run.finished]
    if lacking:
        first = f"{lacking[0].run.label}: {lacking[0].status}: {printable(lacking[0].reason)}"
        remedy = "retry_failed=True tries failed ones again, bench.results(out) has the others"
        raise BenchError(f"{len(lacking)} of {len(outcomes)} runs did not finish; {first}; {remedy}")
    if work.not_asked_for:
        raise BenchError(
            f"{len(work.not_asked_for)} of {len(outcomes)} runs were made on other data; rerun_changed=True runs them again, "
            "another out keeps both"
        )
