"""The commands that read results which are already there: table, metrics, compare, gate, plot, report."""

from pathlib import Path

import click

from bench.commands.options import split_names
from bench.errors import BenchError
from bench.reports.formats import FORMATS

SHIPPED = ""  # the value of --measured without a file
PATHS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
FORMAT = click.option("--format", "format_", default="plain", show_default=True, type=click.Choice(list(FORMATS)))


@click.command(short_help="Compare methods in a table.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--metrics", callback=split_names, help="Metrics separated by commas (bench list metrics).")
@FORMAT
@click.option("--view", default="summary", show_default=True, type=click.Choice(["summary", "tasks", "matrix", "cost"]),
              help="One number a metric, accuracies per task, whole matrices, or seconds, memory and parameters.")  # fmt: skip
@click.option("--sort", metavar="METRIC", help="Metric that orders the methods.")
@click.option("--published", "with_papers", is_flag=True, help="Put the numbers of papers beside the measured ones.")
@click.option("--measured", "measured", is_flag=False, flag_value=SHIPPED, metavar="[FILE]",
              help="Put results beside them that others measured and handed in (bench publish): those that ship, or those "
                   "of FILE.")  # fmt: skip
@click.option("--methods", callback=split_names,
              help="Only these methods, separated by commas, in this order unless --sort names another.")  # fmt: skip
@click.option("--digits", type=int, default=1, show_default=True, help="Digits behind the point of percentages.")
@click.option("--caption", metavar="TEXT", help="Caption in place of the own one, which then stands in the notes.")
@click.option("--label", metavar="NAME", help="What a paper refers to: \\label in LaTeX, id in HTML.")
@click.option("--no-runs-column", is_flag=True, help="Say the numbers of runs in a note instead.")
@click.option("--significance", is_flag=True,
              help="Mark what cannot be told apart from the best of a column: paired over runs with equal seeds as in bench "
                   "compare, Bonferroni's correction.")  # fmt: skip
def table(
    paths: tuple[Path, ...], metrics: tuple[str, ...] | None, format_: str, view: str, sort: str | None, with_papers: bool,
    measured: str | None, methods: tuple[str, ...] | None, digits: int, caption: str | None, label: str | None,
    no_runs_column: bool, significance: bool,
) -> None:  # fmt: skip
    """Compare the methods whose results lie at or below PATHS. A file with accuracies that another program measured (as bench
    metrics reads it) gets rows of its own, marked as foreign."""
    from bench.commands.measured import beside
    from bench.reports import costs, foreign_rows, tables
    from bench.reports.layout import Layout, refuse_for_view
    from bench.results import loaded, published

    layout = Layout(methods, digits, caption, label, not no_runs_column, significance)
    refuse_for_view(layout, view)
    paths, handed_in = beside(paths, measured, view)
    own, files = foreign_rows.split(paths)
    if view == "cost":
        if files:
            raise BenchError(f"{files[0]}: another program measured it, its cost is not known; leave it out of --view cost")
        click.echo(costs.render(own, format_, layout))
        return
    results = loaded.load(own) if own else loaded.nothing()
    found = tables.render(
        results.table, metrics, format_, view, sort,
        results.samples_of, published.load() if with_papers else None, foreign_rows.load(files), results.manifests,
        handed_in, layout,
    )  # fmt: skip
    click.echo(found)


@click.command(short_help="Compute every metric of an accuracy matrix of any origin.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--order", callback=split_names,
              help="Task names in learning order, separated by commas, if the file does not have it.")  # fmt: skip
@click.option("--unit", type=click.Choice(["percent", "fraction"]), help="Unit of the accuracies.  [found out]")
@FORMAT
def metrics(files: tuple[Path, ...], order: tuple[str, ...] | None, unit: str | None, format_: str) -> None:
    """Print every metric that accuracy matrices determine: CSV files and arrays of any origin, or another toolkit's results.
    "-" reads standard input."""
    from bench.reports import foreign_metrics
    from bench.results.foreign import accuracy_files

    matrices = [one for _, one in accuracy_files.read_all(files, order, unit)]
    click.echo(foreign_metrics.report(matrices, format_))


@click.command(short_help="Compare two methods run by run, or rank all of them.")
@click.argument("arguments", metavar="A B [PATHS]...", nargs=-1, required=True)
@click.option("--ranking", "ranked", is_flag=True, help="Rank all methods over all protocols at or below the paths instead.")
@click.option("--metrics", callback=split_names, help="Metrics separated by commas; for --ranking one.  [those of the tables]")
@FORMAT
def compare(arguments: tuple[str, ...], ranked: bool, metrics: tuple[str, ...] | None, format_: str) -> None:
    """Compare two methods, run by run and test image by test image. A and B are methods as the tables print them, found
    at or below PATHS [results], or folders of runs."""
    if ranked:
        from bench.reports import ranking

        if metrics and len(metrics) > 1:
            raise BenchError(f"--ranking goes by one metric, not {len(metrics)}")
        click.echo(ranking.render([Path(path) for path in arguments], metrics[0] if metrics else None, format_))
        return
    from bench.reports import compare

    if len(arguments) < 2:
        raise BenchError(f"two methods or folders are compared, only {arguments[0]!r} was given")
    a, b, *paths = arguments
    click.echo(compare.render(a, b, [Path(path) for path in paths] or [Path("results")], metrics, format_))


@click.command(short_help="Compare fresh results with a baseline; exit 1 if worse.")
@PATHS
@click.option("--baseline", required=True, metavar="FILE.csv|NAME", type=click.Path(path_type=Path),
              help="What to compare with: a file, or a baseline that ships with the package.")  # fmt: skip
@click.option("--tolerance", metavar="EXPR", help="E.g. last:1.0,ci_transfer:5%,2  [from the spread of the baseline's runs]")
@click.option("--metrics", callback=split_names, help="Compare, or store, only these metrics, separated by commas.")
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--markdown", metavar="FILE", type=click.Path(path_type=Path), help="Write Markdown.")
@click.option("--update", is_flag=True, help="Replace the baseline by these results.")
def gate(
    paths: tuple[Path, ...], baseline: Path, tolerance: str | None, metrics: tuple[str, ...] | None, junit: Path | None,
    markdown: Path | None, update: bool,
) -> None:  # fmt: skip
    """Compare fresh results at or below PATHS with a stored baseline; exit 1 if something got worse."""
    from bench.gate import comparison, report
    from bench.gate.baseline import locate

    if update:
        moved, done = comparison.update(paths, baseline, metrics)
        if moved:
            click.echo(report.moved(moved) + "\n")
        click.echo(done)
        return
    outcome = comparison.gate(paths, locate(baseline), tolerance, metrics)
    click.echo(report.text(outcome))
    report.publish(outcome, junit, markdown)
    if not outcome.passed:
        raise SystemExit(1)


@click.command(short_help="Draw the runs, one protocol a picture.")
@PATHS
@click.option("-o", "--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the pictures.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND",
              help="accuracy, future, matrix, reliability, cost, storage, ranking or critical-difference; may be repeated.  "
                   "[all that can be drawn]")  # fmt: skip
@click.option("--format", "format_", default="png", show_default=True, type=click.Choice(["png", "svg", "pdf"]))
@click.option("--methods", callback=split_names, help="Only these methods, separated by commas.")
@click.option("--highlight", callback=split_names,
              help="Draw these methods in colour and all others grey behind them; separated by commas.")  # fmt: skip
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size of each picture in inches, e.g. 3.3x2.5.  [as large as it takes]")
@click.option("--title", metavar="none|TEXT",
              help="Another title; none: no words above the picture, which its caption must say then.")  # fmt: skip
def plot(
    paths: tuple[Path, ...], folder: Path, kinds: tuple[str, ...], format_: str, methods: tuple[str, ...] | None,
    highlight: tuple[str, ...] | None, size: str | None, title: str | None,
) -> None:  # fmt: skip
    """Draw the runs at or below PATHS, one protocol a picture."""
    from bench.pictures import form, plots

    wanted = form.Form(
        methods,
        highlight or (),
        None if size is None else form.read_size(size),
        None if title is None else form.read_title(title),
    )
    for file in plots.plot(paths, folder, kinds, format_, wanted):
        click.echo(file)


@click.command(short_help="Write one HTML page about the runs.")
@PATHS
@click.option("-o", "--out", "file", type=click.Path(path_type=Path), help="The page.  [report.html, or leaderboard.html]")
@click.option("--against", metavar="METHOD", help="Compare the others with this method.  [the best of each protocol]")
@click.option("--leaderboard", is_flag=True,
              help="Rank instead what many people measured: PATHS are results folders, or files of bench publish.")  # fmt: skip
def report(paths: tuple[Path, ...], file: Path | None, against: str | None, leaderboard: bool) -> None:
    """Write one HTML page about the runs at or below PATHS: tables, pictures, paired comparisons, manifests, and how to repeat
    each run."""
    if leaderboard:
        from bench.pictures.page import leaderboard as board

        if against is not None:
            raise BenchError("--against compares the methods of one report; a leaderboard ranks them")
        click.echo(board.write(paths, file or Path("leaderboard.html")))
        return
    from bench.pictures.page import write

    click.echo(write.write(paths, file or Path("report.html"), against))
